"""The overlay: only values above the threshold are lit, and one colour means one value on every image."""

import re

import numpy as np
import pytest

from edgead.imaging.heatmap import overlay

GREY = np.full((64, 80, 3), 120, np.uint8)


def ramp(low, high):
    return np.repeat(np.linspace(low, high, 80, dtype=np.float32)[None], 64, axis=0)


def redness(image):
    return image[..., 0].astype(int) - image[..., 2].astype(int)


def test_far_below_the_threshold_is_untouched():
    before = GREY.copy()
    result = overlay(GREY, np.zeros((64, 80), np.float32), 0.5)
    np.testing.assert_array_equal(result, before)
    np.testing.assert_array_equal(GREY, before)
    assert result is not GREY
    assert result.dtype == np.uint8


def test_lit_exactly_above_the_threshold():
    anomaly_map = ramp(0.0, 2.0)
    result = overlay(GREY, anomaly_map, 1.0)
    warm, white = redness(result) > 0, (result == 255).all(axis=2)
    lit = anomaly_map > 1.0
    # The inside is warm, the outline white, and everything else neutral or bluish.
    np.testing.assert_array_equal(warm | white, lit)
    assert white[:, lit[0].argmax()].all()


@pytest.mark.parametrize("threshold", [1e-6, 0.3, 40.0])
def test_a_map_at_the_threshold_is_not_lit(threshold):
    value = np.float32(threshold)
    equal = overlay(GREY, np.full((64, 80), value), float(value))
    above = overlay(GREY, np.full((64, 80), np.nextafter(value, np.float32(1e9))), float(value))
    assert (redness(equal) < 0).all()
    assert (redness(above)[2:-2, 2:-2] > 0).all()


def test_colours_depend_on_the_threshold_not_on_the_image():
    """A value has the same colour whatever else is on the map, and twice the value at twice the threshold too."""
    calm, hot = ramp(0.0, 0.9), ramp(0.0, 0.9)
    hot[40:60, 10:20] = 5.0
    a, b = overlay(GREY, calm, 1.0), overlay(GREY, hot, 1.0)
    np.testing.assert_array_equal(a[:30], b[:30])
    np.testing.assert_array_equal(overlay(GREY, 2 * hot, 2.0), b)


def test_twice_the_threshold_is_the_top_of_the_scale():
    anomaly_map = np.full((64, 80), 2.0, np.float32)
    top = overlay(GREY, anomaly_map, 1.0)
    np.testing.assert_array_equal(overlay(GREY, anomaly_map * 10, 1.0), top)
    assert (overlay(GREY, anomaly_map * 0.7, 1.0)[2:-2, 2:-2] != top[2:-2, 2:-2]).any()


def test_map_is_resized_to_the_image():
    small = np.zeros((8, 10), np.float32)
    small[4, 5] = 1.0
    result = overlay(GREY, small, 0.4)
    changed = (result != GREY).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert result.shape == GREY.shape
    # Pixel (4, 5) covers rows 32 to 39 and columns 40 to 47; bilinear reaches half a cell further.
    assert rows.min() >= 28
    assert rows.max() <= 43
    assert columns.min() >= 36
    assert columns.max() <= 51
    assert changed[33:39, 41:47].all()


@pytest.mark.parametrize("threshold", [0.0, -3.0])
def test_threshold_of_zero_or_less_has_a_scale_too(threshold):
    result = overlay(GREY, np.full((64, 80), threshold + 0.5, np.float32), threshold)
    assert (redness(result)[2:-2, 2:-2] > 0).all()
    below = overlay(GREY, np.full((64, 80), threshold - 2.0, np.float32), threshold)
    np.testing.assert_array_equal(below, GREY)


def test_another_shape_or_dtype_is_refused():
    flat = np.zeros((64, 80), np.float32)
    for image in (GREY.astype(np.float32), GREY[..., 0], GREY[..., :2]):
        with pytest.raises(ValueError, match=re.escape(f"{image.shape} {image.dtype}")):
            overlay(image, flat, 1.0)
    with pytest.raises(ValueError, match=r"\(1, 64, 80\)"):
        overlay(GREY, flat[None], 1.0)
