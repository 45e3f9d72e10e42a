"""Rejection of a graph that differs from its reference, and the synthetic defects for the comparison."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from edgead.data.pseudo_anomalies.cutpaste import synthetic_defects
from edgead.engine.fidelity import (
    MAP_TOLERANCE,
    FidelityReport,
    Tolerance,
    ToleranceLimits,
    require,
    table,
    verify,
)
from edgead.errors import InputError, VerificationError
from edgead.imaging.preprocess import ModelSize
from edgead.runtime import FakeSession
from edgead.runtime.agreement import compare_sessions

SIZE = ModelSize(32, 64)


def make_images(count: int) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (count, 32, 64, 3), np.uint8)


def test_equal_sessions_pass() -> None:
    fidelity = verify(FakeSession(SIZE), FakeSession(SIZE), make_images(3), threshold=0.9).fidelity
    assert fidelity.n == 3
    assert fidelity.map_error_max == 0.0
    assert fidelity.decision_flips == 0


def test_a_map_beyond_the_tolerance_is_refused() -> None:
    sessions = FakeSession(SIZE, 0.1), FakeSession(SIZE, 0.1 + 2 * MAP_TOLERANCE)
    # No decision flips, because both scores are far below the threshold.
    assert compare_sessions(*sessions, make_images(3), 0.9).decision_flips == 0
    with pytest.raises(VerificationError):
        verify(*sessions, make_images(3), threshold=0.9)


def test_small_maps_have_a_small_tolerance() -> None:
    # These maps are a thousand times smaller than usual, so that a tolerance of 1e-4 would accept everything.
    small = FakeSession(SIZE, 1e-4), FakeSession(SIZE, 1.5e-4)
    assert abs(1.5e-4 - 1e-4) < MAP_TOLERANCE
    assert compare_sessions(*small, make_images(3), 1e-3).decision_flips == 0
    with pytest.raises(VerificationError):
        verify(*small, make_images(3), threshold=1e-3)


@pytest.mark.parametrize(
    ("reference", "other", "share"),
    [
        # Up to the threshold of 0.1, errors are shares of the threshold.
        (0.01, 0.03, 0.2),
        (0.1, 0.08, 0.2),
        # A defect: a score that is a tenth smaller makes the same decision; a score of zero does not.
        (9.0, 8.1, 0.1),
        (9.0, 0.0, 1.0),
        # A good part seen as a defect.
        (0.05, 9.0, 89.5),
    ],
)
def test_errors_are_relative_to_the_threshold_or_to_a_larger_value(
    reference: float, other: float, share: float
) -> None:
    found = compare_sessions(FakeSession(SIZE, reference), FakeSession(SIZE, other), make_images(2), 0.1)
    assert found.map_error_max == pytest.approx(share, rel=1e-5)
    assert found.score_error_max == pytest.approx(share, rel=1e-5)


def test_no_difference_is_accepted_with_a_threshold_of_zero() -> None:
    still = FakeSession(SIZE, 0.0)
    assert compare_sessions(still, still, make_images(2), 0.0).map_error_max == 0.0
    for other in (-1e-6, -10.0):
        assert compare_sessions(still, FakeSession(SIZE, other), make_images(2), 0.0).decision_flips == 0
        with pytest.raises(VerificationError):
            verify(still, FakeSession(SIZE, other), make_images(2), 0.0)


def test_a_flipped_decision_is_refused_however_small_the_difference() -> None:
    nearly = 0.1 + MAP_TOLERANCE / 2
    sessions, between = (FakeSession(SIZE, 0.1), FakeSession(SIZE, nearly)), 0.1 + MAP_TOLERANCE / 4
    assert verify(*sessions, make_images(3), threshold=0.2)
    assert compare_sessions(*sessions, make_images(3), between).decision_flips == 3
    with pytest.raises(VerificationError):
        verify(*sessions, make_images(3), threshold=between)


def test_nan_is_refused() -> None:
    sessions = FakeSession(SIZE, 0.1), FakeSession(SIZE, float("nan"))
    assert compare_sessions(*sessions, make_images(2), 0.9).map_error_max == float("inf")
    with pytest.raises(VerificationError):
        verify(*sessions, make_images(2), threshold=0.9)


def test_the_refusal_is_one_line_and_exits_with_three() -> None:
    with pytest.raises(VerificationError) as refusal:
        verify(FakeSession(SIZE, 0.1), FakeSession(SIZE, 0.9), make_images(1), threshold=0.5)
    assert "\n" not in str(refusal.value)
    assert refusal.value.exit_code == 3


@pytest.mark.parametrize("grey", [None, 0, 127, 128, 255])
def test_a_defect_is_damaged_in_one_rectangle_and_nowhere_else(grey: int | None) -> None:
    images = make_images(20) if grey is None else np.full((20, 32, 64, 3), grey, np.uint8)
    before = images.copy()
    defects = synthetic_defects(images)
    np.testing.assert_array_equal(images, before)
    assert defects.shape == images.shape
    assert defects.dtype == np.uint8
    for image, defect in zip(images, defects, strict=True):
        rows, columns = np.nonzero((image != defect).any(axis=2))
        assert len(rows) > 0
        assert np.ptp(rows) < 32 // 4
        assert np.ptp(columns) < 64 // 4
    if grey is not None:
        assert set(np.unique(defects)) == {grey, 255 - grey}


def test_defects_are_the_same_each_time_and_differ_among_each_other() -> None:
    images = np.full((6, 32, 64, 3), 40, np.uint8)
    np.testing.assert_array_equal(synthetic_defects(images), synthetic_defects(images))
    assert len({defect.tobytes() for defect in synthetic_defects(images)}) == 6
    assert not np.array_equal(synthetic_defects(images), synthetic_defects(images, seed=1))


HALF = Tolerance(
    map_error=0.02, score_error=0.01, rank_correlation_min=0.99, decision_flips=0.01, auroc_loss=0.005
)


def test_limits_follow_from_the_number_of_images() -> None:
    assert HALF.limits(99) == ToleranceLimits(0.02, 0.01, 0.99, 0, 0.005)
    assert HALF.limits(250).decision_flips_max == 2


@pytest.mark.parametrize(
    ("limits", "lets_through"),
    [
        (ToleranceLimits(0.101, 0.101, -1.0, 0, 0.01), True),
        (ToleranceLimits(0.099, 0.101, -1.0, 0, 0.01), False),
        (ToleranceLimits(0.101, 0.099, -1.0, 0, 0.01), False),
    ],
)
def test_each_error_has_its_own_limit(limits: ToleranceLimits, lets_through: bool) -> None:
    def check() -> None:
        verify(FakeSession(SIZE, 0.1), FakeSession(SIZE, 0.12), make_images(3), 0.2, limits)

    if lets_through:
        check()
    else:
        with pytest.raises(VerificationError):
            check()


def test_another_order_is_refused() -> None:
    def reversed_brightness(image: np.ndarray) -> float:
        return 1.0 - float(image.mean()) / 255

    loose = ToleranceLimits(10.0, 10.0, 0.9, 100, 0.01)
    brightness = FakeSession(SIZE, lambda image: float(image.mean()) / 255)
    verify(brightness, brightness, make_images(5), 0.9, loose)
    with pytest.raises(VerificationError) as refusal:
        verify(brightness, FakeSession(SIZE, reversed_brightness), make_images(5), 0.9, loose)
    assert "-1.000" in refusal.value.what


def test_a_loss_of_auroc_is_refused_and_a_gain_is_not() -> None:
    same = compare_sessions(FakeSession(SIZE), FakeSession(SIZE), make_images(3), 0.9)
    limits = ToleranceLimits(1.0, 1.0, -1.0, 0, 0.01)
    assert FidelityReport(same, 0.95, 0.945).holds(limits)
    assert FidelityReport(same, 0.95, 0.99).holds(limits)
    assert FidelityReport(same).holds(limits)
    assert not FidelityReport(same, 0.95, 0.93).holds(limits)
    assert not FidelityReport(same, 0.95, float("nan")).holds(limits)
    with pytest.raises(VerificationError) as refusal:
        require(FidelityReport(same, 0.95, 0.93), limits, "try this", part="left")
    for value in ("-0.0200", "-0.01", "left"):
        assert value in refusal.value.what
    assert refusal.value.hint == "try this"


def test_infinite_measures_are_null_in_json() -> None:
    broken = compare_sessions(FakeSession(SIZE, 0.1), FakeSession(SIZE, float("nan")), make_images(2), 0.9)
    measures = FidelityReport(broken).measures()
    assert measures["map_error_max"] is None
    assert json.loads(json.dumps(measures, allow_nan=False)) == measures


@pytest.mark.parametrize(
    ("name", "value"), [("map_error", -0.1), ("rank_correlation_min", 1.5), ("auroc_loss", float("nan"))]
)
def test_a_tolerance_out_of_range_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(InputError) as refusal:
        replace(HALF, **{name: value})
    assert name in refusal.value.what
    assert str(value) in refusal.value.what


def test_the_table_shows_each_measure_beside_its_limit() -> None:
    fidelity = {
        "map_error_max": 0.0123,
        "score_error_max": 0.004,
        "rank_correlation": None,
        "decision_flips": 1,
        "auroc_change": -0.0025,
    }
    lines = table(fidelity, asdict(ToleranceLimits(0.05, 0.01, 0.9, 2, 0.01)))
    assert [line.split() for line in lines] == [
        ["measured", "allowed"],
        ["map", "error", "0.0123", "<=", "0.05"],
        ["score", "error", "0.004", "<=", "0.01"],
        ["rank", "correlation", "-", ">=", "0.9"],
        ["decision", "flips", "1", "<=", "2"],
        ["AUROC", "change", "-0.0025", ">=", "-0.01"],
    ]
