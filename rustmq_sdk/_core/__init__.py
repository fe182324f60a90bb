"""Decisions: synchronous and pure. Time and randomness come in as arguments; no task, no I/O, no log."""
