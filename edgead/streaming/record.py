r"""Records of a stream for other programs: one JSON object for each event.

    {"event": "verdict", "time": ..., "source": ..., "part": ..., "frame_index": ...,
     "anomaly_score": ..., "threshold": ..., "share_of_threshold": ..., "is_anomalous": ...,
     "latency_ms": ..., "age_ms": ...,
     "regions": [{"x_px": ..., "y_px": ..., "width_px": ..., "height_px": ..., "area_px": ..., "highest_value": ...,
                  "polygon": [[x, y], ...]}, ...]}
    {"event": "withheld", "time": ..., "source": ..., "frame_index": ..., "reason": ...}
    {"event": "missed", "time": ..., "source": ..., "triggers": ..., "reason": ...}
    {"event": "state", "time": ..., "state": ..., "previous": ..., "causes": [...], "reason": ..., "silent_s": ...,
     "set_by": ...}
    {"event": "threshold", "time": ..., "part": ..., "threshold": ..., "previous": ..., "set_by": ...}
    {"event": "lost", "time": ..., "sink": ..., "events": ..., "frame_index": ..., "reason": ...}

Each record has the name of its camera, "camera", behind the time; it is null for a loss of a sink of several cameras.

With a trigger, "verdict" and "withheld" are of a part and have one more key, and "withheld" its cause:

    "trigger": {"number": ..., "part_id": ...,
                "frames": [{"frame_index": ..., "anomaly_score": ..., "is_anomalous": ...}, ...]}

Times are UTC. In a source, a byte of a file name that is not UTF-8 is written as ``\xfc`` and a backslash as two. A
record is made once, when the event happens, so every sink has the same time.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from functools import cached_property
from typing import Any

from edgead.files.parsing import json_text
from edgead.files.records import utc_now
from edgead.streaming.freshness import Problem
from edgead.streaming.state import StateChange
from edgead.text import path_text
from edgead.types import Frame, Region, TriggeredPart, Verdict

_REGION = tuple(field.name for field in fields(Region))


class Record(dict[str, Any]):
    """A record with values that JSON can encode, shared by all sinks; not to be changed."""

    @cached_property
    def text(self) -> str:
        """The record as JSON in one line of ASCII, without a newline; encoded once for all sinks."""
        return json_text(self, indent=None).removesuffix("\n")

    def of_camera(self, camera: str | None) -> Record:
        """Return the record with the name of its camera, behind the time."""
        return Record({"event": self["event"], "time": self["time"], "camera": camera, **self})


def verdict_record(frame: Frame, verdict: Verdict) -> Record:
    """Make the record of a verdict.

    Args:
        frame: Frame that was scored.
        verdict: Decision on the frame.

    Returns:
        The record, with values that JSON can encode.
    """
    return _record(
        "verdict",
        source=path_text(frame.source),
        part=verdict.part,
        frame_index=verdict.frame_index,
        anomaly_score=verdict.anomaly_score,
        threshold=verdict.threshold,
        share_of_threshold=verdict.share_of_threshold,
        is_anomalous=verdict.is_anomalous,
        latency_ms=round(verdict.latency_ms, 3),
        age_ms=None if verdict.age_ms is None else round(verdict.age_ms, 3),
        # Not `asdict`, which copies every corner.
        regions=[{name: getattr(region, name) for name in _REGION} for region in verdict.regions],
        **({} if verdict.trigger is None else {"trigger": asdict(verdict.trigger)}),
    )


def withheld_record(frame: Frame, reason: str) -> Record:
    """Make the record of a frame that gets no verdict, with the reason as text."""
    return _record("withheld", source=path_text(frame.source), frame_index=frame.index, reason=reason)


def part_withheld_record(source: str, part: TriggeredPart, problem: Problem) -> Record:
    """Make the record of a part that gets no verdict.

    Args:
        source: Address of the source, without secrets.
        part: Part of a trigger, with its frames that were scored.
        problem: Reason for the missing verdict.
    """
    return _record(
        "withheld",
        source=source,
        frame_index=None,
        cause=problem.cause,
        reason=problem.text,
        trigger=asdict(part),
    )


def no_verdict_record(reason: str) -> Record:
    """Make the record of an image without a verdict, with the reason as text, for sinks of the newest state only."""
    return _record("no_verdict", reason=reason)


def missed_record(source: str, triggers: int, reason: str) -> Record:
    """Make the record of triggers whose parts were not looked at.

    Args:
        source: Address of the source, without secrets.
        triggers: Number of triggers.
        reason: Reason, as text.
    """
    return _record("missed", source=source, triggers=triggers, reason=reason)


def state_record(change: StateChange) -> Record:
    """Make the record of a change of the state."""
    return _record("state", **asdict(change) | {"silent_s": round(change.silent_s, 3)})


def threshold_record(part: str | None, threshold: float, previous: float, set_by: str) -> Record:
    """Make the record of a threshold that was set while the stream runs.

    Args:
        part: Name of the part.
        threshold: Decision threshold of the next frames.
        previous: Decision threshold of the frames before.
        set_by: Name of who set it.
    """
    return _record("threshold", part=part, threshold=threshold, previous=previous, set_by=set_by)


def lost_record(sink: str, events: int, reason: str, frame_index: int | None = None) -> Record:
    """Make the record of events that a sink lost.

    Args:
        sink: Address of the sink, without secrets.
        events: Number of lost events.
        reason: Reason for the loss, as text.
        frame_index: Index of the frame whose image is lost; None if the record stands for several events.

    Returns:
        The record.
    """
    return _record("lost", sink=sink, events=events, frame_index=frame_index, reason=reason)


def _record(event: str, **values: object) -> Record:
    return Record(event=event, time=utc_now("milliseconds"), **values)
