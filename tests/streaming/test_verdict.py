import math
import time

import numpy as np
import pytest

from edgead.streaming import verdict as module
from edgead.types import Frame, Prediction, Verdict
from tests.helpers.stream_parts import frame, textured


def prediction(anomaly_map: np.ndarray, score: float | None = None) -> Prediction:
    score = anomaly_map.max() if score is None else score
    return Prediction(anomaly_map[None, None].astype(np.float32), np.array([score], np.float32))


def verdict_from_prediction(frame: Frame, prediction: Prediction, threshold: float) -> Verdict | None:
    now_ns = time.monotonic_ns()
    return module.verdict_from_prediction(frame, prediction, threshold, taken_ns=now_ns, live=True)


@pytest.mark.parametrize(("score", "anomalous"), [(0.499, False), (0.5, False), (0.501, True)])
def test_anomalous_is_above_the_threshold_and_not_at_it(score: float, anomalous: bool) -> None:
    anomaly_map = np.zeros((4, 4))
    anomaly_map[2, 3] = score
    verdict = verdict_from_prediction(frame(textured(9, 8, 8), 7), prediction(anomaly_map), 0.5)
    assert verdict is not None
    assert (verdict.is_anomalous, verdict.frame_index, verdict.threshold) == (anomalous, 7, 0.5)
    assert [region.box for region in verdict.regions] == ([(6, 4, 2, 2)] if anomalous else [])
    assert verdict.anomaly_score == pytest.approx(score)


@pytest.mark.parametrize("live", [True, False])
def test_age_is_from_capture_and_latency_from_the_frame_in_hand(live: bool) -> None:
    now_ns = time.monotonic_ns()
    old = Frame(image=textured(1), index=0, captured_at_ns=now_ns - 60_000_000_000, source="test")
    verdict = module.verdict_from_prediction(
        old, prediction(np.zeros((2, 2))), 1.0, taken_ns=now_ns - 2_000_000_000, live=live
    )
    assert verdict is not None
    assert 2000 <= verdict.latency_ms < 60_000
    assert (verdict.age_ms or 0) >= 60_000 if live else verdict.age_ms is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("score", [0.25, 0.75])
def test_a_map_or_a_score_that_is_not_finite_is_never_a_verdict(value: float, score: float) -> None:
    assert verdict_from_prediction(frame(textured(1)), prediction(np.zeros((2, 2)), value), 0.5) is None
    anomaly_map = np.full((4, 4), score)
    anomaly_map[3, 1] = value
    assert verdict_from_prediction(frame(textured(1)), prediction(anomaly_map, score), 0.5) is None
