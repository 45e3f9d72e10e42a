"""Rejection of a graph that differs from its reference, and the synthetic defects for the comparison."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from edgead.data.pseudo_anomalies.rectangles import synthetic_defects
from edgead.engine.fidelity import MAP_TOLERANCE, FidelityReport, Tolerance, ToleranceLimits
from edgead.engine.refusal import described, refusal, require_each, table, verify
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


@pytest.mark.parametrize(
    ("grey", "contents"),
    [
        (0, (255, 255, 255)),
        (48, (207, 255, 255)),
        (49, (206, 0, 255)),
        (206, (49, 0, 255)),
        (127, (255, 0, 255)),
        (128, (0, 0, 255)),
        (207, (48, 0, 0)),
    ],
)
def test_each_four_defects_are_inverted_black_white_and_noise_and_none_is_hard_to_see(
    grey: int, contents: tuple[int, int, int]
) -> None:
    images = np.full((400, 64, 64, 3), grey, np.uint8)
    orders, noise = set(), []
    for four in np.split(synthetic_defects(images, seed=3), 100):
        found = [values[values != grey] for values in four]
        plain = [int(values[0]) if np.ptp(values) == 0 else -1 for values in found]
        assert sorted(plain) == sorted([-1, *contents])
        orders.add(tuple(plain))
        noise.append(found[plain.index(-1)])
    # Uniform values have a mean of 127.5 and a standard deviation of 73.9.
    values = np.concatenate(noise)
    assert abs(values.mean() - 127.5) < 3
    assert abs(values.std() - 73.9) < 3
    # Tiles of an image follow each other, and a kind must not belong to a place.
    assert len(orders) > 3


def test_a_defect_on_an_image_of_black_and_white_can_be_seen() -> None:
    images = np.zeros((200, 64, 64, 3), np.uint8)
    images[:, :, 32:] = 255
    change = np.abs(synthetic_defects(images).astype(int) - images).sum((1, 2, 3))
    # At least an eighth of each side, by more than 48 levels.
    assert change.min() > 8 * 8 * 3 * 48


def test_defects_are_the_same_each_time_and_differ_among_each_other() -> None:
    images = np.full((6, 32, 64, 3), 40, np.uint8)
    np.testing.assert_array_equal(synthetic_defects(images), synthetic_defects(images))
    assert len({defect.tobytes() for defect in synthetic_defects(images)}) == 6
    assert not np.array_equal(synthetic_defects(images), synthetic_defects(images, seed=1))


def row(error: VerificationError, title: str) -> list[str]:
    """Cells of one line of the table of an error."""
    (line,) = (line for line in error.table if line.strip().startswith(title))
    return line.strip().removeprefix(title).split()


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
    with pytest.raises(VerificationError) as caught:
        verify(brightness, FakeSession(SIZE, reversed_brightness), make_images(5), 0.9, loose)
    assert row(caught.value, "rank correlation") == ["-1*", ">=", "0.9"]
    assert row(caught.value, "map error")[0].rstrip("*") == row(caught.value, "map error")[0]


def test_a_loss_of_auroc_is_refused_and_a_gain_is_not() -> None:
    same = compare_sessions(FakeSession(SIZE), FakeSession(SIZE), make_images(3), 0.9)
    limits = ToleranceLimits(1.0, 1.0, -1.0, 0, 0.01)
    assert FidelityReport(same, 0.95, 0.945).holds(limits)
    assert FidelityReport(same, 0.95, 0.99).holds(limits)
    assert FidelityReport(same).holds(limits)
    assert not FidelityReport(same, 0.95, 0.93).holds(limits)
    assert not FidelityReport(same, 0.95, float("nan")).holds(limits)
    within, outside = ((FidelityReport(same, 0.95, auroc), limits) for auroc in (0.95, 0.93))
    require_each({"left": within}, "fp16", "try this")
    with pytest.raises(VerificationError) as caught:
        require_each({"left": within, "right": outside}, "fp16", "try this")
    assert row(caught.value, "AUROC change") == ["-0.02*", ">=", "-0.01"]
    # The table of the part that is within its tolerance would only hide the other one.
    assert not any("left" in line for line in (caught.value.what, *caught.value.table))
    assert all("right" in line for line in (caught.value.what, caught.value.table[0]))
    assert caught.value.hint == "try this"


@pytest.mark.parametrize(
    ("measure", "better", "worse"),
    [
        ("map_error_max", {"map_error_max": 0.1}, {"map_error_max": 0.2}),
        ("rank_correlation", {"rank_correlation": 0.99}, {"rank_correlation": 0.9}),
        # The half with the smaller map error loses more AUROC.
        ("auroc_change", {"map_error_max": 0.2, "auroc": 0.94}, {"map_error_max": 0.1, "auroc": 0.93}),
        ("auroc_change", {"auroc": None}, {"auroc": 0.99}),
    ],
)
def test_harm_grows_as_a_measure_gets_worse(
    measure: str, better: dict[str, float], worse: dict[str, float]
) -> None:
    same = compare_sessions(FakeSession(SIZE), FakeSession(SIZE), make_images(3), 0.9)

    def report(auroc: float | None = 0.95, **errors: float) -> FidelityReport:
        return FidelityReport(replace(same, **errors), 0.95, auroc)  # type: ignore[arg-type]

    assert report(**better).harm(measure) < report(**worse).harm(measure)


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
    measures = {
        "map_error_max": 0.0123,
        "score_error_max": 0.004,
        "rank_correlation": None,
        "decision_flips": 1,
        "auroc_change": -0.0025,
    }
    limits = ToleranceLimits(0.05, 0.01, 0.9, 2, 0.01)
    assert [line.split() for line in table({"measured": measures}, asdict(limits))] == [
        ["measured", "allowed"],
        ["map", "error", "0.0123", "<=", "0.05"],
        ["score", "error", "0.004", "<=", "0.01"],
        ["rank", "correlation", "-", ">=", "0.9"],
        ["decision", "flips", "1", "<=", "2"],
        ["AUROC", "change", "-0.0025", ">=", "-0.01"],
    ]
    # The errors of a product need a word: they are those of one of its scales.
    product = table({"measured": measures}, asdict(replace(limits, factors=3)))
    assert len(product) == 7
    assert "3" in product[-1].split()


def test_a_refusal_marks_what_is_outside_and_shows_the_halves_beside_it() -> None:
    limits = ToleranceLimits(0.3, 0.2, -1.0, 0, 0.01)

    def compared(other: float) -> dict[str, tuple[FidelityReport, ToleranceLimits]]:
        fidelity = compare_sessions(FakeSession(SIZE, 0.08), FakeSession(SIZE, other), make_images(3), 0.1)
        return {"washer": (FidelityReport(fidelity), limits)}

    error = refusal(compared(0.12), "int8", "hint", {"teacher": compared(0.105), "student": compared(0.081)})
    assert row(error, "map error") == ["0.4*", "0.25", "0.01", "<=", "0.3"]
    assert row(error, "score error") == ["0.4*", "0.25*", "0.01", "<=", "0.2"]
    assert row(error, "decision flips") == ["3*", "3*", "0", "<=", "0"]
    assert row(error, "AUROC change") == ["-", "-", "-", ">=", "-0.01"]
    heading = error.table[1].split()
    assert heading == ["measured", "teacher", "student", "allowed"]
    broken = compared(float("nan"))
    assert row(refusal(broken, "int8", "hint"), "map error")[0] == "inf*"
    assert "inf" in described(*broken["washer"])


@pytest.mark.parametrize(
    ("reference", "other", "share"),
    [
        # One of three scales is 72.8 % off. The sum of three equal scales would be 24.3 % off.
        (0.001, 0.001 * 1.728, 0.2),
        # All three scales are 20 % off.
        (0.027, 0.027 * 1.2**3, 0.2),
        (0.027, 0.027 * 0.8**3, 0.2),
        # Below the threshold of 0.001, errors are shares of the threshold: 0.02 - 0.01 of 0.1.
        (1e-6, 8e-6, 0.1),
        # A defect that disappears is an error of 1 in any measure.
        (0.5, 0.0, 1.0),
    ],
)
def test_errors_of_a_product_are_those_of_one_scale(reference: float, other: float, share: float) -> None:
    sessions = FakeSession(SIZE, reference), FakeSession(SIZE, other)
    found = compare_sessions(*sessions, make_images(2), 0.001, factors=3)
    assert found.map_error_max == pytest.approx(share, rel=1e-5)
    assert found.score_error_max == pytest.approx(share, rel=1e-5)


def test_a_value_below_zero_by_rounding_has_a_root_below_zero() -> None:
    sessions = FakeSession(SIZE, 0.001), FakeSession(SIZE, -1e-9)
    found = compare_sessions(*sessions, make_images(2), 0.001, factors=3)
    assert found.map_error_max == pytest.approx(1.01, rel=1e-5)


def test_a_threshold_below_zero_has_no_root_and_limits_nothing() -> None:
    # A manifest can have one, because a threshold is any finite number there.
    sessions = FakeSession(SIZE, 0.001), FakeSession(SIZE, 0.001 * 1.2**3)
    found = [compare_sessions(*sessions, make_images(2), threshold, factors=3) for threshold in (-0.1, 0.0)]
    assert [fidelity.map_error_max for fidelity in found] == pytest.approx([0.2, 0.2], rel=1e-5)


def test_the_root_changes_neither_ranks_nor_decisions() -> None:
    def session(shift: float) -> FakeSession:
        return FakeSession(SIZE, lambda image: (float(image.mean()) / 255 - 0.45 + shift) ** 3)

    # The threshold is the score of an image, as in a build: then rounding would decide if roots were compared.
    images = make_images(9)
    threshold = float(session(0.0).infer(images).anomaly_score[4])
    found = [
        compare_sessions(session(0.0), session(1e-3), images, threshold, factors=factors)
        for factors in (1, 3)
    ]
    assert found[0].decision_flips == found[1].decision_flips
    assert found[0].rank_correlation == found[1].rank_correlation
    assert found[0].map_error_max != found[1].map_error_max
    same = compare_sessions(session(0.0), session(0.0), images, threshold, factors=3)
    assert (same.map_error_max, same.decision_flips) == (0.0, 0)


def test_a_halved_tolerance_has_half_of_each_limit() -> None:
    halved = Tolerance(0.3, 0.2, 0.95, 0.03, 0.01).halved()
    assert asdict(halved) == pytest.approx(asdict(Tolerance(0.15, 0.1, 0.975, 0.015, 0.005)))
    assert halved.limits(100).decision_flips_max == 1
