"""Comparison of two benchmarks of the same conditions on the same machine: is a model or a version slower?

Machines at a line run other programs, so two honest measurements differ by their load. A clock is slower if every round
of the new report is slower than every round of the old one by more than `MARGIN`, both in milliseconds and in multiples
of the yardstick, a fixed calculation that was timed in the same rounds. A clock of the loop is also slower if in every
round it adds more to the inference than in any old round, by more than `LOOP_MARGIN` of the inference: load that slows
the inference as much as the loop hides nothing there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgead.benchmark.report import Clock, Conditions, Report
from edgead.errors import InputError

MARGIN = 0.05
LOOP_MARGIN = 0.1


@dataclass(frozen=True, slots=True)
class Change:
    """Change of one clock.

    Attributes:
        clock: Name of the clock.
        old_ms: Median of the old report in milliseconds.
        new_ms: Median of the new report in milliseconds.
        is_slower: Whether the new one is slower beyond the noise of both.
    """

    clock: str
    old_ms: float
    new_ms: float
    is_slower: bool

    def text(self) -> str:
        """Return the change as a line."""
        verdict = "slower" if self.is_slower else "not slower beyond the noise"
        ratio = self.new_ms / self.old_ms
        return f"{self.clock:<10} {self.old_ms:.2f} -> {self.new_ms:.2f} ms ({ratio:.3f}): {verdict}"


def check_comparable(old: Report, conditions: Conditions, environment: Mapping[str, Any]) -> None:
    """Check that a report has the conditions and the machine of a measurement. Times of measurement may differ.

    Args:
        old: Report of the earlier measurement.
        conditions: Conditions of the present one.
        environment: Machine of the present one.

    Raises:
        InputError: They differ, so that the reports cannot be compared.
    """
    names = ("clocks", "batch", "threads", "fps", "width_px", "height_px")
    compared = [(name, getattr(old.conditions, name), getattr(conditions, name)) for name in names]
    machine = [
        (name, old.environment.get(name), environment.get(name)) for name in ("architecture", "device")
    ]
    for name, before, now in [*compared, *machine]:
        if before != now:
            hint = "measure both on the same machine, with the same options"
            raise InputError(f"the reports differ in {name}: {before} before, {now} now", hint=hint)


def compare(old: Report, new: Report) -> list[Change]:
    """Compare two reports that pass `check_comparable`.

    Args:
        old: Report of the earlier measurement.
        new: Report of the present one.

    Returns:
        Change of each clock.
    """
    return [_change(name, old, new) for name in new.clocks]


def _change(name: str, old: Report, new: Report) -> Change:
    """Compare one clock."""
    before, now = old.clocks[name], new.clocks[name]
    takes_longer = _is_above(now.round_p50_ms, before.round_p50_ms) and _is_above(
        _scaled(now, new.yardstick_ms), _scaled(before, old.yardstick_ms)
    )
    return Change(name, before.p50_ms, now.p50_ms, takes_longer or _adds_more(name, old, new))


def _scaled(clock: Clock, yardstick_ms: Sequence[float]) -> list[float]:
    """Medians of the rounds in multiples of the yardstick of the same round."""
    return [time / unit for time, unit in zip(clock.round_p50_ms, yardstick_ms, strict=True)]


def _is_above(new: Sequence[float], old: Sequence[float]) -> bool:
    """Whether every value is larger than every old one by more than the margin."""
    return min(new) > max(old) * (1 + MARGIN)


def _adds_more(name: str, old: Report, new: Report) -> bool:
    """Whether the loop of a clock adds more to the inference of the same round than it did in any old round."""
    if name == "device" or "device" not in new.clocks:
        return False
    room_ms = LOOP_MARGIN * new.clocks["device"].p50_ms
    return min(_added_ms(new, name)) > max(_added_ms(old, name)) + room_ms


def _added_ms(report: Report, name: str) -> list[float]:
    """Medians of the rounds of a clock less those of the inference alone, in milliseconds."""
    pairs = zip(report.clocks[name].round_p50_ms, report.clocks["device"].round_p50_ms, strict=True)
    return [whole - inference for whole, inference in pairs]
