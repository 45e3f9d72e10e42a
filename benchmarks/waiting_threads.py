"""Why `Model.predict` takes longer than ONNX Runtime alone: how its threads wait for each other, in one run.

    python benchmarks/waiting_threads.py

Two threads compute a graph of RD / ResNet18 with random weights at 256 pixels, one image at a time. Four contestants,
processes of their own, take turns of a second:

    predict          `Model.predict`, whose threads spin for 50 us before they sleep
    predict, spin    the same with threads that spin for 20 ms
    alone, 50 us     ONNX Runtime alone with threads that spin for 50 us
    alone            ONNX Runtime alone with its default

A core whose threads sleep may halt, and a virtual machine waits for its host to wake it. So each round is measured
twice: as it is, and with an endless loop of the lowest priority on each core, which keeps it awake. Each figure is the
median of the rounds, and each ratio the median of the ratios of the rounds.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime

sys.path.insert(0, str(Path(__file__).parents[1]))

import edgead
from edgead.imaging.preprocess import ModelSize
from edgead.runtime import onnxruntime as backend
from edgead.runtime.environment import this_environment

THREADS, LONG_US = 2, 20_000
CONTESTANTS = ("predict", "predict, spin", "alone, 50 us", "alone")
TURN_S = 1.0


def contestant(name: str, bundle: Path) -> Callable[[Any], object]:
    """Open the model of a bundle as a contestant does.

    Args:
        name: One of `CONTESTANTS`.
        bundle: Folder of the bundle.

    Returns:
        Function that takes one image (H, W, 3) uint8.
    """
    if name.startswith("predict"):
        if name == "predict, spin":
            backend._SPIN_US = LONG_US
        return edgead.load(bundle, threads=THREADS).predict
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    if name == "alone, 50 us":
        options.add_session_config_entry("session.intra_op.spin_duration_us", "50")
    session = onnxruntime.InferenceSession(bundle / "model.onnx", options, providers=["CPUExecutionProvider"])
    return lambda image: session.run(["anomaly_map", "anomaly_score"], {"images": image[None]})


def work(name: str, bundle: Path, line: Connection) -> None:
    """Say that the model is open, and answer each request with the median time and the CPU time of an image, in ms."""
    score = contestant(name, bundle)
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    score(image)
    line.send(None)
    while line.recv():
        times, cpu_s, end = [], time.process_time(), time.perf_counter() + TURN_S
        while time.perf_counter() < end:
            start = time.perf_counter()
            score(image)
            times.append(1e3 * (time.perf_counter() - start))
        line.send((median(times), 1e3 * (time.process_time() - cpu_s) / len(times)))


def loop(core: int, line: Connection) -> None:
    """Keep a core awake without taking time from another process; say when it begins."""
    os.sched_setaffinity(0, {core})
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    line.send(None)
    while True:
        pass


def measure(bundle: Path, rounds: int) -> dict[bool, dict[str, list[tuple[float, float]]]]:
    """Measure all contestants in turns; the keys are whether the cores are kept awake, and the contestants."""
    # Not forked: a contestant starts without the libraries of the others.
    start = multiprocessing.get_context("spawn")
    cores = sorted(os.sched_getaffinity(0))[:THREADS]
    os.sched_setaffinity(0, cores)
    lines: dict[str, Connection] = {}
    for name in CONTESTANTS:
        lines[name], other = start.Pipe()
        start.Process(target=work, args=(name, bundle, other), daemon=True).start()
        lines[name].recv()
    loops = []
    for core in cores:
        begun, other = start.Pipe()
        loops.append(start.Process(target=loop, args=(core, other), daemon=True))
        loops[-1].start()
        begun.recv()
    found: dict[bool, dict[str, list[tuple[float, float]]]] = {
        awake: {name: [] for name in CONTESTANTS} for awake in (False, True)
    }
    for number in range(rounds):
        for awake in (False, True) if number % 2 else (True, False):
            for process in loops:
                os.kill(process.pid or 0, signal.SIGCONT if awake else signal.SIGSTOP)
            # The scheduler moves the loops to their cores, or away from them.
            time.sleep(0.3)
            for name in CONTESTANTS if number % 4 < 2 else reversed(CONTESTANTS):
                lines[name].send(True)
                found[awake][name].append(lines[name].recv())
    for line in lines.values():
        line.send(False)
    return found


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=12)
    arguments = parser.parse_args()
    # Not by the contestants, which import this file: it imports PyTorch.
    from benchmarks.random_bundle import write_random_bundle

    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        write_random_bundle(bundle, "resnet18", ModelSize(256, 256))
        found = measure(bundle, arguments.rounds)
    print(this_environment(THREADS))
    print(
        "| cores | contestant | ms | of ONNX Runtime alone (least to most) | CPU ms |\n|---|---|---|---|---|"
    )
    for awake, of_all in found.items():
        for name, rows in of_all.items():
            ratios = [row[0] / alone[0] for row, alone in zip(rows, of_all["alone"], strict=True)]
            print(
                f"| {'kept awake' if awake else 'may halt'} | {name} | {median(row[0] for row in rows):.1f} | "
                f"{median(ratios):.3f} ({min(ratios):.2f} to {max(ratios):.2f}) | "
                f"{median(row[1] for row in rows):.1f} |"
            )


if __name__ == "__main__":
    main()
