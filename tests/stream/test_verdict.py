import math
import time

import numpy as np
import pytest
from scipy import ndimage
from stream_parts import frame, textured

from edgead.errors import BackendError
from edgead.stream.verdict import region_from_map, verdict_from_prediction
from edgead.types import Frame, Prediction, Region


def prediction(anomaly_map: np.ndarray, score: float | None = None) -> Prediction:
    score = anomaly_map.max() if score is None else score
    return Prediction(anomaly_map[None, None].astype(np.float32), np.array([score], np.float32))


def test_region_holds_the_maximum_and_not_the_larger_part() -> None:
    anomaly_map = np.zeros((8, 8), np.float32)
    anomaly_map[0:4, 0:4] = 0.6  # large and weak
    anomaly_map[6, 5:7] = [0.9, 0.7]  # small and strong
    assert region_from_map(anomaly_map, 0.5, 16, 32) == Region(x_px=20, y_px=12, width_px=8, height_px=2)


def test_region_joins_pixels_that_touch_at_a_corner() -> None:
    anomaly_map = np.eye(5, dtype=np.float32)
    assert region_from_map(anomaly_map, 0.5, 5, 5) == Region(0, 0, 5, 5)


def test_region_covers_what_a_map_pixel_covers_in_part() -> None:
    anomaly_map = np.zeros((3, 3), np.float32)
    anomaly_map[1, 1] = 1
    # Map pixel 1 of 3 covers 3.33 to 6.67 of 10.
    assert region_from_map(anomaly_map, 0.5, 10, 10) == Region(3, 3, 4, 4)


@pytest.mark.parametrize("seed", range(20))
def test_region_against_scipy_on_random_maps(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, columns, height, width = rng.integers(3, 40, 4)
    anomaly_map = rng.random((rows, columns), np.float32)
    threshold = 0.6
    labels, _ = ndimage.label(anomaly_map > threshold, structure=np.ones((3, 3)))
    label = labels[np.unravel_index(anomaly_map.argmax(), anomaly_map.shape)]
    ys, xs = ndimage.find_objects(labels)[label - 1]
    left, top = math.floor(xs.start * width / columns), math.floor(ys.start * height / rows)
    right, bottom = math.ceil(xs.stop * width / columns), math.ceil(ys.stop * height / rows)
    expected = Region(left, top, right - left, bottom - top)
    assert region_from_map(anomaly_map, threshold, int(height), int(width)) == expected


def test_no_region_where_nothing_is_above_the_threshold() -> None:
    assert region_from_map(np.full((4, 4), 0.5, np.float32), 0.5, 8, 8) is None


@pytest.mark.parametrize(("score", "anomalous"), [(0.499, False), (0.5, False), (0.501, True)])
def test_anomalous_is_above_the_threshold_and_not_at_it(score: float, anomalous: bool) -> None:
    anomaly_map = np.zeros((4, 4))
    anomaly_map[2, 3] = score
    verdict = verdict_from_prediction(frame(textured(9, 8, 8), 7), prediction(anomaly_map), 0.5)
    assert (verdict.is_anomalous, verdict.frame_index, verdict.threshold) == (anomalous, 7, 0.5)
    assert verdict.region == (Region(6, 4, 2, 2) if anomalous else None)
    assert verdict.anomaly_score == pytest.approx(score)


def test_latency_is_from_capture_to_now() -> None:
    captured_at_ns = time.monotonic_ns() - 2_000_000_000
    old = Frame(image=textured(1), index=0, captured_at_ns=captured_at_ns, source="test")
    verdict = verdict_from_prediction(old, prediction(np.zeros((2, 2))), 1.0)
    assert verdict.latency_ms >= 2000


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_is_never_a_verdict(score: float) -> None:
    with pytest.raises(BackendError, match="no verdict can be given"):
        verdict_from_prediction(frame(textured(1)), prediction(np.zeros((2, 2)), score), 0.5)
