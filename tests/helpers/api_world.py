"""Working directory for the examples of `docs/api.md`, and a training that is small enough for a test."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path

from edgead.data.synthetic.dataset import write_dataset
from edgead.training.config import TrainConfig
from edgead.training.run import Run
from tests.helpers.training_parts import TINY_TEACHER

SMALL = {
    "teacher": TINY_TEACHER,
    "teacher_weights": "random",
    "size": "64",
    "epochs": 12,
    "batch_size": 4,
    "training_precision": "32-true",
}


def write_world(root: Path) -> Path:
    """Write `my-parts`, `other-parts`, `part.png` (a defect) and `frames`, a folder of images; return the folder."""
    for name, seed in (("my-parts", 0), ("other-parts", 1)):
        write_dataset(root / name, "washer", 24, 4, 5, seed=seed, size_px=64)
    defect = next(folder for folder in sorted((root / "my-parts/test").iterdir()) if folder.name != "good")
    shutil.copy(defect / "000.png", root / "part.png")
    shutil.copytree(root / "my-parts/test/good", root / "frames")
    return root


def smaller(train_run: Callable[..., Run]) -> Callable[..., Run]:
    """Wrap `train_run` so that it trains with a small teacher on small images for a few epochs."""

    @wraps(train_run)
    def train(config: TrainConfig, *others: object) -> Run:
        return train_run(replace(config, **SMALL), *others)

    return train
