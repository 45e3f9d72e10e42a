"""Images that are decoded in several threads at once give what they give one after another."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from edgead.errors import ImageError
from edgead.imaging.decode import image_from_bytes
from edgead.types import UInt8Array
from tests.imaging.matrix_bmp import bmp_cases
from tests.imaging.matrix_files import exif, jpeg_cases, png_cases, saved, smooth, webp_cases
from tests.imaging.matrix_tiff import tiff_cases


def decoded(data: bytes) -> UInt8Array | str:
    try:
        return image_from_bytes(data, "it")
    except ImageError as error:
        return str(error)


def files() -> list[bytes]:
    """Files of every format, and some with EXIF data that Pillow warns of."""
    image = Image.fromarray(smooth(255, 3, 16, 24).astype(np.uint8))
    # The orientation is cut off, or has another type.
    damaged = [exif(6)[:-2], exif(6).replace(b"\x00\x03", b"\x00\x07"), b"MM\0*\0\0\0\x08\0\xff", exif(6)]
    jpegs = [saved(image, "JPEG", exif=b"Exif\0\0" + data) for data in damaged]
    cases = [
        case.data for make in (png_cases, jpeg_cases, bmp_cases, tiff_cases, webp_cases) for case in make()
    ]
    return [*cases, *jpegs * 20]


@pytest.fixture
def _quick_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_quick_switches")
def test_threads_decode_as_one_thread_does_and_leave_the_warning_filters() -> None:
    data = files()
    alone = [decoded(one) for one in data]
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(decoded, data))
    assert warnings.filters == before
    for one, other in zip(alone, together, strict=True):
        if isinstance(one, str) or isinstance(other, str):
            assert one == other
        else:
            np.testing.assert_array_equal(one, other)
