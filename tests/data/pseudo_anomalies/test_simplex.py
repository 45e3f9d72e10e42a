"""Simplex noise against a sum over all corners near a point, which needs no triangles to be found."""

import itertools
import math

import numpy as np
import pytest

from edgead.data.pseudo_anomalies.simplex import noisy_copies, noisy_images, simplex_noise

TABLE = np.random.default_rng(4).permutation(256)


def noise_by_all_corners(x: float, y: float) -> float:
    """Each corner (i, j) of the triangles adds its gradient times the way from it, fading out at sqrt(1/2)."""
    unskew = (3 - math.sqrt(3)) / 6
    total = 0.0
    middle = (x + y) * (math.sqrt(3) - 1) / 2
    for i, j in itertools.product(range(-3, 4), repeat=2):
        column, row = math.floor(x + middle) + i, math.floor(y + middle) + j
        dx, dy = x - column + (column + row) * unskew, y - row + (column + row) * unskew
        fade = 0.5 - dx**2 - dy**2
        if fade > 0:
            angle = (TABLE[(column + TABLE[row % 256]) % 256] % 8) * math.pi / 4
            total += fade**4 * (math.cos(angle) * dx + math.sin(angle) * dy)
    return 99.2 * total


def test_only_the_corners_of_its_triangle_reach_a_point():
    points = np.random.default_rng(5).uniform(-40, 300, (200, 2))
    got = simplex_noise(points[:, 0], points[:, 1], TABLE)
    np.testing.assert_allclose(got, [noise_by_all_corners(*p) for p in points], atol=1e-9)


def test_it_is_nothing_at_the_corners_and_within_one_elsewhere():
    unskew = (3 - math.sqrt(3)) / 6
    i, j = (index.ravel().astype(float) for index in np.mgrid[-5:6, -5:6])
    at_corners = simplex_noise(i - (i + j) * unskew, j - (i + j) * unskew, TABLE)
    np.testing.assert_allclose(at_corners, 0.0, atol=1e-9)
    y, x = np.mgrid[0:60:0.11, 0:60:0.11]
    noise = simplex_noise(x, y, TABLE)
    assert 0.85 < noise.max() <= 1.01
    assert -1.01 <= noise.min() < -0.85
    assert abs(noise.mean()) < 0.02


def test_it_is_smooth():
    x = np.arange(0, 30, 1e-3)
    noise = simplex_noise(x, 0.7 * x, TABLE)
    # Values near 1 over lengths near 1: no jump from one triangle to the next.
    assert np.abs(np.diff(noise)).max() < 0.02


@pytest.mark.parametrize("size", [(256, 256), (64, 96), (32, 32)])
def test_a_copy_differs_in_one_small_rectangle(size):
    images = np.random.default_rng(6).integers(0, 256, (20, *size, 3), np.uint8)
    copies = noisy_copies(images, np.random.default_rng(7))
    assert copies.dtype == np.float32
    change = copies - images
    assert np.array_equal(change[..., 0] != 0, change[..., 2] != 0)
    for one in change[..., 0]:
        rows, columns = np.nonzero(one)
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert 1 <= height <= size[0] / 8
        assert 1 <= width <= size[1] / 8
        assert np.count_nonzero(one) >= 0.9 * height * width
    assert 20 < np.abs(change).max() < 51 * 2.4


def test_copies_follow_from_the_generator():
    images = np.zeros((3, 64, 64, 3), np.uint8)
    one, same, other = (noisy_copies(images, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert not np.array_equal(one[0], one[1])


def test_noisy_images_are_the_copies_and_their_masks_what_differs():
    rng = np.random.default_rng(8)
    images = np.concatenate([rng.integers(0, 256, (20, 64, 96, 3)), np.zeros((4, 64, 96, 3))]).astype(
        np.uint8
    )
    before = images.copy()
    noisy, masks = noisy_images(images, np.random.default_rng(9))
    np.testing.assert_array_equal(images, before)
    assert noisy.dtype == np.uint8
    assert masks.dtype == np.bool_
    copies = noisy_copies(images, np.random.default_rng(9))
    assert np.abs(noisy - np.clip(copies, 0, 255)).max() <= 0.5
    np.testing.assert_array_equal(masks, np.abs(noisy.astype(int) - images).max(axis=3) > 0)
    # On black only what brightens shows.
    assert masks[:20].any(axis=(1, 2)).all()
    assert masks[20:].sum() < (copies[20:, ..., 0] != 0).sum()
