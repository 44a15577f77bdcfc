"""What the agents are compared with, each a program of its own on the same witness and under the same faults."""
