"""Updates that are killed at random moments: nothing is lost, and the same command ends with the same weights.

    OMP_NUM_THREADS=1 python benchmarks/killed_update.py --kills 12

A small model is trained on images of synthetic washers, brighter ones are added, and `edgead train --from` goes on with
the run as a process of its own, first without interruption. Then it is started again and again for another directory,
and killed with SIGKILL at moments that a seed spreads over its duration. After each kill the old run must have the same
bytes; the same command is then run to its end, and must give the same weights and threshold as without interruption.
The results are printed as a table.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import torch
from safetensors.torch import load_file

from edgead.training.checkpoint import read_checkpoint

SIZE_PX, OLD_IMAGES, NEW_IMAGES = 64, 24, 8
TINY = ["--teacher", "test_efficientnet", "--teacher-weights", "random", "--size", str(SIZE_PX)]


def write_images(folder: Path, count: int, first: int, gain: float) -> None:
    """Write images of washers of slightly varied place and shade.

    Args:
        folder: Folder to write.
        count: Number of images.
        first: Number of the first one.
        gain: Factor of the brightness.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows, columns = np.mgrid[:SIZE_PX, :SIZE_PX] / SIZE_PX - 0.5
    for number in range(first, first + count):
        rng = np.random.default_rng(number)
        y, x = rng.uniform(-0.04, 0.04, 2)
        distance = np.hypot(rows - y, columns - x)
        ring = np.where((distance < 0.36) & (distance > 0.14), rng.uniform(130, 160), 60.0) * gain
        noisy = np.clip(ring[..., None] + rng.normal(0, 1, (SIZE_PX, SIZE_PX, 3)), 0, 255)
        assert cv2.imwrite(str(folder / f"{number:03d}.png"), noisy.astype(np.uint8))


def content(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all files in a folder."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def outcome(out: Path) -> tuple[dict[str, torch.Tensor], object]:
    """Return the weights and the entries of the parts of a finished run."""
    record = json.loads((out / "run.json").read_text())
    assert record["state"] == "finished", record["state"]
    return load_file(out / "model.safetensors"), record["parts"]


def state(out: Path) -> str:
    """Describe what a killed command left."""
    if not (out / "run.json").exists():
        return "no run"
    checkpoint = read_checkpoint(out / "checkpoint.pt")
    found = json.loads((out / "run.json").read_text())["state"]
    return found + (f", checkpoint of epoch {checkpoint.epoch}" if checkpoint else ", no checkpoint")


def main() -> None:
    """Kill updates, and print what was left and whether the weights are the same."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--method", default="stfpm")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        root = Path(folder)
        data, old = root / "washer", root / "old"
        command = [sys.executable, "-m", "edgead", "train", str(data), "--accelerator", "cpu", "--out"]
        epochs = [] if arguments.method == "linear" else ["--epochs", str(arguments.epochs)]
        write_images(data, OLD_IMAGES, 0, 1.0)
        first = [*command, str(old), *TINY, "--method", arguments.method, *epochs]
        subprocess.run(first, check=True, capture_output=True)
        before = content(old)
        write_images(data, NEW_IMAGES, OLD_IMAGES, 1.3)
        update = ["--from", str(old), *epochs]
        started_at = time.monotonic()
        subprocess.run([*command, str(root / "whole"), *update], check=True, capture_output=True)
        duration = time.monotonic() - started_at
        weights, parts = outcome(root / "whole")
        print(f"{arguments.method}, {duration:.1f} s without interruption\n")
        print("| killed after, s | left | old run | weights |\n|---|---|---|---|")
        rng = random.Random(arguments.seed)
        for number in range(arguments.kills):
            # Spread over the duration, and the first third is the start of Python.
            share = 0.3 + 0.7 * (number + rng.random()) / arguments.kills
            out = root / f"killed{number}"
            process = subprocess.Popen(
                [*command, str(out), *update], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            try:
                process.wait(share * duration)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
            left = state(out)
            assert content(old) == before, "the old run is changed"
            subprocess.run([*command, str(out), *update], check=True, capture_output=True)
            assert content(old) == before, "the old run is changed"
            found, found_parts = outcome(out)
            same = found.keys() == weights.keys() and all(
                torch.equal(found[key], weights[key]) for key in weights
            )
            assert same, "the weights differ"
            assert found_parts == parts, "the threshold differs"
            print(f"| {share * duration:.1f} | {left} | same | same |", flush=True)


if __name__ == "__main__":
    main()
