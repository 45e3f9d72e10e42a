"""The losses of a training as TensorBoard itself reads them."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

import edgead
from edgead.errors import MissingExtraError
from edgead.training.fabric import FabricConfig, create_fabric
from tests.helpers.training_parts import TINY_TEACHER, write_images

SMALL = {"teacher": TINY_TEACHER, "teacher_weights": "random", "size": 64, "hold_out": 0.2}


def written(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values of each figure in a folder of events."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    events = EventAccumulator(str(folder)).Reload()
    return {
        name: [(event.step, event.value) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


@pytest.mark.parametrize("method", ["stfpm", "linear"])
def test_tensorboard_reads_the_losses_of_each_epoch(method, tmp_path):
    pytest.importorskip("tensorboard")
    options = {**SMALL, "method": method, **({} if method == "linear" else {"epochs": 10, "batch_size": 4})}
    run = edgead.train(write_images(tmp_path / "parts", 10), tmp_path / "run", tensorboard=True, **options)
    rows = json.loads((run.path / "metrics.json").read_text())
    found = written(run.path / "tensorboard")
    assert set(found) == {"loss", "holdout_loss", "learning_rate"}
    for name, values in found.items():
        assert [step for step, _ in values] == [row["epoch"] for row in rows]
        assert [value for _, value in values] == pytest.approx([row[name] for row in rows], rel=1e-6)


def test_without_its_package_tensorboard_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("edgead.files.packages.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError) as caught:
        create_fabric(FabricConfig(accelerator="cpu", tensorboard=True), None, tmp_path)
    assert "edgead[tensorboard]" in str(caught.value)
    assert not list(tmp_path.iterdir())
