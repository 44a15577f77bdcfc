"""What became of each step: the table of transitions, the rows, and the port of the stores that keep them."""
