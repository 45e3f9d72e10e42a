"""Refusal of a graph that differs from its reference, and the damaged pictures it is tried on."""

from __future__ import annotations

import numpy as np
import pytest

from edgead.engine.verify import MAP_TOLERANCE, damaged_twins, verify
from edgead.errors import VerificationError
from edgead.preprocess import ModelSize
from edgead.runtime import FakeSession

SIZE = ModelSize(32, 64)


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (count, 32, 64, 3), np.uint8)


def test_what_agrees_is_let_through() -> None:
    agreement = verify(FakeSession(SIZE), FakeSession(SIZE), pictures(3), threshold=0.9)
    assert agreement.n == 3
    assert agreement.map_error_max == 0.0
    assert agreement.decision_flips == 0


def test_a_map_beyond_the_tolerance_is_refused() -> None:
    # No decision flips: both scores are far below the threshold.
    with pytest.raises(VerificationError, match="0 decisions flip"):
        verify(FakeSession(SIZE, 0.1), FakeSession(SIZE, 0.1 + 2 * MAP_TOLERANCE), pictures(3), threshold=0.9)


def test_a_flipped_decision_is_refused_however_small_the_difference() -> None:
    nearly = 0.1 + MAP_TOLERANCE / 2
    assert verify(FakeSession(SIZE, 0.1), FakeSession(SIZE, nearly), pictures(3), threshold=0.2)
    with pytest.raises(VerificationError, match="3 decisions flip"):
        verify(
            FakeSession(SIZE, 0.1), FakeSession(SIZE, nearly), pictures(3), threshold=0.1 + MAP_TOLERANCE / 4
        )


def test_numbers_that_are_none_are_refused() -> None:
    with pytest.raises(VerificationError, match="inf"):
        verify(FakeSession(SIZE, 0.1), FakeSession(SIZE, float("nan")), pictures(2), threshold=0.9)


def test_the_refusal_is_one_line_and_exits_with_two() -> None:
    with pytest.raises(VerificationError) as refusal:
        verify(FakeSession(SIZE, 0.1), FakeSession(SIZE, 0.9), pictures(1), threshold=0.5)
    assert "\n" not in str(refusal.value)
    assert refusal.value.exit_code == 2


@pytest.mark.parametrize("grey", [None, 0, 127, 128, 255])
def test_a_twin_is_damaged_in_one_rectangle_and_nowhere_else(grey: int | None) -> None:
    images = pictures(20) if grey is None else np.full((20, 32, 64, 3), grey, np.uint8)
    before = images.copy()
    twins = damaged_twins(images)
    np.testing.assert_array_equal(images, before)
    assert twins.shape == images.shape
    assert twins.dtype == np.uint8
    for image, twin in zip(images, twins, strict=True):
        rows, columns = np.nonzero((image != twin).any(axis=2))
        assert len(rows) > 0
        assert np.ptp(rows) < 32 // 4
        assert np.ptp(columns) < 64 // 4
    if grey is not None:
        assert set(np.unique(twins)) == {grey, 255 - grey}


def test_twins_are_the_same_each_time_and_differ_among_each_other() -> None:
    images = np.full((6, 32, 64, 3), 40, np.uint8)
    np.testing.assert_array_equal(damaged_twins(images), damaged_twins(images))
    assert len({twin.tobytes() for twin in damaged_twins(images)}) == 6
    assert not np.array_equal(damaged_twins(images), damaged_twins(images, seed=1))
