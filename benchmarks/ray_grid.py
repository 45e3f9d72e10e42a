"""A comparison of 8 trained cells on a Ray cluster that loses a node, beside the same comparison on one machine.

    python benchmarks/ray_grid.py

Two synthetic datasets, one method and four seeds are trained, built and evaluated: first on a cluster of two nodes on
this machine, one of which is killed after the second cell, then without a cluster. It prints the accuracy of all cells
and ends with exit code 1 if one of them differs.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
# Other numbers of threads give other last bits.
os.environ["OMP_NUM_THREADS"] = "1"

import cv2
import numpy as np

from edgead.cluster.job import Job
from edgead.cluster.local import LocalExecutor
from edgead.cluster.place import open_executor
from edgead.comparison.figures import ACCURACY
from edgead.comparison.grid import plan_grid, read_json, state_of
from edgead.comparison.run import run_grid
from tests.helpers.ray_cluster import two_nodes
from tests.helpers.training_parts import TINY_TEACHER, good_parts

OPTIONS = {"epochs": "8", "teacher": TINY_TEACHER, "teacher-weights": "random", "size": "64"}


def write_discs(root: Path, side_px: int) -> Path:
    """Write 16 good discs to train on, 4 to test, and 4 with a chequered square of `side_px`."""
    for number, image in enumerate(good_parts(24)):
        kind = "train/good" if number < 16 else "test/good" if number < 20 else "test/square"
        if number >= 20:
            mask = np.zeros(image.shape[:2], np.uint8)
            mask[16 : 16 + side_px, 2 * number - 28 : 2 * number - 28 + side_px] = 255
            image[mask > 0] = 255 * ((np.argwhere(mask) // 4).sum(axis=1, keepdims=True) % 2)
            (masks := root / "ground_truth" / "square").mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(masks / f"{number:03d}_mask.png"), mask)
        (root / kind).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / kind / f"{number:03d}.png"), image)
    return root


class LosesANode:
    """An executor that loses a node after the second job."""

    def __init__(self, executor: Any, cluster: Any) -> None:
        self._executor, self._cluster = executor, cluster

    def run(self, jobs: Sequence[Job], lock: int | None) -> Iterator[tuple[Job, str | None]]:
        for number, ended in enumerate(self._executor.run(jobs, lock), start=1):
            if number == 2:
                self._cluster.remove_node(self._cluster.other, allow_graceful=False)
            yield ended


def main() -> None:
    logging.basicConfig(level="WARNING", format="%(levelname)s %(message)s")
    logging.getLogger("edgead.cluster.ray_executor").setLevel("INFO")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        data = [write_discs(root / "large", 32), write_discs(root / "small", 12)]
        there, here = (plan_grid(data, ["stfpm"], 4, OPTIONS, root / name) for name in ("there", "here"))
        began = time.monotonic()
        with two_nodes() as cluster, open_executor(f"ray:{cluster.address}") as executor:
            failed = run_grid(there, LosesANode(executor, cluster))
        print(f"cluster with a node lost: {time.monotonic() - began:.0f} s, failed: {failed or 'none'}")
        began = time.monotonic()
        failed |= run_grid(here, LocalExecutor())
        print(f"this machine: {time.monotonic() - began:.0f} s")
        print(f"\n| cell | {' | '.join(ACCURACY)} | equal |\n|{'---|' * 6}")
        differ = bool(failed)
        for cell, other in zip(there.cells, here.cells, strict=True):
            one, two = (
                (read_json(each.folder / "report" / "results.json", dict) or {}).get("evaluation", {})
                for each in (cell, other)
            )
            # A training that collapses is a result, too.
            differ |= one != two or state_of(cell) != state_of(other)
            figures = " | ".join(f"{one.get(name, float('nan')):.4f}" for name in ACCURACY)
            print(f"| {cell}, {state_of(cell)} | {figures} | {'yes' if one == two else 'no'} |")
    sys.exit(differ)


if __name__ == "__main__":
    main()
