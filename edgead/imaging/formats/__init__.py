"""Decoders of image files, one module for each format.

Each decoder checks the size and the completeness of a file before it decodes the pixels, and refuses what it does not
read by name. `edgead.imaging.decode` chooses the decoder and converts its pixels to 8-bit RGB.
"""
