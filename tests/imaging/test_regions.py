"""Regions against values computed by hand, and against SciPy's labelling and hole filling."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from edgead.imaging import regions as module
from edgead.imaging.regions import MAX_POLYGON_POINTS, MAX_REGIONS, regions_from_map
from edgead.types import Region

CORNERS = np.ones((3, 3))


def shoelace(polygon: tuple[tuple[int, int], ...]) -> float:
    """Area that a polygon encloses."""
    x, y = np.array(polygon, np.float64).T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


def test_every_region_is_returned_and_the_largest_is_first() -> None:
    anomaly_map = np.zeros((8, 8), np.float32)
    anomaly_map[0:4, 0:4] = 0.625  # large and weak
    anomaly_map[6, 5:7] = [0.875, 0.75]  # small and strong
    large = Region(0, 0, 16, 8, 128, 0.625, ((0, 0), (0, 8), (16, 8), (16, 0)))
    small = Region(20, 12, 8, 2, 16, 0.875, ((20, 12), (20, 14), (28, 14), (28, 12)))
    assert regions_from_map(anomaly_map, 0.5, 16, 32) == (large, small)
    assert small.box == (20, 12, 8, 2)


def test_the_outline_of_an_l_is_its_six_corners() -> None:
    anomaly_map = np.zeros((4, 6), np.float32)
    anomaly_map[1:3, 3] = anomaly_map[1, 4] = 1
    (region,) = regions_from_map(anomaly_map, 0.5, 4, 6)
    corners = {(3, 1), (5, 1), (5, 2), (4, 2), (4, 3), (3, 3)}
    assert (set(region.polygon), len(region.polygon)) == (corners, 6)
    assert shoelace(region.polygon) == region.area_px == 3


def test_pixels_that_touch_at_a_corner_are_one_region() -> None:
    (region,) = regions_from_map(np.eye(5, dtype=np.float32), 0.5, 5, 5)
    assert (region.box, region.area_px) == ((0, 0, 5, 5), 5)


def test_a_region_inside_the_hole_of_another_is_a_region() -> None:
    anomaly_map = np.zeros((7, 7), np.float32)
    anomaly_map[1:6, 1:6] = 1
    anomaly_map[2:5, 2:5] = 0
    anomaly_map[3, 3] = 2
    ring, dot = regions_from_map(anomaly_map, 0.5, 7, 7)
    assert (ring.box, ring.area_px, ring.highest_value) == ((1, 1, 5, 5), 16, 1.0)
    assert (dot.box, dot.area_px, dot.highest_value) == ((3, 3, 1, 1), 1, 2.0)
    # The outline goes around the hole, the area leaves it out.
    assert shoelace(ring.polygon) == 25


def test_the_box_covers_image_pixels_that_are_covered_in_part() -> None:
    anomaly_map = np.zeros((3, 3), np.float32)
    anomaly_map[1, 1] = 1
    # Pixel 1 of 3 of the map covers 3.33 to 6.67 of 10, an area of 11.1.
    (region,) = regions_from_map(anomaly_map, 0.5, 10, 10)
    assert (region.box, region.area_px) == ((3, 3, 4, 4), 11)
    assert set(region.polygon) == {(3, 3), (7, 3), (7, 7), (3, 7)}


def test_an_area_is_never_zero() -> None:
    anomaly_map = np.zeros((64, 64), np.float32)
    anomaly_map[9, 9] = 1
    (region,) = regions_from_map(anomaly_map, 0.5, 8, 8)
    assert (region.box, region.area_px) == ((1, 1, 1, 1), 1)


@pytest.mark.parametrize("seed", range(40))
def test_regions_against_scipy_on_random_maps(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REGIONS", 10**6)
    monkeypatch.setattr(module, "MAX_POLYGON_POINTS", 10**6)
    rng = np.random.default_rng(seed)
    rows, columns, across, down = (int(value) for value in rng.integers(1, [40, 40, 5, 5]))
    height, width = rows * down, columns * across
    anomaly_map = rng.random((rows, columns), np.float32)
    threshold = rng.uniform(0.3, 0.9)
    labels, count = ndimage.label(anomaly_map > threshold, structure=CORNERS)
    expected = []
    for label, (ys, xs) in enumerate(ndimage.find_objects(labels), start=1):
        box = (xs.start * across, ys.start * down, (xs.stop - xs.start) * across, (ys.stop - ys.start) * down)
        here = labels == label
        area, filled = (int(mask.sum()) * across * down for mask in (here, ndimage.binary_fill_holes(here)))
        expected.append((area, float(anomaly_map[here].max()), box, filled))
    found = regions_from_map(anomaly_map, threshold, height, width)
    assert len(found) == count
    assert sorted(expected) == sorted((r.area_px, r.highest_value, r.box, shoelace(r.polygon)) for r in found)
    assert [r.area_px for r in found] == sorted((r.area_px for r in found), reverse=True)


@pytest.mark.parametrize("seed", range(10))
def test_boxes_of_sizes_that_do_not_divide(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, columns, height, width = (int(value) for value in rng.integers(3, 40, 4))
    anomaly_map = rng.random((rows, columns), np.float32)
    labels, _ = ndimage.label(anomaly_map > 0.6, structure=CORNERS)
    expected = []
    for ys, xs in ndimage.find_objects(labels):
        left, top = math.floor(xs.start * width / columns), math.floor(ys.start * height / rows)
        right, bottom = math.ceil(xs.stop * width / columns), math.ceil(ys.stop * height / rows)
        expected.append((left, top, right - left, bottom - top))
    found = [region.box for region in regions_from_map(anomaly_map, 0.6, height, width)]
    assert sorted(found) == sorted(expected)


def test_noise_gives_no_more_than_the_largest_regions() -> None:
    anomaly_map = np.zeros((64, 64), np.float32)
    anomaly_map[::2, ::2] = 1  # 1024 single pixels
    anomaly_map[40, 40:43] = 1  # and two of them joined
    found = regions_from_map(anomaly_map, 0.5, 64, 64)
    assert len(found) == MAX_REGIONS
    assert found[0].box == (40, 40, 3, 1)


def test_a_rough_outline_is_simplified_and_keeps_its_place() -> None:
    rng = np.random.default_rng(3)
    anomaly_map = np.zeros((128, 128), np.float32)
    anomaly_map[:, 32:96] = 1
    for row, (left, right) in enumerate(rng.integers(0, 4, (128, 2))):
        anomaly_map[row, 32 : 32 + left] = anomaly_map[row, 96 - right : 96] = 0
    (region,) = regions_from_map(anomaly_map, 0.5, 128, 128)
    assert 4 <= len(region.polygon) <= MAX_POLYGON_POINTS
    assert shoelace(region.polygon) == pytest.approx(region.area_px, rel=0.05)


def test_nothing_is_above_a_threshold_that_it_equals() -> None:
    assert regions_from_map(np.full((4, 4), 0.5, np.float32), 0.5, 8, 8) == ()


def test_the_threshold_is_not_rounded_to_float32() -> None:
    # 0.1 as float32 is greater than 0.1 as float64.
    (region,) = regions_from_map(np.full((1, 1), 0.1, np.float32), 0.1, 1, 1)
    assert region.area_px == 1
