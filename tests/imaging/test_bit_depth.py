"""Values of 10, 12 and 14 bits in files of 16 bits: scaled by the depth that the user or the file gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgead.errors import ImageError, InputError
from edgead.imaging.decode import BIT_DEPTHS, check_bit_depth, dark_text, image_from_bytes, read_image
from tests.imaging.matrix_files import as_rgb, chunk, png, smooth
from tests.imaging.matrix_tiff import tiff

SMAX = 341


def stored_in_16_bits(depth: int, channels: int = 1) -> np.ndarray:
    return smooth(2**depth - 1, channels).astype(np.uint16)


@pytest.mark.parametrize("depth", BIT_DEPTHS)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_given_depth_scales_a_tiff_and_a_png(depth: int, channels: int) -> None:
    values = stored_in_16_bits(depth, channels)
    expected = as_rgb(values, 2**depth - 1)
    kind = "rgb" if channels == 3 else "minisblack"
    for data in (tiff(values.squeeze(), photometric=kind), png(values, 16, 2 if channels == 3 else 0)):
        image = image_from_bytes(data, "it", depth)
        assert np.abs(image - expected).max() <= 0.5
        assert image.max() == 255
        # Without the depth the values stay what they are among 16 bits.
        assert np.abs(image_from_bytes(data, "it") - as_rgb(values, 65535)).max() <= 0.5


@pytest.mark.parametrize("depth", BIT_DEPTHS)
def test_the_largest_value_that_a_tiff_records_is_its_depth(depth: int) -> None:
    values = stored_in_16_bits(depth)
    data = tiff(values.squeeze(), extratags=[(SMAX, "H", 1, 2**depth - 1, True)])
    assert np.abs(image_from_bytes(data, "it") - as_rgb(values, 2**depth - 1)).max() <= 0.5
    # A largest value that no camera has is a property of the one image and no depth.
    data = tiff(values.squeeze(), extratags=[(SMAX, "H", 1, 2**depth + 5, True)])
    assert np.abs(image_from_bytes(data, "it") - as_rgb(values, 65535)).max() <= 0.5


def test_the_given_depth_counts_before_the_depth_of_the_file() -> None:
    values = stored_in_16_bits(10)
    data = tiff(values.squeeze(), extratags=[(SMAX, "H", 1, 4095, True)])
    assert np.abs(image_from_bytes(data, "it", 10) - as_rgb(values, 1023)).max() <= 0.5


def test_white_as_zero_is_inverted_at_the_given_depth() -> None:
    values = stored_in_16_bits(12)
    data = tiff(values.squeeze(), photometric="miniswhite")
    assert np.abs(image_from_bytes(data, "it", 12) - as_rgb(4095 - values, 4095)).max() <= 0.5


def test_significant_bits_of_a_png_are_its_high_bits_so_they_change_nothing() -> None:
    values = stored_in_16_bits(16)
    data = png(values, 16, 0, chunk(b"sBIT", b"\x0c"))
    assert np.abs(image_from_bytes(data, "it") - as_rgb(values, 65535)).max() <= 0.5


def test_files_of_another_depth_are_read_as_without_the_option() -> None:
    rgb = smooth(255, 3)
    for data in (png(rgb, 8, 2), tiff(rgb, photometric="rgb")):
        np.testing.assert_array_equal(image_from_bytes(data, "it", 12), image_from_bytes(data, "it"))


def test_a_value_above_the_depth_is_refused_with_the_value(tmp_path: Path) -> None:
    values = stored_in_16_bits(12)
    values[3, 4] = 4096
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(values.squeeze()))
    with pytest.raises(ImageError) as caught:
        read_image(path, 12)
    assert str(path) in caught.value.what
    assert "4096" in caught.value.what
    assert "--bit-depth" in str(caught.value.hint)


@pytest.mark.parametrize("depth", [0, 8, 11, 16, -12])
def test_a_depth_that_no_camera_saves_is_refused(depth: int) -> None:
    with pytest.raises(InputError) as caught:
        check_bit_depth(depth)
    assert str(depth) in caught.value.what


def test_values_under_a_sixteenth_of_the_range_are_dark() -> None:
    for depth in (10, 12):
        image = image_from_bytes(tiff(stored_in_16_bits(depth).squeeze()), "it")
        assert "--bit-depth" in str(dark_text(image, "it"))
    image = image_from_bytes(tiff(stored_in_16_bits(14).squeeze()), "it")
    assert dark_text(image, "it") is None
    assert dark_text(np.array([0, 17], np.uint8), "it") is None
