"""Every variant of every format decodes to what was written or what another library reads, or is refused by name."""

from __future__ import annotations

import io
from collections import Counter

import numpy as np
import pytest
import tifffile
from PIL import Image

from edgead.errors import ImageError
from tests.imaging.device_codecs import decode_as_a_device
from tests.imaging.matrix_bmp import bmp_cases
from tests.imaging.matrix_files import Case, jpeg_cases, other_cases, png_cases, webp_cases
from tests.imaging.matrix_tiff import layout_cases, tiff_cases

FORMATS = {
    "png": png_cases,
    "jpeg": jpeg_cases,
    "webp": webp_cases,
    "bmp": bmp_cases,
    "tiff": tiff_cases,
    "other": other_cases,
    "tiff-layouts": layout_cases,
}


def difference(case: Case) -> str:
    """Describe what is wrong with a case; empty if it decodes or is refused as it must."""
    try:
        image = decode_as_a_device(case.data)
    except ImageError as error:
        if case.expected is None and case.refusal in error.what:
            return ""
        return f"{case.name}: {error}"
    if case.expected is None:
        return f"{case.name}: it was read"
    if image.shape != case.expected.shape or image.dtype != np.uint8:
        return f"{case.name}: {image.shape} {image.dtype} instead of {case.expected.shape}"
    largest = np.abs(image - case.expected.astype(np.float64)).max()
    return "" if largest <= case.tolerance else f"{case.name}: differs by {largest} levels"


@pytest.mark.parametrize("name", FORMATS)
def test_every_variant_decodes_as_it_must_or_is_refused_by_name(name: str) -> None:
    cases = list(FORMATS[name]())
    assert cases
    assert Counter(case.name for case in cases).most_common(1)[0][1] == 1
    assert [wrong for case in cases if (wrong := difference(case))] == []


def test_a_deliberate_mistake_is_found() -> None:
    case = next(case for case in tiff_cases() if case.name == "tiff-16<-sense1")
    assert case.expected is not None
    assert difference(case) == ""
    assert difference(case._replace(expected=case.expected + 2))
    assert difference(case._replace(expected=None, refusal="CMYK"))


def test_the_expected_values_of_tiff_files_agree_with_tifffile() -> None:
    compared = 0
    for case in tiff_cases():
        if case.expected is None or "palette" in case.name or "turned" in case.name or "alpha" in case.name:
            continue
        with tifffile.TiffFile(io.BytesIO(case.data)) as file:
            page = file.pages[0]
            values = np.atleast_3d(page.asarray())
        if page.planarconfig == 2 and values.shape[0] in (3, 4, 5):
            values = np.moveaxis(values, 0, 2)
        peak = 2**page.bitspersample - 1
        if page.photometric == 0:
            values = peak - values.astype(np.int64)
        expected = case.expected if page.photometric == 2 else case.expected[..., :1]
        shown = values[..., : expected.shape[2]].astype(np.float64) * 255 / peak
        assert np.abs(shown - expected).max() <= 0.5, case.name
        compared += 1
    assert compared > 30


def test_the_expected_values_of_other_files_agree_with_pillow() -> None:
    compared = 0
    for case in (*png_cases(), *bmp_cases(), *webp_cases()):
        if case.expected is None or any(
            word in case.name for word in ("turned", "key", "alpha", "bgra", "rgba")
        ):
            continue
        try:
            with Image.open(io.BytesIO(case.data)) as image:
                if image.mode == "I;16":
                    shown = np.repeat(np.array(image)[..., np.newaxis] / 257, 3, axis=2)
                else:
                    shown = np.array(image.convert("RGB"))
        except OSError:  # Pillow reads fewer headers and masks of BMP
            continue
        assert np.abs(shown - case.expected.astype(np.float64)).max() <= 1, case.name
        compared += 1
    assert compared > 80
