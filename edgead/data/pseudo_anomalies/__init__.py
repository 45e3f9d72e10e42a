"""What is put on good images for methods that train on anomalies, and its noise and textures."""
