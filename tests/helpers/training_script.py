"""Train a tiny run, a checkpoint after every epoch, and stand still where asked, so that a test can kill it there."""

from __future__ import annotations

import logging
import os
import sys
import time
from functools import partial
from pathlib import Path

import edgead.files.atomic
import edgead.training.training as training
from edgead.errors import CollapseError
from edgead.files.progress import TrainingState
from tests.helpers.training_parts import cpu, tiny_config, watched


def train_and_stand_still(data: Path, out: Path, epochs: int, stop: str) -> None:
    """Train in a process of its own, which this changes.

    Args:
        data: Folder of good images.
        out: Run directory.
        epochs: Number of epochs.
        stop: `never`, `batch EPOCH.BATCH` or `rename FILE TIMES`; there it prints "standing still" and waits.
    """
    at = stop.split()
    renamed: list[str] = []
    rename = os.replace

    def stand_still() -> None:
        print("standing still", flush=True)
        time.sleep(600)

    def watched_rename(source: Path, target: Path) -> None:
        if at == ["rename", target.name, str(renamed.count(target.name))]:
            stand_still()
        renamed.append(target.name)
        rename(source, target)

    def watch(state: TrainingState) -> None:
        if at == ["batch", f"{state.epoch}.{round(state.share)}"]:
            stand_still()

    logging.basicConfig(level="INFO", format="%(message)s", stream=sys.stdout)
    edgead.files.atomic.os.replace = watched_rename  # type: ignore[assignment]
    training.Trainer = partial(training.Trainer, checkpoint_every_s=0.0)  # type: ignore[assignment, misc]
    try:
        with watched(watch):
            training.train_run(tiny_config(data, epochs=epochs), out, cpu())
    except CollapseError as error:
        # Such a short training may well count as collapsed; its weights are what the test is after.
        print(error)
