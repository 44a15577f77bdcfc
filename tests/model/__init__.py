"""Model checking of the saga protocol: the project's own reducer and agent-side table, under every interleaving."""
