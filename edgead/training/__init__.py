"""Training: from pictures of good parts to a run on disk."""
