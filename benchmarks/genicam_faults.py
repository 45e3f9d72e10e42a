"""Faults of a GigE Vision camera: what a line sees, and how fast it recovers.

    python benchmarks/genicam_faults.py [--at-once 8] [--rounds 4]

The camera is the fake one of Aravis at 25 images a second. It is stopped for 5 to 10 seconds (SIGSTOP), and killed and
started again after 6 seconds; the times of the stream are those of the product. Many tries at once load the machine, as
a line does that has other work; each has a network of its own, because the camera listens on one fixed port. Needs root
for these networks (`unshare --net`), and `apt-get install aravis-tools gir1.2-aravis-0.8 python3-gi`.

The table has, over all tries, the time from the fault to NO_SIGNAL, from its end to the next verdict (median and
longest), and the largest age of an image with a verdict.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from edgead.runtime import FakeSession
from edgead.streaming import StreamPolicy, open_source, stream
from edgead.streaming.sources import open_when_there
from edgead.types import Float32Array, Frame, Verdict
from tests.helpers.fake_genicam_camera import SERIAL, fake_camera
from tests.helpers.stream_parts import SIZE, StateRecord

SOURCE = f"genicam://{SERIAL}?format=Mono8&width=320&height=240&fps=25&trigger=off"
MAX_AGE_S = 1.0
LONGEST_S = 60.0
IN_ITS_NETWORK = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")


class Times(StateRecord):
    """Times of the verdicts, their ages, and the changes of the state."""

    def __init__(self) -> None:
        super().__init__()
        self.verdict_times_s: list[float] = []
        self.ages_ms: list[float] = []

    def write(self, frame: Frame, verdict: Verdict, anomaly_map: Float32Array | None) -> None:
        self.verdict_times_s.append(time.monotonic())
        if verdict.age_ms is not None:
            self.ages_ms.append(verdict.age_ms)
        super().write(frame, verdict, anomaly_map)

    def more(self, count: int) -> None:
        target = len(self.verdict_times_s) + count
        wait_for(lambda: len(self.verdict_times_s) >= target)


def wait_for(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + LONGEST_S
    while not condition():
        if time.monotonic() > end_s:
            raise TimeoutError("waited in vain")
        time.sleep(0.005)


def fault(times: Times, begin: Callable[[], None], length_s: float, end: Callable[[], None]) -> list[float]:
    """Return the seconds from the fault to NO_SIGNAL, and from its end to the next verdict."""
    losses = times.states.count("no_signal")
    begun_s = time.monotonic()
    begin()
    wait_for(lambda: times.states.count("no_signal") > losses)
    seen_s = time.monotonic() - begun_s
    time.sleep(max(0.0, begun_s + length_s - time.monotonic()))
    ended_s = time.monotonic()
    end()
    wait_for(lambda: times.verdict_times_s[-1] > ended_s)
    recovery_s = next(time_s for time_s in times.verdict_times_s if time_s > ended_s) - ended_s
    times.more(25)
    return [seen_s, recovery_s]


def one_try(seed: int) -> None:
    """Run both faults and print their times as JSON."""
    logging.disable(logging.WARNING)
    rng, times, stop = random.Random(seed), Times(), threading.Event()
    with ExitStack() as cameras:
        camera = cameras.enter_context(fake_camera())
        source = open_when_there(lambda: open_source(SOURCE), LONGEST_S, threading.Event())
        assert source is not None

        def run() -> None:
            policy = StreamPolicy(max_age_s=MAX_AGE_S)
            with source:
                stream(FakeSession(SIZE), source, [times], size=SIZE, threshold=2.0, policy=policy, stop=stop)

        def kill() -> None:
            camera.kill()
            camera.wait()

        thread = threading.Thread(target=run)
        thread.start()
        try:
            times.more(50)
            stopped = fault(
                times,
                lambda: os.kill(camera.pid, signal.SIGSTOP),
                rng.uniform(5, 10),
                lambda: os.kill(camera.pid, signal.SIGCONT),
            )
            killed = fault(times, kill, 6, lambda: cameras.enter_context(fake_camera()) and None)
        finally:
            stop.set()
            thread.join(30)
    print(json.dumps({"stopped": stopped, "killed": killed, "age_ms": max(times.ages_ms)}))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--at-once", type=int, default=8, help="number of tries at once")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.seed is not None:
        one_try(options.seed)
        return
    results = []
    for round_ in range(options.rounds):
        tries = [
            subprocess.Popen(
                [*IN_ITS_NETWORK, sys.executable, __file__, "--seed", str(round_ * options.at_once + number)],
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(options.at_once)
        ]
        # A try that failed prints nothing, which is an error here.
        results += [json.loads(each.communicate()[0]) for each in tries]
    print(f"{len(results)} tries, {options.at_once} at once, load {os.getloadavg()[0]:.0f}\n")
    print("| fault | NO_SIGNAL after, s | recovery: median, s | longest, s |\n|---|---|---|---|")
    for name in ("stopped", "killed"):
        seen, recovery = zip(*(each[name] for each in results), strict=True)
        print(f"| {name} | {max(seen):.1f} | {statistics.median(recovery):.1f} | {max(recovery):.1f} |")
    print(f"\noldest image with a verdict: {max(each['age_ms'] for each in results):.0f} ms")


if __name__ == "__main__":
    main()
