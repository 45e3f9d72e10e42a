"""edgead: train on pictures of good parts, build a verified engine, stream a camera."""

__version__ = "0.1.0"
