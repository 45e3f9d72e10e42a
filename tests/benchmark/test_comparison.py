"""Reports and their comparison, with numbers by hand."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgead.benchmark.comparison import check_comparable, compare
from edgead.benchmark.report import Clock, Conditions, Report, Round, read_report
from edgead.errors import InputError
from edgead.files.parsing import write_json

CONDITIONS = Conditions(("e2e",), 1, None, 15.0, 64, 64, 5.0, 1.0)
MACHINE = {"architecture": "x86_64", "device": "a processor", "libraries": {"numpy": "2.0"}}


def report(medians_ms: list[float], yardstick_ms: float = 2.0) -> Report:
    clock = Clock.of([Round.of([value], 1e3 / value) for value in medians_ms])
    return Report(
        "a bundle",
        "64x64",
        CONDITIONS,
        {"e2e": clock},
        (yardstick_ms,) * len(medians_ms),
        80.0,
        MACHINE,
        None,
        None,
        "now",
    )


OLD = report([20.0, 21.0, 22.0, 20.5, 23.0])


@pytest.mark.parametrize(
    ("medians_ms", "yardstick_ms", "is_slower"),
    [
        # 20 ms more in every frame.
        ([40.0, 41.0, 42.0, 40.5, 43.0], 2.0, True),
        # Within 5 % of the slowest old round, and beyond it.
        ([24.1, 30.0, 30.0, 30.0, 30.0], 2.0, False),
        ([24.2, 30.0, 30.0, 30.0, 30.0], 2.0, True),
        # One round is as fast as before: the others had to share the processor.
        ([22.0, 60.0, 70.0, 60.0, 60.0], 2.0, False),
        # The machine takes twice as long for everything.
        ([40.0, 41.0, 42.0, 40.5, 43.0], 4.0, False),
        ([90.0, 91.0, 92.0, 90.5, 93.0], 4.0, True),
        # A faster machine makes no regression of equal times.
        ([20.0, 21.0, 22.0, 20.5, 23.0], 0.5, False),
    ],
)
def test_slower_is_what_is_slower_in_every_round_and_beside_the_yardstick(
    medians_ms: list[float], yardstick_ms: float, is_slower: bool
):
    (change,) = compare(OLD, report(medians_ms, yardstick_ms))
    assert change.is_slower is is_slower
    assert (change.old_ms, change.new_ms) == (21.0, statistics.median(medians_ms))


@pytest.mark.parametrize(
    ("loop_ms", "inference_ms", "is_slower"),
    [
        # The loop added 1 to 3 ms; the machine is too busy for a verdict by the times alone.
        ([45.0, 46.0, 44.0, 45.0, 45.0], [21.0, 22.0, 20.0, 21.0, 21.0], True),
        ([45.0, 46.0, 44.0, 45.0, 24.0], [21.0, 22.0, 20.0, 21.0, 21.0], False),
        # A faster inference leaves the loop as it is.
        ([14.0, 14.0, 13.0, 14.0, 14.0], [11.0, 12.0, 10.0, 11.0, 11.0], False),
        # 2 ms more are within a tenth of the inference.
        ([45.0, 46.0, 44.0, 45.0, 45.0], [40.0, 41.0, 39.0, 40.0, 40.0], False),
    ],
)
def test_a_loop_that_adds_more_to_the_inference_is_slower(
    loop_ms: list[float], inference_ms: list[float], is_slower: bool
):
    def both(loop: list[float], inference: list[float], yardstick_ms: float) -> Report:
        one, other = report(loop, yardstick_ms), report(inference, yardstick_ms)
        return replace(one, clocks={"device": other.clocks["e2e"], "e2e": one.clocks["e2e"]})

    old = both([63.0, 23.0, 22.0, 24.0, 23.0], [60.0, 21.0, 20.0, 22.0, 22.0], 2.0)
    device, loop = compare(old, both(loop_ms, inference_ms, 2.0))
    assert (device.is_slower, loop.is_slower) == (False, is_slower)


@pytest.mark.parametrize(
    "change", [{"batch": 2}, {"threads": 1}, {"fps": 30.0}, {"width_px": 32}, {"clocks": ("e2e", "device")}]
)
def test_other_conditions_are_refused(change: dict[str, Any]):
    check_comparable(OLD, replace(CONDITIONS, seconds=60.0, warm_up_s=5.0), MACHINE)
    with pytest.raises(InputError):
        check_comparable(OLD, replace(CONDITIONS, **change), MACHINE)


def test_another_machine_is_refused_and_other_libraries_are_not():
    check_comparable(OLD, CONDITIONS, {**MACHINE, "libraries": {"numpy": "3.0"}})
    with pytest.raises(InputError):
        check_comparable(OLD, CONDITIONS, {**MACHINE, "device": "another processor"})


def test_percentiles_are_of_all_rounds_and_the_rate_is_the_median_round():
    rounds = [
        Round.of(range(1, 51), 10.0),
        Round.of(range(51, 101), 30.0, [5.0, 7.0]),
        Round.of([100.0], 20.0),
    ]
    clock = Clock.of(rounds)
    cuts = statistics.quantiles([*range(1, 101), 100.0], n=100, method="inclusive")
    assert [clock.p50_ms, clock.p90_ms, clock.p95_ms, clock.p99_ms] == pytest.approx(
        [cuts[49], cuts[89], cuts[94], cuts[98]]
    )
    assert (clock.count, clock.per_second, clock.age_p50_ms) == (101, 20.0, 6.0)
    assert clock.round_p50_ms == (25.5, 75.5, 100.0)


def test_a_report_is_read_back_and_a_damaged_one_is_refused(tmp_path: Path):
    file = tmp_path / "bench.json"
    write_json(file, OLD.to_json())
    assert read_report(file) == OLD
    record = json.loads(file.read_text())
    for damage in (
        {"schema": 2},
        {"clocks": {"e2e": {**record["clocks"]["e2e"], "round_p50_ms": []}}},
        {"more": 1},
    ):
        file.write_text(json.dumps({**record, **damage}))
        with pytest.raises(InputError):
            read_report(file)
    with pytest.raises(InputError):
        read_report(tmp_path / "absent.json")
