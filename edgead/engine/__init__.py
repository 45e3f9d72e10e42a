"""Builds verified bundles from training runs and from other bundles."""
