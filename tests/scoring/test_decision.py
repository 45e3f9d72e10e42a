import math

import numpy as np
import pytest

from edgead.scoring.decision import decide, finite_images


@pytest.mark.parametrize(("score", "decision"), [(0.4999, False), (0.5, False), (0.5001, True)])
def test_above_the_threshold_is_anomalous_and_at_it_is_not(score: float, decision: bool) -> None:
    assert decide(np.zeros((2, 3), np.float32), score, 0.5) is decision


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("score", [0.0, 1.0])
def test_no_decision_rests_on_a_number_that_is_not_finite(value: float, score: float) -> None:
    anomaly_map = np.zeros((2, 3), np.float32)
    assert decide(anomaly_map, value, 0.5) is None
    anomaly_map[1, 2] = value
    assert decide(anomaly_map, score, 0.5) is None
    maps = np.zeros((4, 1, 2, 3), np.float32)
    maps[1, 0, 1, 2] = value
    assert finite_images(maps, np.array([0, 0, value, 1], np.float32)).tolist() == [True, False, False, True]
