"""The training of a method in several stages."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from edgead.errors import TrainingError
from edgead.files.progress import TrainingState
from edgead.imaging.preprocess import ModelSize
from edgead.models.base import MethodConfig
from edgead.models.components.teacher import create_teacher
from edgead.models.rd import LOSSES
from edgead.training.checkpoint import read_checkpoint
from edgead.training.loop import Fitted, Trainer, TrainingImages
from edgead.training.loss_plot import draw_loss_curve
from edgead.training.schedule import stage_ends
from tests.helpers.training_parts import (
    TINY_TEACHER,
    Staged,
    cpu,
    good_parts,
    same_tensors,
    tiny_config,
    watched,
)

IMAGES = torch.from_numpy(good_parts(12))
TRAIN, HOLDOUT = IMAGES[:10], IMAGES[10:]


def staged() -> Staged:
    torch.manual_seed(0)
    return Staged(create_teacher(TINY_TEACHER, "random"), MethodConfig(ModelSize(64, 64), LOSSES[0]))


def run(tmp_path: Path, epochs: int = 4, progress=None, checkpoint=None) -> tuple[Staged, Fitted]:
    method = staged()
    config = tiny_config(tmp_path, epochs=epochs, learning_rate=0.05)
    images = TrainingImages(TRAIN, HOLDOUT)
    trainer = Trainer(cpu(), method, config.schedule, images, tmp_path / "c.pt", checkpoint_every_s=0.0)
    with watched(progress):
        return method, trainer.fit(checkpoint)


def states_by_epoch(tmp_path: Path) -> list[dict[str, torch.Tensor]]:
    """Return the student's tensors after each of four epochs."""
    states = []
    for epoch in (1, 2, 3):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, epochs=4, progress=partial(stop_in, epoch))
        checkpoint = read_checkpoint(tmp_path / "c.pt")
        assert checkpoint is not None
        states.append(checkpoint.student)
    return [*states, run(tmp_path)[0].state_dict()]


def stop_in(epoch: int, state: TrainingState) -> None:
    if state.epoch == epoch:
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("shares", "epochs", "ends"),
    [
        ((1.0,), 7, [7]),
        ((0.5, 0.5), 4, [2, 4]),
        ((0.4, 0.6), 500, [200, 500]),
        ((0.9, 0.1), 3, [2, 3]),
        ((0.01, 0.98, 0.01), 3, [1, 2, 3]),
        ((0.01, 0.01, 0.98), 10, [1, 2, 10]),
    ],
)
def test_the_epochs_are_divided_by_the_shares(shares, epochs, ends):
    assert stage_ends(shares, epochs) == ends


def test_fewer_epochs_than_stages_are_refused(tmp_path):
    with pytest.raises(TrainingError) as caught:
        run(tmp_path, epochs=1)
    assert "--epochs 1 " in caught.value.what
    assert "--epochs 2 " in caught.value.hint


def test_each_stage_trains_its_own_parameters(tmp_path):
    first, second, third, last = states_by_epoch(tmp_path)
    before = staged().state_dict()

    def changed(one, other):
        return {
            key.split(".")[0]
            for key in one
            if not key.startswith(("teacher.", "noted")) and not torch.equal(one[key], other[key])
        }

    assert changed(first, before) == {"templates"}
    assert changed(second, first) == {"templates"}
    assert changed(third, second) == {"scales"}
    assert changed(last, third) == {"scales"}


def test_each_stage_has_its_own_schedule_and_loss_before(tmp_path):
    method, fitted = run(tmp_path, epochs=20)
    assert [row["stage"] for row in fitted.metrics] == [0] * 10 + [1] * 10
    assert [row["epoch"] for row in fitted.metrics] == list(range(1, 21))
    for rows in (fitted.metrics[:10], fitted.metrics[10:]):
        rates = [row["learning_rate"] for row in rows]
        assert max(rates) == pytest.approx(0.05, rel=0.1)
        assert rates[0] < 0.02
        assert rates[-1] < 1e-3
    assert len(fitted.losses_before) == 2
    # The second stage begins with the student of the first stage.
    assert fitted.losses_before[1] == pytest.approx(fitted.metrics[9]["holdout_loss"], rel=1e-6)
    assert not method.training


def test_the_end_of_a_stage_gets_every_training_image_once(tmp_path):
    method, _ = run(tmp_path)
    with torch.no_grad():
        features = method.teacher_features(TRAIN)
    expected = [len(TRAIN), int(TRAIN.sum()), sum(float(x.double().sum()) for x in features)]
    np.testing.assert_allclose(method.noted.numpy(), [expected, expected], rtol=1e-5)


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_continued_training_is_bitwise_the_uninterrupted_one(tmp_path, epoch):
    whole, fitted_whole = run(tmp_path)
    (tmp_path / "c.pt").unlink()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, progress=partial(stop_in, epoch))
    checkpoint = read_checkpoint(tmp_path / "c.pt")
    assert checkpoint is not None
    assert checkpoint.epoch == epoch

    continued, fitted = run(tmp_path, checkpoint=checkpoint)

    assert same_tensors(continued.state_dict(), whole.state_dict())
    assert fitted.losses_before == fitted_whole.losses_before
    assert [row["loss"] for row in fitted.metrics] == [row["loss"] for row in fitted_whole.metrics]


def test_no_line_of_the_curve_connects_two_stages(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    saved = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (saved.append(self), save(self, *a, **k)))
    _, fitted = run(tmp_path)
    draw_loss_curve(fitted.metrics, tmp_path / "loss.png")
    axes = saved[0].axes[0]
    lines = [list(line.get_xdata()) for line in axes.lines]
    assert lines == [[1, 2], [1, 2], [3, 4], [3, 4], [2.5, 2.5]]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "training images",
        "held-out good images",
    ]


@pytest.mark.parametrize("epochs", [1, 2, 50])
def test_the_marks_of_the_curve_are_whole_epochs(tmp_path, monkeypatch, epochs):
    from matplotlib.figure import Figure

    marks = []
    save = Figure.savefig

    def marked_save(self, *args, **options):
        save(self, *args, **options)
        low, high = self.axes[0].get_xlim()
        marks.extend(mark for mark in self.axes[0].get_xticks() if low <= mark <= high)

    monkeypatch.setattr(Figure, "savefig", marked_save)
    rows = [{"epoch": epoch, "stage": 1, "loss": 0.1, "holdout_loss": 0.2} for epoch in range(1, epochs + 1)]
    draw_loss_curve(rows, tmp_path / "loss.png")
    assert marks
    assert all(mark == int(mark) and 1 <= mark <= epochs for mark in marks)
