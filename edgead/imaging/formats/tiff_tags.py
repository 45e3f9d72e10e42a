"""Values of TIFF tags that several modules need.

Source: TIFF Revision 6.0 (Adobe, 1992), and the BigTIFF design of libtiff.
"""

from __future__ import annotations

BIG_ENDIAN_BIGTIFF = b"MM\0+"

# PhotometricInterpretation.
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE = 0, 1, 2, 3

# Compression: two numbers of Deflate, and PackBits.
DEFLATE = (8, 32946)
PACKBITS = 32773

# ExtraSamples.
PREMULTIPLIED, STRAIGHT_OPACITY = 1, 2

# PlanarConfiguration.
SEPARATE_PLANES = 2
