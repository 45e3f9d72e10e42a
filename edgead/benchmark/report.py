"""Report of a benchmark: the record that `edgead bench --out` writes and `--compare` reads, and its text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgead import __version__
from edgead.errors import InputError
from edgead.files.parsing import parse_json, read_bounded
from edgead.files.records import record_errors, record_from

CLOCKS = ("device", "e2e", "paced")
ROUNDS = 5
SCHEMA = 1
MAX_REPORT_BYTES = 2**18

_MEANING = {
    "device": "batch in hand to maps and scores",
    "e2e": "frame in hand to verdict",
    "paced": "frame in hand to verdict, at the camera's rate",
}


@dataclass(frozen=True, slots=True)
class Conditions:
    """What is measured.

    Attributes:
        clocks: Names of the clocks, of `CLOCKS`.
        batch: Images of one inference of the clock `device`; the stream of the other clocks has 1.
        threads: CPU threads of one inference; None for one for each core.
        fps: Rate of the camera of the clock `paced`, in frames per second.
        width_px: Width of the camera's images; None for the model's.
        height_px: Height of the camera's images; None for the model's.
        seconds: Time of each clock in seconds, of all rounds together.
        warm_up_s: Time of inferences that are not measured, before the first round, in seconds.

    Raises:
        InputError: A value is out of range.
    """

    clocks: tuple[str, ...]
    batch: int
    threads: int | None
    fps: float
    width_px: int | None
    height_px: int | None
    seconds: float
    warm_up_s: float

    def __post_init__(self) -> None:
        if not self.clocks or len(set(self.clocks)) != len(self.clocks) or not {*self.clocks} <= {*CLOCKS}:
            raise InputError(
                f"clocks is {','.join(self.clocks)!r}", hint=f"give some of {','.join(CLOCKS)}, each once"
            )
        for name, value, least, most in (
            ("batch", self.batch, 1, 1024),
            ("fps", self.fps, 0.1, 1000),
            ("width", self.width_px, 16, 32768),
            ("height", self.height_px, 16, 32768),
            ("seconds", self.seconds, 0.5, 3600),
            ("warm_up", self.warm_up_s, 0, 3600),
        ):
            if value is not None and not least <= value <= most:
                raise InputError(f"{name} is {value:g}", hint=f"give {least:g} to {most:g}")


@dataclass(frozen=True, slots=True)
class Round:
    """Times of one clock in one round.

    Attributes:
        times_ms: Time of each inference or frame in milliseconds.
        per_second: Number of images a second.
        ages_ms: Age of each image at its verdict in milliseconds; empty if no age is known.
    """

    times_ms: tuple[float, ...]
    per_second: float
    ages_ms: tuple[float, ...]

    @classmethod
    def of(cls, times_ms: Sequence[float], per_second: float, ages_ms: Sequence[float] = ()) -> Round:
        """Make a round of any sequences."""
        return cls(tuple(times_ms), per_second, tuple(ages_ms))


@dataclass(frozen=True, slots=True)
class Clock:
    """Result of one clock, in milliseconds.

    Attributes:
        count: Number of times.
        mean_ms: Mean.
        p50_ms: Median; with the next three the percentiles of all rounds together, interpolated linearly.
        p90_ms: 90th percentile.
        p95_ms: 95th percentile.
        p99_ms: 99th percentile.
        per_second: Images a second: the median of the rounds.
        age_p50_ms: Median age at the verdict; None if no age is known, as for files.
        age_p99_ms: 99th percentile of the age.
        round_p50_ms: Median of each round.
    """

    count: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    per_second: float
    age_p50_ms: float | None
    age_p99_ms: float | None
    round_p50_ms: tuple[float, ...]

    @classmethod
    def of(cls, rounds: Sequence[Round]) -> Clock:
        """Summarise the rounds of a clock, each with one time or more."""
        times = np.concatenate([one.times_ms for one in rounds])
        ages = np.concatenate([one.ages_ms for one in rounds])
        p50, p90, p95, p99 = (round(float(value), 4) for value in np.percentile(times, (50, 90, 95, 99)))
        age_p50, age_p99 = np.percentile(ages, (50, 99)) if len(ages) else (None, None)
        return cls(
            count=len(times),
            mean_ms=round(float(times.mean()), 4),
            p50_ms=p50,
            p90_ms=p90,
            p95_ms=p95,
            p99_ms=p99,
            per_second=round(float(np.median([one.per_second for one in rounds])), 3),
            age_p50_ms=None if age_p50 is None else round(float(age_p50), 4),
            age_p99_ms=None if age_p99 is None else round(float(age_p99), 4),
            round_p50_ms=tuple(round(float(np.median(one.times_ms)), 4) for one in rounds),
        )


@dataclass(frozen=True, slots=True)
class Report:
    """A benchmark of a model on a machine.

    Attributes:
        model: Description of the model in one line.
        size: Size of the model's images, such as "256x256".
        conditions: What was measured.
        clocks: Result of each clock by its name.
        yardstick_ms: Median time of a fixed calculation in each round, in milliseconds.
        opened_ms: Time to open the model, with the golden check of a bundle, in milliseconds.
        environment: The machine and the libraries; see `edgead.runtime.environment.Environment`.
        clock_mhz: Clock rate of the processor at the end, the mean of its cores; None if the machine does not tell.
        power_w: Mean power of the processor during the measurement; None if the machine does not tell.
        measured_at: Time in UTC, ISO 8601.
        edgead_version: Version of edgead.
        schema: Version of the format.
    """

    model: str
    size: str
    conditions: Conditions
    clocks: Mapping[str, Clock]
    yardstick_ms: tuple[float, ...]
    opened_ms: float
    environment: Mapping[str, Any]
    clock_mhz: float | None
    power_w: float | None
    measured_at: str
    edgead_version: str = __version__
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise ValueError(f"schema is {self.schema}, and this edgead reads {SCHEMA}")
        if not self.yardstick_ms or not all(clock.round_p50_ms for clock in self.clocks.values()):
            raise ValueError("a round is missing")

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self)

    def text(self) -> str:
        """Return the report as lines for a terminal."""
        chosen = self.conditions
        threads = "one thread for each core" if chosen.threads is None else f"{chosen.threads} threads"
        rows: list[tuple[str, ...]] = [("", "p50", "p90", "p95", "p99", "mean", "a second", "rounds, p50")]
        for name, clock in self.clocks.items():
            times = (clock.p50_ms, clock.p90_ms, clock.p95_ms, clock.p99_ms, clock.mean_ms)
            spread = f"{min(clock.round_p50_ms):.2f} to {max(clock.round_p50_ms):.2f}"
            rows.append((name, *(f"{value:.2f}" for value in times), f"{clock.per_second:.1f}", spread))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        table = [
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
        ]
        device, architecture = (self.environment.get(name, "unknown") for name in ("device", "architecture"))
        lines = [
            f"model      {self.model}, {self.size}",
            f"machine    {device}, {architecture}",
            f"clock      {'unknown' if self.clock_mhz is None else f'{self.clock_mhz:.0f} MHz'}, "
            f"power {'unknown' if self.power_w is None else f'{self.power_w:.1f} W'}",
            f"images     {chosen.width_px}x{chosen.height_px}, batch {chosen.batch}, {threads}",
            f"opened in  {self.opened_ms:.0f} ms",
            "",
            "milliseconds",
            *table,
            "",
            *(f"{name:<10} {_MEANING[name]}" for name in self.clocks),
        ]
        for name, clock in self.clocks.items():
            if clock.age_p50_ms is not None and clock.age_p99_ms is not None:
                ages = f"p50 {clock.age_p50_ms:.2f} ms, p99 {clock.age_p99_ms:.2f} ms"
                lines.append(
                    f"age        {ages}, capture to verdict, {name} at {chosen.fps:g} frames a second"
                )
        return "\n".join(lines)


def read_report(file: Path) -> Report:
    """Read the report of an earlier benchmark.

    Args:
        file: File that `edgead bench --out` wrote.

    Returns:
        The report.

    Raises:
        InputError: The file is no such report.
    """
    with record_errors(
        InputError, f"{file} is no report of edgead bench", "give a file that edgead bench --out wrote"
    ):
        return record_from(Report, parse_json(read_bounded(file, MAX_REPORT_BYTES), MAX_REPORT_BYTES))


__all__ = ["CLOCKS", "ROUNDS", "Clock", "Conditions", "Report", "Round", "read_report"]
