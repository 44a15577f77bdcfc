"""The saga coordinator: folds the journal, keeps what it folded, and tells agents what follows from it."""
