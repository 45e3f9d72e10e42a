"""Summary of a stream: counts of its frames, and percentiles of latencies and ages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgead.streaming.sinks.base import SinkCount
from edgead.text import printable


@dataclass(frozen=True, slots=True)
class PartCount:
    """Counts of the parts of a stream with a trigger: triggered = judged + withheld + missed.

    Attributes:
        triggered: Number of triggers.
        judged: Number of parts with a verdict.
        rejected: Number of parts that are rejected.
        withheld: Number of parts without a verdict by cause; see `edgead.streaming.freshness.Cause`.
        missed: Number of triggers that came faster than they could be counted in.
    """

    triggered: int
    judged: int
    rejected: int
    withheld: Mapping[str, int]
    missed: int

    def text(self) -> str:
        """Return the counts as one line for a terminal."""
        return (
            f"parts      {self.triggered} triggered, {self.judged} judged, {self.rejected} rejected, "
            f"{sum(self.withheld.values())} withheld{_by_cause(self.withheld)}, {self.missed} missed"
        )


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts, latencies and ages of a stream.

    A latency is the time that a frame takes from the queue to its decision, with a trigger the time from the trigger to
    the decision on the part. An age is the time from the capture of an image to its decision. Both are within 1 %; None
    if no frame was scored, and no age is known for files.

    Attributes:
        frames_seen: Number of all frames: frames_scored + frames_dropped + frames_withheld + frames_broken +
            frames_idle.
        frames_scored: Number of frames with a verdict.
        frames_dropped: Number of frames of a live source that a newer frame replaced, or that waited at the end.
        frames_withheld: Number of frames without a verdict.
        frames_broken: Number of images that were left out because they are truncated or damaged.
        rejected: Number of frames that scored above the threshold.
        withheld: Number of frames without a verdict by cause; see `edgead.streaming.freshness.Cause`.
        signal_losses: Number of times that the signal was lost.
        states_s: Time in each state that the stream was in, in seconds; see `edgead.streaming.state.STATES`.
        latency_p50_ms: Median latency in milliseconds.
        latency_p95_ms: 95th percentile of the latency in milliseconds.
        latency_p99_ms: 99th percentile of the latency in milliseconds.
        age_p50_ms: Median age in milliseconds.
        age_p95_ms: 95th percentile of the age in milliseconds.
        age_p99_ms: 99th percentile of the age in milliseconds.
        duration_s: Time from the start of capture to the end, in seconds.
        sinks: Counts of each sink, in the order of the sinks.
        frames_idle: Number of frames that belong to no part, with a trigger.
        parts: Counts of the parts; None without a trigger.
    """

    frames_seen: int
    frames_scored: int
    frames_dropped: int
    frames_withheld: int
    frames_broken: int
    rejected: int
    withheld: Mapping[str, int]
    signal_losses: int
    states_s: Mapping[str, float]
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    latency_p99_ms: float | None
    age_p50_ms: float | None
    age_p95_ms: float | None
    age_p99_ms: float | None
    duration_s: float
    sinks: tuple[SinkCount, ...] = ()
    frames_idle: int = 0
    parts: PartCount | None = None

    def text(self) -> str:
        """Return the summary as lines for a terminal."""
        rate = self.frames_scored / self.duration_s if self.duration_s > 0 else 0.0
        states = ", ".join(
            f"{state.replace('_', ' ')} {time_s:.1f} s" for state, time_s in self.states_s.items()
        )
        lines = [
            f"frames     {self.frames_seen} seen, {self.frames_scored} scored, "
            f"{self.frames_dropped} dropped, {self.frames_withheld} withheld"
            f"{_by_cause(self.withheld)}, {self.frames_broken} broken"
            f"{f', {self.frames_idle} without a part' if self.parts is not None else ''}",
            f"rejected   {self.rejected}" if self.parts is None else self.parts.text(),
            f"duration   {self.duration_s:.1f} s, {rate:.1f} scored a second, "
            f"signal lost {self.signal_losses} times",
            f"states     {states}",
        ]
        begin = "frame in hand" if self.parts is None else "trigger"
        if self.latency_p50_ms is not None:
            lines.append(
                f"latency    p50 {self.latency_p50_ms:.1f} ms, p95 {self.latency_p95_ms:.1f} ms, "
                f"p99 {self.latency_p99_ms:.1f} ms, {begin} to decision"
            )
        if self.age_p50_ms is not None:
            lines.append(
                f"age        p50 {self.age_p50_ms:.1f} ms, p95 {self.age_p95_ms:.1f} ms, "
                f"p99 {self.age_p99_ms:.1f} ms, capture to decision"
            )
        return "\n".join([*lines, *map(_sink_line, self.sinks)])


@dataclass(frozen=True, slots=True)
class LineSummary:
    """Summary of a stream with one camera or more.

    Attributes:
        cameras: Summary of each camera by its name.
        sinks: Counts of the sinks for the events of all cameras.
        failed: Error of each camera that has ended with one, or was never opened, by its name.
    """

    cameras: Mapping[str, Summary]
    sinks: tuple[SinkCount, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_problem(self) -> bool:
        """Whether a camera failed, or a sink did not work at the end."""
        if self.failed:
            return True
        counts = [*self.sinks, *(count for one in self.cameras.values() for count in one.sinks)]
        return any(count.problem is not None for count in counts)

    def text(self) -> str:
        """Return the summary as lines for a terminal."""
        if len(self.cameras) == 1 and not self.failed:
            return "\n".join([*(one.text() for one in self.cameras.values()), *map(_sink_line, self.sinks)])
        lines = [f"camera     {printable(name)}\n{one.text()}" for name, one in self.cameras.items()]
        failed = [
            f"failed     {printable(name)}: {printable(reason)}" for name, reason in self.failed.items()
        ]
        lines += ["\n".join(failed)] if failed else []
        return "\n\n".join([*lines, *(["\n".join(map(_sink_line, self.sinks))] if self.sinks else [])])


def _sink_line(count: SinkCount) -> str:
    """Return the counts of a sink as one line."""
    replaced = f", {count.replaced} replaced by newer ones" if count.replaced else ""
    problem = "" if count.problem is None else f" ({printable(count.problem)})"
    return f"sink       {printable(count.sink)} {count.written} written, {count.lost} lost{replaced}{problem}"


def _by_cause(withheld: Mapping[str, int]) -> str:
    """Return counts by cause in brackets; an empty text if there are none."""
    causes = ", ".join(f"{count} {cause.replace('_', ' ')}" for cause, count in withheld.items())
    return f" ({causes})" if causes else ""
