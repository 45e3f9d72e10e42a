"""Perlin noise against a computation pixel by pixel, and against DRAEM's script."""

import itertools
import math

import cv2
import numpy as np
import pytest

from edgead.data.pseudo_anomalies import perlin
from edgead.data.pseudo_anomalies.perlin import perlin_mask, perlin_noise


class Angles:
    """Stands for a generator, and returns the given angles of the gradients."""

    def __init__(self, angles):
        self.angles = np.asarray(angles)

    def uniform(self, low, high, size=None):
        assert low == 0.0
        assert high == pytest.approx(2 * math.pi)
        assert size == self.angles.shape
        return self.angles


def noise_pixel_by_pixel(height, width, cells, angles):
    """Interpolate, for each pixel, the dot products of gradient and distance vector of its cell's four corners."""

    def faded(t):
        return 6 * t**5 - 15 * t**4 + 10 * t**3

    noise = np.empty((height, width))
    for row, column in np.ndindex(height, width):
        y, x = row * cells[0] / height, column * cells[1] / width
        i, j = int(y), int(x)

        def corner(down, across, y=y, x=x, i=i, j=j):
            angle = angles[i + down][j + across]
            return math.cos(angle) * (y - i - down) + math.sin(angle) * (x - j - across)

        u, v = faded(y - i), faded(x - j)
        left = corner(0, 0) + u * (corner(1, 0) - corner(0, 0))
        right = corner(0, 1) + u * (corner(1, 1) - corner(0, 1))
        noise[row, column] = math.sqrt(2) * (left + v * (right - left))
    return noise


@pytest.mark.parametrize(
    ("size", "cells"), [((32, 48), (2, 4)), ((37, 50), (3, 7)), ((16, 64), (16, 1)), ((1, 5), (1, 1))]
)
def test_the_noise_agrees_with_its_definition(size, cells):
    angles = np.random.default_rng(1).uniform(0, 7, (cells[0] + 1, cells[1] + 1))
    got = perlin_noise(*size, cells, Angles(angles))
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, noise_pixel_by_pixel(*size, cells, angles), atol=1e-12)


@pytest.mark.parametrize(
    ("seed", "size", "cells", "expected"),
    [
        (1, (32, 48), (2, 4), [0.0, 0.1432770183, 0.4719864875, 0.5360706615, -0.1141450492]),
        (2, (64, 64), (1, 8), [0.0, 0.089371958, -0.1577646583, 0.1063816048, 0.0301807866]),
    ],
)
def test_the_numbers_of_the_authors_script(seed, size, cells, expected):
    """github.com/VitjanZ/DRAEM at 2dbf673, perlin.py: `rand_perlin_2d_np` after `np.random.seed(seed)`."""
    angles = 2 * np.pi * np.random.RandomState(seed).rand(cells[0] + 1, cells[1] + 1)
    noise = perlin_noise(*size, cells, Angles(angles))
    got = [noise[place] for place in ((0, 0), (5, 7), (13, 40), (21, 3), (31, 47))]
    np.testing.assert_allclose(got, expected, atol=1e-9)


def test_the_noise_is_zero_at_corners_smooth_and_within_one():
    extremes = []
    for seed in range(40):
        noise = perlin_noise(256, 256, (8, 4), np.random.default_rng(seed))
        np.testing.assert_allclose(noise[::32, ::64], 0.0, atol=1e-12)
        # A cell is 32 pixels high, so the slope is limited; a jump between two cells would be steeper.
        assert np.abs(np.diff(noise, axis=0)).max() < 4 / 32
        extremes += [noise.min(), noise.max()]
    assert max(np.abs(extremes)) <= 1.0
    assert min(extremes) < -0.75
    assert max(extremes) > 0.75


@pytest.mark.parametrize("size", [(256, 256), (32, 32), (64, 96), (100, 37), (3, 5), (2, 1), (1, 2)])
def test_a_mask_is_never_empty_nor_the_whole_image(size):
    rng = np.random.default_rng(3)
    for _ in range(100):
        mask = perlin_mask(*size, rng)
        assert mask.shape == size
        assert mask.dtype == np.bool_
        assert 1 <= mask.sum() < mask.size
        assert perlin.SMALLEST <= mask.mean() <= perlin.LARGEST


def test_an_image_of_one_pixel_has_no_mask():
    with pytest.raises(ValueError, match="1 x 1"):
        perlin_mask(1, 1, np.random.default_rng(0))


@pytest.mark.parametrize("threshold", [-2.0, -0.1])
def test_a_mask_of_most_of_the_image_is_drawn_again(monkeypatch, threshold):
    monkeypatch.setattr(perlin, "THRESHOLD", threshold)
    masks = [perlin_mask(64, 64, np.random.default_rng(seed)) for seed in range(20)]
    assert all(0 < mask.mean() <= 0.5 for mask in masks)


@pytest.mark.parametrize(
    ("size", "down", "across"),
    [((256, 128), (1, 2, 4, 8, 16, 32), (1, 2, 4, 8, 16)), ((32, 1000), (1, 2, 4), (1, 2, 4, 8, 16, 32))],
)
def test_cells_are_powers_of_two_and_eight_pixels_at_least(monkeypatch, size, down, across):
    drawn = set()
    noise = perlin.perlin_noise
    monkeypatch.setattr(perlin, "perlin_noise", lambda *given: drawn.add(given[2]) or noise(*given))
    rng = np.random.default_rng(6)
    for _ in range(300):
        perlin_mask(*size, rng)
    assert drawn == set(itertools.product(down, across))


def test_after_the_bound_the_highest_pixels_are_the_mask(monkeypatch):
    monkeypatch.setattr(perlin, "THRESHOLD", 2.0)
    noises = []
    turned = perlin._turned
    monkeypatch.setattr(perlin, "_turned", lambda *given: noises.append(turned(*given)) or noises[-1])
    mask = perlin_mask(64, 64, np.random.default_rng(4))
    assert len(noises) == perlin.TRIES
    # A thousandth of 4096 pixels, rounded up.
    assert mask.sum() == 5
    assert noises[-1][mask].min() >= noises[-1][~mask].max()


def test_masks_follow_from_the_generator():
    one, same, other = (perlin_mask(64, 64, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_masks_have_few_large_spots_or_many_small_ones_or_streaks_in_all_directions():
    rng = np.random.default_rng(5)
    spots, directions = [], []
    for _ in range(150):
        mask = perlin_mask(128, 128, rng).astype(np.uint8)
        count, label, stats, _ = cv2.connectedComponentsWithStats(mask)
        spots.append(count - 1)
        moments = cv2.moments((label == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()).astype(np.uint8), True)
        across, down, both = (moments[name] for name in ("mu20", "mu02", "mu11"))
        # The largest spot counts if it is elongated, with its direction.
        if math.hypot(across - down, 2 * both) > 0.7 * (across + down):
            directions.append(math.degrees(math.atan2(2 * both, across - down)) / 2)
    assert min(spots) <= 2
    assert max(spots) >= 30
    assert (np.histogram(directions, bins=6, range=(-90, 90))[0] >= 5).all()
