"""Decisions from scores: the threshold from the scores of normal images, and metrics."""
