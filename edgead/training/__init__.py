"""Training: from images of good parts to a run on disk."""
