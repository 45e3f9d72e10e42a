"""Pseudo-anomalies on good images, for methods that train on anomalies, with their noise and textures."""
