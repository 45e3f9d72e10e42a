"""Training: from images of good parts to a run directory on disk."""
