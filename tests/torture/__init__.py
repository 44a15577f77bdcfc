"""Torture: agents, brokers and peers under kills, with a witness outside and a checker of what was left behind."""
