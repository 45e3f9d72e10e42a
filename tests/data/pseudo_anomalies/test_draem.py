import re
from pathlib import Path

import numpy as np
import pytest

from edgead.data import load_images, open_dataset
from edgead.data.pseudo_anomalies import draem as module
from edgead.data.pseudo_anomalies.draem import blended, pseudo_anomalies
from edgead.data.pseudo_anomalies.perlin import LARGEST, SMALLEST, perlin_mask
from edgead.data.pseudo_anomalies.textures import FolderTextures, ProceduralTextures
from edgead.errors import DataError
from edgead.imaging.preprocess import ModelSize

SHARED = Path(__file__).parents[3].parent / "shared" / "data"


class OneColour:
    """Textures of one level."""

    def __init__(self, level):
        self.level = level

    def draw(self, height, width, rng):
        return np.full((height, width, 3), self.level, np.uint8)


def make_images(count, height, width):
    """Noise, a ramp, black and white images, alternating."""
    rng = np.random.default_rng(0)
    kinds = [
        rng.integers(0, 256, (height, width, 3)),
        np.broadcast_to(np.linspace(0, 255, width)[:, None], (height, width, 3)),
        np.zeros((height, width, 3)),
        np.full((height, width, 3), 255),
    ]
    return np.stack([kinds[index % 4] for index in range(count)]).astype(np.uint8)


@pytest.mark.parametrize("size", [(128, 128), (32, 32), (64, 160)])
def test_the_mask_is_exactly_what_differs(size):
    good = make_images(40, *size)
    before = good.copy()
    disturbed, masks = pseudo_anomalies(good, ProceduralTextures(), np.random.default_rng(1))
    np.testing.assert_array_equal(good, before)
    assert disturbed.dtype == np.uint8
    assert masks.dtype == np.bool_
    change = np.abs(disturbed.astype(int) - good).max(axis=3)
    np.testing.assert_array_equal(masks, change > 0)
    for mask, by in zip(masks, change, strict=True):
        assert SMALLEST <= mask.mean() <= LARGEST
        assert by[mask].mean() >= 12


@pytest.mark.parametrize("name", ["screw", "transistor"])
def test_real_images_and_textures(name):
    for folder in (SHARED / name, SHARED / "dtd"):
        if not folder.is_dir():
            pytest.skip(f"no real images at {folder}")
    good = load_images(open_dataset(SHARED / name).train[:16], ModelSize(128, 128)).images
    disturbed, masks = pseudo_anomalies(good, FolderTextures(SHARED / "dtd"), np.random.default_rng(6))
    np.testing.assert_array_equal(masks, (disturbed != good).any(axis=3))
    assert (masks.mean(axis=(1, 2)) > SMALLEST).all()
    assert masks.mean() < 0.2


def test_everything_follows_from_the_generator():
    good = make_images(4, 64, 64)
    one, same, other = (
        pseudo_anomalies(good, ProceduralTextures(), np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one[0], same[0])
    np.testing.assert_array_equal(one[1], same[1])
    assert (one[1] != other[1]).any(axis=(1, 2)).all()
    assert not np.array_equal(one[1][0], one[1][1])


def test_the_formula():
    rng = np.random.default_rng(2)
    image, texture = rng.integers(0, 256, (2, 64, 64, 3), np.uint8)
    within, beta = perlin_mask(64, 64, rng), 0.37
    m = np.repeat(within[..., None], 3, axis=2).astype(float)
    expected = (1 - m) * image + (1 - beta) * m * image + beta * m * texture
    got = blended(image, texture, within, beta)
    assert got.dtype == np.uint8
    np.testing.assert_allclose(got, expected, atol=0.5 + 1e-9)
    np.testing.assert_array_equal(got[~within], image[~within])


def test_by_hand():
    image, texture = np.full((1, 2, 3), 100, np.uint8), np.full((1, 2, 3), 200, np.uint8)
    got = blended(image, texture, np.array([[True, False]]), 0.25)
    assert got.tolist() == [[[125] * 3, [100] * 3]]


def test_the_texture_is_augmented_and_its_opacity_drawn(monkeypatch):
    given = []
    monkeypatch.setattr(module, "augmented", lambda texture, rng: given.append(texture) or 250 - texture // 2)
    good = np.full((200, 32, 32, 3), 50, np.uint8)
    disturbed, masks = pseudo_anomalies(good, OneColour(100), np.random.default_rng(3))
    assert all((texture == 100).all() for texture in given)
    # Each anomaly has one level, 50 + 150 beta.
    levels = [np.unique(image[mask]) for image, mask in zip(disturbed, masks, strict=True)]
    assert all(len(level) == 1 for level in levels)
    beta = (np.concatenate(levels) - 50.0) / 150
    assert 0.19 <= beta.min() < 0.24
    assert 0.96 < beta.max() <= 1.0
    assert abs(beta.mean() - 0.6) < 0.06


def test_an_anomaly_that_does_not_show_is_drawn_again(monkeypatch):
    monkeypatch.setattr(module, "augmented", lambda texture, rng: texture)
    good = np.full((50, 32, 32, 3), 100, np.uint8)
    disturbed, masks = pseudo_anomalies(good, OneColour(120), np.random.default_rng(4))
    # The full difference is 20 levels, so beta above 0.575 gives 12 levels or more.
    assert set(np.unique(disturbed[masks])) == set(range(112, 121))


def test_textures_that_never_show_are_an_error():
    with pytest.raises(DataError) as caught:
        pseudo_anomalies(np.full((1, 32, 48, 3), 255, np.uint8), OneColour(255), Faithful())
    assert "32 x 48" in caught.value.what
    assert str(module.TRIES) in caught.value.what
    assert caught.value.hint
    assert "\n" not in str(caught.value)


class Faithful(np.random.Generator):
    """A generator that chooses only equalise and auto-contrast, which do not change a white image."""

    def __init__(self):
        super().__init__(np.random.PCG64(5))

    def choice(self, *args, **kwargs):
        return np.array([3, 6, 3])


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 32, 32, 3), np.float32),
        np.zeros((32, 32, 3), np.uint8),
        np.zeros((2, 32, 32, 1), np.uint8),
    ],
)
def test_an_array_that_is_no_batch_of_images_is_refused(images):
    with pytest.raises(ValueError, match=re.escape(f"{images.shape} {images.dtype}")):
        pseudo_anomalies(images, ProceduralTextures(), np.random.default_rng(0))


def test_no_images_give_none():
    disturbed, masks = pseudo_anomalies(
        np.zeros((0, 32, 32, 3), np.uint8), ProceduralTextures(), np.random.default_rng(0)
    )
    assert disturbed.shape == (0, 32, 32, 3)
    assert masks.shape == (0, 32, 32)
