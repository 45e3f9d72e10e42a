"""Cameras that a stream carries, by hand."""

from __future__ import annotations

import pytest

from edgead.benchmark.capacity import capacity_of
from edgead.benchmark.report import Clock, Round


def clock(*times_ms: float) -> Clock:
    return Clock.of([Round.of(times_ms, 1e3 / max(times_ms))])


@pytest.mark.parametrize(
    ("times_ms", "fps", "cameras", "age_ms"),
    [
        # 66.7 ms for frames of 8 ms, which count as 10 ms.
        ([8.0], 15.0, 6, 60.0),
        # One in ten takes twice as long, and counts.
        ([8.0] * 90 + [16.0] * 10, 15.0, 3, 60.0),
        ([50.0], 15.0, 1, 62.5),
        ([60.0], 15.0, 0, 0.0),
        ([8.0], 100.0, 1, 10.0),
        ([9.0], 100.0, 0, 0.0),
    ],
)
def test_a_stream_carries_what_it_can_score_before_the_next_frames(
    times_ms: list[float], fps: float, cameras: int, age_ms: float
):
    found = capacity_of(clock(*times_ms), fps)
    assert found.cameras == cameras
    assert found.age_ms == pytest.approx(age_ms)
    # All frames of one moment are scored before the next ones come.
    assert found.age_ms <= 1e3 / fps
    assert str(cameras) in found.text() or cameras == 0
