"""Predictions on files: images and videos in, a table, JSON lines and images out."""
