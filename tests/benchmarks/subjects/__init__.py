"""What is compared, each a program of its own: `python -m tests.benchmarks.subjects.<name> ORDER`."""
