"""Images are decoded as on a device, where tifffile has only its own codecs."""

from __future__ import annotations

from unittest import mock

import tifffile
from tifffile import _imagecodecs

from edgead.imaging.decode import image_from_bytes
from edgead.types import UInt8Array


def decode_as_a_device(data: bytes) -> UInt8Array:
    """Decode an image called `it` without imagecodecs, which tests write files with."""
    with mock.patch.object(tifffile.tifffile, "imagecodecs", _imagecodecs):
        return image_from_bytes(data, "it")
