"""Images and anomaly maps as arrays: NumPy and OpenCV only."""
