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
PICTURES = {
    "noise": RNG.integers(0, 256, (40, 56, 3), np.uint8),
    "dull": RNG.integers([60, 90, 10], [100, 200, 30], (40, 56, 3), np.uint8),
    "ramp": np.stack(np.broadcast_arrays(*np.ogrid[:40, :56], np.uint8(7)), axis=2).astype(np.uint8),
    "flat": np.full((8, 8, 3), (10, 200, 90), np.uint8),
}


def differ(got, expected):
    assert got.dtype == np.uint8
    assert got.shape == expected.shape
    return np.abs(got.astype(int) - expected).max()


@pytest.fixture(params=PICTURES)
def picture(request):
    return PICTURES[request.param]


@pytest.mark.parametrize("bits", range(1, 9))
def test_posterised(picture, bits):
    expected = np.asarray(ImageOps.posterize(Image.fromarray(picture), bits))
    assert differ(posterised(picture, bits), expected) == 0


@pytest.mark.parametrize("threshold", [0, 32, 100, 128, 255])
def test_solarised(picture, threshold):
    expected = np.asarray(ImageOps.solarize(Image.fromarray(picture), threshold))
    assert differ(solarised(picture, threshold), expected) == 0


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0, 1.7, 3.0])
def test_sharpened(picture, factor):
    """PIL rounds the softened picture before it goes on from it, and cuts off where this rounds."""
    expected = np.asarray(ImageEnhance.Sharpness(Image.fromarray(picture)).enhance(factor))
    assert differ(sharpened(picture, factor), expected) <= 2


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0, 1.37, 1.5])
def test_brightened(picture, factor):
    expected = np.asarray(ImageEnhance.Brightness(Image.fromarray(picture)).enhance(factor))
    assert differ(brightened(picture, factor), expected) <= 1


def test_auto_contrasted(picture):
    expected = np.asarray(ImageOps.autocontrast(Image.fromarray(picture)))
    assert differ(auto_contrasted(picture), expected) <= 1


def test_equalised_by_its_definition(picture):
    """The share of pixels that are not higher, stretched so that the lowest level becomes 0 and the highest 255."""
    expected = picture.astype(float)
    for channel in range(3):
        values = picture[..., channel]
        not_higher = np.array([(values <= level).sum() for level in range(256)], float)
        lowest = not_higher[values.min()]
        if lowest < values.size:
            expected[..., channel] = 255 * (not_higher[values] - lowest) / (values.size - lowest)
    assert differ(equalised(picture), expected) <= 0.5 + 1e-4


def test_equalised_is_near_pils():
    picture = PICTURES["dull"]
    expected = np.asarray(ImageOps.equalize(Image.fromarray(picture)))
    # PIL leaves out a part of the highest level: up to its share of 255, and here that is at most a tenth.
    assert differ(equalised(picture), expected) <= 26


@pytest.mark.parametrize(("turn", "saturation"), [(0.0, 0.0), (70.0, 0.2), (-70.0, -0.2), (200.0, 1.0)])
def test_recoloured(picture, turn, saturation):
    expected = np.empty(picture.shape)
    for place in np.ndindex(picture.shape[:2]):
        hue, grey, value = colorsys.rgb_to_hsv(*(picture[place] / 255.0))
        expected[place] = colorsys.hsv_to_rgb(
            (hue + turn / 360) % 1, min(1, max(0, grey + saturation)), value
        )
    assert differ(recoloured(picture, turn, saturation), 255 * expected) <= 1


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
        augmented(PICTURES["flat"], rng)
        drawn.append(tuple(done))
        done.clear()
    assert all(len(names) == len(set(names)) == 3 for names in drawn)
    assert {name for names in drawn for name in names} == set(AUGMENTATIONS)
    pairs = {(a, b) for a, b, _ in drawn}
    assert len(pairs) == 42


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_each_follows_from_the_generator_and_leaves_the_picture_alone(name):
    picture = PICTURES["dull"]
    before = picture.copy()
    one, same = (AUGMENTATIONS[name](picture, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(one, same)
    np.testing.assert_array_equal(picture, before)
    assert (one != picture).any()


def test_seven_names():
    assert set(AUGMENTATIONS) == {
        "posterise", "sharpness", "solarise", "equalise", "brightness", "colour", "auto-contrast"
    }  # fmt: skip
