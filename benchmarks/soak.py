"""A long stream with faults in its source, its sinks and its disk: does it grow, does it lose anything without a count?

    python benchmarks/soak.py --frames 150000

A real loop with a fake session reads a camera that loses its connection, freezes, and gives black, truncated, late and
wrongly sized images. Its sinks are a log that other programs take away, a pipe that is not read for a while, MQTT with
a broker that restarts, a webhook with a server that answers 500, hangs and hangs up, and video segments. A log, the
rejects and the spools are on a small disk that gets full. It prints tables, and ends with exit code 1 if a rule is
broken. It needs mosquitto, and the right to mount a disk in memory; without this right the folder of the disk is away
in place of being full.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.helpers.soak import ALLOCATOR, soak
from tests.helpers.soak_rules import Outcome, violations

LARGEST_GROWTH = 0.02


def tenth(outcome: Outcome, number: int, column: int) -> float:
    """Return the least of a column of the samples in one tenth of the run, counted from 1.

    Each tenth has every fault of the sinks. The memory is least when the sinks have caught up.
    """
    samples = outcome.samples
    part = samples[len(samples) * (number - 1) // 10 : len(samples) * number // 10]
    return float(part[:, column].min())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=150_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if not ALLOCATOR.items() <= os.environ.items():
        # Memory in use is measured, not the pieces that glibc keeps for each thread: these fill up over 100 000 frames.
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ALLOCATOR})
    with tempfile.TemporaryDirectory() as folder:
        outcome = soak(Path(folder), options.frames, seed=options.seed)
    counts = outcome.summary
    print(
        f"\nSeed {options.seed}, {outcome.rate:.0f} frames a second: {counts.frames_seen} frames = "
        f"{counts.frames_scored} scored + {counts.frames_dropped} dropped + {counts.frames_withheld} withheld + "
        f"{counts.frames_broken} broken.\n"
    )
    print("| fault | times |\n|---|---|")
    for fault, number in sorted(outcome.faults.items()):
        print(f"| {fault} | {number} |")
    print("\n| sink | written | lost, all counted |\n|---|---|---|")
    for name, count in outcome.sinks.items():
        print(f"| {name} | {count.written} | {count.lost} |")
    print("\n| | second tenth | last tenth |\n|---|---|---|")
    rows = {"resident memory, MiB": (1, 1024), "open files": (2, 1), "threads": (3, 1)}
    broken = violations(outcome)
    for row, (column, unit) in rows.items():
        early, late = (tenth(outcome, number, column) / unit for number in (2, 10))
        print(f"| {row} | {early:.1f} | {late:.1f} |")
        if late > early * (1 + LARGEST_GROWTH) + (column > 1):
            broken.append(f"{row} grows")
    print("\nBroken rules: " + ("; ".join(broken) or "none"))
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
