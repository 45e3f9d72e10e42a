"""Checkpoints of other libraries, read without running them, become training runs."""
