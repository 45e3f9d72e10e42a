"""Pixel metrics from bins, against scikit-learn and a slow walk over all thresholds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import sklearn.metrics

from edgead.scoring.pixel_histogram import PixelHistogram


def counted(maps, masks, inside=None):
    histogram = PixelHistogram()
    for index, (anomaly_map, mask) in enumerate(zip(maps, masks, strict=True)):
        histogram.add(anomaly_map, mask, None if inside is None else inside[index])
    return histogram


def slow_aupro(maps, masks, limit):
    """Every threshold, every region, one at a time; trapezoids cut at the limit by a straight line."""
    regions = []
    for index, mask in enumerate(masks):
        labelled, count = scipy.ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [(index, labelled == region) for region in range(1, count + 1)]
    points = [(0.0, 0.0)]
    for level in np.unique(maps)[::-1]:
        above = maps >= level
        overlap = np.mean([above[index][region].mean() for index, region in regions])
        points.append((above[~masks].mean(), overlap))
    area = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x0 >= limit:
            break
        if x1 > limit:
            y1 = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
            x1 = limit
        area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("levels", [None, 3])
def test_aupro_agrees_with_the_slow_walk(limit, levels):
    rng = np.random.default_rng(11)
    masks = np.zeros((5, 14, 17), bool)
    masks[0, 2:5, 3:9] = True
    masks[0, 5, 9] = True  # touches only at a corner: one region with the one above
    masks[1, 0, 0] = True
    masks[1, 8:12, 2:4] = True
    masks[3] = rng.random((14, 17)) < 0.15
    maps = rng.standard_normal(masks.shape) + masks
    # Ranks, so that no two values share a bin but those that are equal.
    maps = scipy.stats.rankdata(np.round(maps * levels) if levels else maps).reshape(masks.shape)
    maps = (maps - 300).astype(np.float32)
    assert counted(maps, masks).aupro(limit) == pytest.approx(slow_aupro(maps, masks, limit), abs=1e-9)


def test_aupro_of_perfect_and_constant_maps():
    masks = np.zeros((2, 8, 8), bool)
    masks[0, 1:3, 1:3] = True
    assert counted(masks.astype(np.float32), masks).aupro() == pytest.approx(1.0)
    # A constant map has the diagonal as its curve: 0.3^2 / 2 / 0.3.
    assert counted(np.ones((2, 8, 8), np.float32), masks).aupro() == pytest.approx(0.15)


def test_dice_by_hand():
    maps = np.array([[[0.9, 0.8], [0.1, 0.5]]], np.float32)
    masks = np.array([[[True, False], [True, False]]])
    # Above 0.5, strictly: 0.9 and 0.8. One of two found, one false, one missed: 2 / (2 + 1 + 1).
    assert counted(maps, masks).dice(0.5) == 0.5
    assert counted(maps, np.zeros_like(masks)).dice(0.5) == 0.0
    with pytest.raises(ValueError, match=r"1\.0"):
        counted(maps, np.zeros_like(masks)).dice(1.0)


def test_metrics_agree_with_scikit_learn_within_the_stated_error():
    rng = np.random.default_rng(2)
    masks = rng.random((6, 40, 50)) < 0.05
    # Values so close that many share a bin.
    maps = (1.0 + 1e-3 * rng.random(masks.shape) + 4e-4 * masks).astype(np.float32)
    histogram = counted(maps, masks)
    exact = sklearn.metrics.roc_auc_score(masks.ravel(), maps.ravel())
    assert 0.01 < histogram.error < 0.1
    assert abs(histogram.auroc() - exact) <= histogram.error
    maps = rng.random(masks.shape).astype(np.float32) + masks * np.float32(0.2)
    histogram = counted(maps, masks)
    truth, values = masks.ravel(), maps.ravel()
    assert histogram.auroc() == pytest.approx(sklearn.metrics.roc_auc_score(truth, values), abs=1e-4)
    assert histogram.average_precision() == pytest.approx(
        sklearn.metrics.average_precision_score(truth, values), abs=1e-3
    )
    best = max(sklearn.metrics.f1_score(truth, values >= level) for level in np.linspace(0, 1.2, 300))
    assert histogram.f1_max() == pytest.approx(best, abs=2e-3)


def test_pixels_outside_do_not_count():
    rng = np.random.default_rng(3)
    masks = rng.random((2, 12, 12)) < 0.3
    maps, inside = rng.random(masks.shape).astype(np.float32), np.zeros(masks.shape, bool)
    inside[:, 2:9, 3:11] = True
    cut = np.s_[:, 2:9, 3:11]
    found, expected = counted(maps, masks, inside), counted(maps[cut], masks[cut])
    assert (found.good, found.defect) == (expected.good, expected.defect)
    for metric in ("auroc", "average_precision", "f1_max", "aupro"):
        assert getattr(found, metric)() == pytest.approx(getattr(expected, metric)())


def test_invalid_maps_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 2\) for \(2, 3\)"):
        PixelHistogram().add(np.zeros((2, 3), np.float32), np.zeros((2, 2), bool))
    with pytest.raises(ValueError, match="finite"):
        PixelHistogram().add(np.full((1, 2), np.nan, np.float32), np.zeros((1, 2), bool))
    with pytest.raises(ValueError, match=r"0\.0"):
        counted(np.ones((1, 2, 2), np.float32), np.eye(2, dtype=bool)[None]).aupro(0.0)
