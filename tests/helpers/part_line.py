"""A stream with a trigger, of which a test is the camera and the line."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from edgead.runtime import FakeSession
from edgead.streaming import LineControl, PartRule, StreamPolicy, Summary, stream
from edgead.types import UInt8Array
from tests.helpers.stream_parts import SIZE, Record, Records, ScriptedSource

LIMIT_S = 20
THRESHOLD = 100.0


def level_of(image: UInt8Array) -> float:
    """The level of a `textured` image, a multiple of 10, after resizing, which averages its speckles in."""
    return float(image.min() // 10 * 10)


class Line:
    """A stream with a trigger, of which a test is the camera and the line."""

    def __init__(self, *, max_age_s: float = LIMIT_S, **rule: Any) -> None:
        self.control = LineControl(PartRule(**rule))
        self.out, self.images = Records(), Record()
        self._policy = StreamPolicy(part="washer", max_age_s=max_age_s, withhold_still="never")
        self.camera: ScriptedSource | None = None
        self.score: Callable[[UInt8Array], float] = level_of

    def trigger(self, part_id: str | None = None) -> None:
        assert self.control.parts is not None
        self.control.parts.add(part_id)

    def run(self, script: Callable[[], Iterator[UInt8Array]]) -> Summary:
        session = FakeSession(SIZE, score=lambda image: self.score(image))
        source, sinks = self.camera or ScriptedSource(script, live=True), [self.out, self.images]
        summary = stream(
            session,
            source,
            sinks,
            size=SIZE,
            threshold=THRESHOLD,
            policy=self._policy,
            line=self.control,
        )
        parts = summary.parts
        assert parts is not None
        assert parts.triggered == parts.judged + sum(parts.withheld.values()) + parts.missed
        assert summary.frames_seen == (
            summary.frames_scored
            + summary.frames_dropped
            + summary.frames_withheld
            + summary.frames_broken
            + summary.frames_idle
        )
        return summary

    def settled(self) -> list[tuple[int, Any]]:
        """Number of each part in the order of the records, with its score, or with the cause of the missing verdict."""
        records = self.out.of("verdict", "withheld")
        return [
            (one["trigger"]["number"], one["anomaly_score"] if one["event"] == "verdict" else one["cause"])
            for one in records
        ]

    def wait(self, n_records: int) -> None:
        end_s = time.monotonic() + LIMIT_S
        while len(self.out.of("verdict", "withheld")) < n_records:
            assert time.monotonic() < end_s, f"{n_records} records do not come"
            time.sleep(0.002)
