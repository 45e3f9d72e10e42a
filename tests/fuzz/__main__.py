"""The command `python -m tests.fuzz`; it exits with 1 if a case fails."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]


def fuzz(
    target: str, seed: int, seconds: float, first: int = 0, most: int = 10**9
) -> tuple[int, dict[str, tuple[int, str]]]:
    """Run the cases of a target in processes of their own.

    Returns:
        The number of cases, and for each kind of failure its first case and the details.
    """
    failures: dict[str, tuple[int, str]] = {}
    end, number = time.monotonic() + seconds, first
    while number < first + most and (time.monotonic() < end or number == first):
        left = [
            str(value) for value in (seed, number, max(end - time.monotonic(), 0.0), first + most - number)
        ]
        worker = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.worker", target, *left],
            cwd=ROOT,
            # As the command line sets it.
            env={**os.environ, "OPENCV_LOG_LEVEL": "SILENT"},
            capture_output=True,
            text=True,
            errors="backslashreplace",
            check=False,
        )
        lines = [json.loads(line) for line in worker.stdout.splitlines()]
        for line in lines:
            if "failed" in line:
                failures.setdefault(line["kind"], (line["failed"], line["details"]))
        last = lines[-1] if lines else {}
        if "done" in last:
            number = last["done"]
            break
        said = worker.stderr.strip()
        if not lines:
            raise RuntimeError(f"the worker of {target} did not start: {said[-2000:]}")
        died = max(line.get("started", -1) for line in lines)
        how = "a hang" if "Timeout (" in said else f"the process died ({worker.returncode})"
        failures.setdefault(how, (died, said[-1000:]))
        number = died + 1
    return number - first, failures


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="time for all targets together")
    parser.add_argument("--target", choices=TARGETS, help="one target; all by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="run one case again; needs --target")
    options = parser.parse_args()
    names = [options.target] if options.target else list(TARGETS)
    bad = 0
    for name in names:
        if options.case is not None:
            cases, failures = fuzz(name, options.seed, 0.0, options.case, 1)
        else:
            cases, failures = fuzz(name, options.seed, options.seconds / len(names))
        print(f"{name:16} {cases:7} cases  {len(failures)} failures", flush=True)
        for kind, (number, details) in failures.items():
            print(f"  --target {name} --seed {options.seed} --case {number}: {kind}: {details}", flush=True)
        bad += len(failures)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
