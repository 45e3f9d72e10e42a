"""Each change of a texture against PIL's of the same name, or against a case by hand."""

import colorsys

import numpy as np
import pytest

from edgead.data.pseudo_anomalies import augmentations
from edgead.data.pseudo_anomalies.augmentations import (
    AUGMENTATIONS,
    augmented,
    auto_contrasted,
    brightened,
    equalised,
    posterised,
    recoloured,
    sharpened,
    solarised,
)

pil = pytest.importorskip("PIL", reason="PIL is not installed: pip install 'edgead[train]'")
from PIL import Image, ImageEnhance, ImageOps  # noqa: E402

RNG = np.random.default_rng(0)
IMAGES = {
    "noise": RNG.integers(0, 256, (40, 56, 3), np.uint8),
    "dull": RNG.integers([60, 90, 10], [100, 200, 30], (40, 56, 3), np.uint8),
    "ramp": np.stack(np.broadcast_arrays(*np.ogrid[:40, :56], np.uint8(7)), axis=2).astype(np.uint8),
    "flat": np.full((8, 8, 3), (10, 200, 90), np.uint8),
}


def differ(got, expected):
    assert got.dtype == np.uint8
    assert got.shape == expected.shape
    return np.abs(got.astype(int) - expected).max()


@pytest.fixture(params=IMAGES)
def image(request):
    return IMAGES[request.param]


@pytest.mark.parametrize("bits", range(1, 9))
def test_posterised(image, bits):
    expected = np.asarray(ImageOps.posterize(Image.fromarray(image), bits))
    assert differ(posterised(image, bits), expected) == 0


@pytest.mark.parametrize("threshold", [0, 32, 100, 128, 255])
def test_solarised(image, threshold):
    expected = np.asarray(ImageOps.solarize(Image.fromarray(image), threshold))
    assert differ(solarised(image, threshold), expected) == 0


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0, 1.7, 3.0])
def test_sharpened(image, factor):
    """PIL rounds the softened image before it goes on from it, and cuts off where this rounds."""
    expected = np.asarray(ImageEnhance.Sharpness(Image.fromarray(image)).enhance(factor))
    assert differ(sharpened(image, factor), expected) <= 2


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0, 1.37, 1.5])
def test_brightened(image, factor):
    expected = np.asarray(ImageEnhance.Brightness(Image.fromarray(image)).enhance(factor))
    assert differ(brightened(image, factor), expected) <= 1


def test_auto_contrasted(image):
    expected = np.asarray(ImageOps.autocontrast(Image.fromarray(image)))
    assert differ(auto_contrasted(image), expected) <= 1


def test_equalised_by_its_definition(image):
    """The share of pixels that are not higher, stretched so that the lowest level becomes 0 and the highest 255."""
    expected = image.astype(float)
    for channel in range(3):
        values = image[..., channel]
        not_higher = np.array([(values <= level).sum() for level in range(256)], float)
        lowest = not_higher[values.min()]
        if lowest < values.size:
            expected[..., channel] = 255 * (not_higher[values] - lowest) / (values.size - lowest)
    assert differ(equalised(image), expected) <= 0.5 + 1e-4


def test_equalised_is_near_pils():
    image = IMAGES["dull"]
    expected = np.asarray(ImageOps.equalize(Image.fromarray(image)))
    # PIL leaves out a part of the highest level: up to its share of 255, and here that is at most a tenth.
    assert differ(equalised(image), expected) <= 26


@pytest.mark.parametrize(("turn", "saturation"), [(0.0, 0.0), (70.0, 0.2), (-70.0, -0.2), (200.0, 1.0)])
def test_recoloured(image, turn, saturation):
    expected = np.empty(image.shape)
    for place in np.ndindex(image.shape[:2]):
        hue, grey, value = colorsys.rgb_to_hsv(*(image[place] / 255.0))
        expected[place] = colorsys.hsv_to_rgb(
            (hue + turn / 360) % 1, min(1, max(0, grey + saturation)), value
        )
    assert differ(recoloured(image, turn, saturation), 255 * expected) <= 1


def test_recoloured_by_hand():
    red = np.full((2, 2, 3), (255, 0, 0), np.uint8)
    assert (recoloured(red, 120.0, 0.0) == (0, 255, 0)).all()
    assert (recoloured(red, -120.0, 0.0) == (0, 0, 255)).all()
    assert (recoloured(red, 0.0, -0.4) == (255, 102, 102)).all()


def test_three_different_ones_are_drawn_in_any_order(monkeypatch):
    done = []
    marks = {name: lambda image, rng, name=name: done.append(name) or image for name in AUGMENTATIONS}
    monkeypatch.setattr(augmentations, "AUGMENTATIONS", marks)
    rng, drawn = np.random.default_rng(1), []
    for _ in range(300):
        augmented(IMAGES["flat"], rng)
        drawn.append(tuple(done))
        done.clear()
    assert all(len(names) == len(set(names)) == 3 for names in drawn)
    assert {name for names in drawn for name in names} == set(AUGMENTATIONS)
    pairs = {(a, b) for a, b, _ in drawn}
    assert len(pairs) == 42


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_each_follows_from_the_generator_and_leaves_the_image_alone(name):
    image = IMAGES["dull"]
    before = image.copy()
    one, same = (AUGMENTATIONS[name](image, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(one, same)
    np.testing.assert_array_equal(image, before)
    assert (one != image).any()


def test_seven_names():
    assert set(AUGMENTATIONS) == {
        "posterise", "sharpness", "solarise", "equalise", "brightness", "colour", "auto-contrast"
    }  # fmt: skip
