"""What a coordinator has folded, kept where the next one finds it."""
