import itertools

import numpy as np
import pytest

from edgead.streaming.sources.pixel_formats import SUPPORTED, bits_of_pixel, image_from_pixels, is_supported
from edgead.types import UInt8Array

# Codes of the Pixel Format Naming Convention, and the colour of the first four pixels: of two rows, two of each.
BAYER = {
    "BayerGR8": (0x01080008, "GRBG"),
    "BayerRG8": (0x01080009, "RGGB"),
    "BayerGB8": (0x0108000A, "GBRG"),
    "BayerBG8": (0x0108000B, "BGGR"),
}
MONO8, MONO16, RGB8, BGR8 = 0x01080001, 0x01100007, 0x02180014, 0x02180015


def mosaic(rgb: UInt8Array, colours: str) -> UInt8Array:
    """What a sensor with colour filters measures."""
    out = np.empty(rgb.shape[:2], np.uint8)
    for (row, column), colour in zip(itertools.product((0, 1), repeat=2), colours, strict=True):
        out[row::2, column::2] = rgb[row::2, column::2, "RGB".index(colour)]
    return out


def scene(height: int, width: int) -> UInt8Array:
    """Three different slopes, which bilinear interpolation reproduces exactly."""
    y, x = np.mgrid[:height, :width]
    return np.stack([40 + 2 * x, 20 + 2 * y, 200 - 2 * x], axis=2).astype(np.uint8)


@pytest.mark.parametrize("name", BAYER)
def test_the_colours_of_a_bayer_image(name: str) -> None:
    code, colours = BAYER[name]
    rgb = scene(24, 32)
    image = image_from_pixels(mosaic(rgb, colours).tobytes(), code, 32, 24)
    assert image is not None
    # Pixels at the border have fewer neighbours.
    np.testing.assert_array_equal(image[2:-2, 2:-2, ::-1], rgb[2:-2, 2:-2])


@pytest.mark.parametrize("padding", [0, 3])
def test_grey_and_colour_with_padded_rows(padding: int) -> None:
    rgb = scene(10, 14)
    for code, pixels, expected in (
        (MONO8, rgb[..., 0], rgb[..., 0]),
        (RGB8, rgb, rgb[..., ::-1]),
        (BGR8, rgb[..., ::-1], rgb[..., ::-1]),
    ):
        data = b"".join(row.tobytes() + b"\xaa" * padding for row in pixels)
        for whole in (data, data[: len(data) - padding], data + b"chunk"):
            image = image_from_pixels(whole, code, 14, 10, padding)
            assert image is not None
            np.testing.assert_array_equal(image, expected)
        assert image_from_pixels(data[: len(data) - padding - 1], code, 14, 10, padding) is None


def test_the_formats_that_are_supported() -> None:
    assert {*BAYER, "Mono8", "RGB8", "BGR8"} == set(SUPPORTED)
    assert all(is_supported(code) for code in (MONO8, RGB8, BGR8, *(code for code, _ in BAYER.values())))
    assert not is_supported(MONO16)
    assert [bits_of_pixel(code) for code in (MONO8, MONO16, RGB8, 0x01080009)] == [8, 16, 24, 8]
