"""The benchmarks: `python -m tests.benchmarks [CASE...]`, or `make bench`.

Every subject runs in a process of its own against one real broker, in interleaved rounds, so that what the machine does
beside falls on all of them alike. What counts is the ratio against the bare loop of the same run.
"""
