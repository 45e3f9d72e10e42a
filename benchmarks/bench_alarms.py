"""Does `edgead bench --compare` find a loop that sleeps 20 ms for each frame, and is it quiet otherwise?

    python benchmarks/bench_alarms.py --runs 10

A bundle with random weights (RD with a Lite0 teacher, 256 pixels) is timed once for the older report, `--runs` times as
it is, and once with a sleep of 20 ms in the loop of the stream. It prints the medians, and ends with exit code 1 if an
honest run raises an alarm, or the sleep raises none.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.random_bundle import write_random_bundle
from edgead.errors import SlowerError
from edgead.imaging.preprocess import ModelSize

SLEEPY = """
import time
from edgead.streaming.judge import Judge

conclude = Judge.conclude

def slow(self, *arguments):
    time.sleep(0.02)
    conclude(self, *arguments)

Judge.conclude = slow
"""
COMMAND = "from edgead.cli.main import main; main()"


def bench(code: str, *arguments: str) -> bool:
    """Run `edgead bench` and return whether it raises an alarm."""
    done = subprocess.run(
        [sys.executable, "-c", code + COMMAND, "bench", *arguments],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode not in (0, SlowerError.exit_code):
        raise SystemExit(done.stderr)
    return done.returncode == SlowerError.exit_code


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        bundle = write_random_bundle(
            Path(folder) / "bundle", "tf_efficientnet_lite0", ModelSize(256, 256)
        ).path
        older, newer = Path(folder) / "older.json", Path(folder) / "newer.json"
        fixed = (str(bundle), "--threads", "1", "--seconds", f"{options.seconds:g}")
        bench("", *fixed, "--out", str(older))
        print("| run | device, ms | e2e, ms | paced, ms | yardstick, ms | alarm |\n|---|---|---|---|---|---|")
        for number in range(-1, options.runs + 1):
            if number < 0:
                name, alarm, file = "older", False, older
            else:
                sleeps = number == options.runs
                name, file = "20 ms more" if sleeps else str(number + 1), newer
                alarm = bench(SLEEPY if sleeps else "", *fixed, "--compare", str(older), "--out", str(newer))
                wrong += alarm != sleeps
            record = json.loads(file.read_text())
            medians = " | ".join(f"{clock['p50_ms']:.1f}" for clock in record["clocks"].values())
            yardstick = sorted(record["yardstick_ms"])[len(record["yardstick_ms"]) // 2]
            print(f"| {name} | {medians} | {yardstick:.2f} | {'yes' if alarm else 'no'} |", flush=True)
    print(f"\n{wrong} wrong of {options.runs + 1}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
