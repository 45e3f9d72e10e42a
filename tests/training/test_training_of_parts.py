"""The decisions of `edgead train` for several parts together. tests/test_several_parts.py tests all commands."""

import contextlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from edgead.data import LoadedImages
from edgead.errors import CollapseError, RunError
from edgead.models import METHODS
from edgead.models.components.teacher import create_teacher
from edgead.training import finish
from edgead.training.alignment import found_alignment
from edgead.training.features import TeacherFeatures
from edgead.training.images import PartImages
from edgead.training.run import read_record
from edgead.training.sanity import raised_share
from edgead.training.training import train_run
from tests.helpers.training_parts import Template, cpu, tiny_config, write_images
from tests.training.test_alignment import make_images


def part(turned: bool) -> PartImages:
    trained, held_out = (
        LoadedImages(make_images(seed, count, turned).numpy(), (), ()) for seed, count in ((0, 16), (1, 4))
    )
    return PartImages(trained, held_out)


@pytest.mark.parametrize(
    ("turned", "expected"),
    [
        ((False, False), "aligned"),
        ((False, True), "unaligned"),
        ((True, False), "unaligned"),
        ((True, True), "unaligned"),
    ],
)
def test_one_unaligned_part_makes_all_parts_unaligned(turned, expected, caplog):
    torch.manual_seed(0)
    teacher = create_teacher("tf_efficientnet_lite0", "package")
    caplog.set_level("INFO")
    parts = {f"p{number}": part(each) for number, each in enumerate(turned)}
    assert found_alignment(teacher, parts) == expected
    (line,) = caplog.messages
    assert f" {expected} " in line
    assert "p0 0." in line
    assert "p1 0." in line
    assert "--alignment" in line


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "template", Template)
    folders = [write_images(tmp_path / name, 12) for name in ("left", "right")]
    return replace(
        tiny_config(
            folders[0], method="template", teacher="tf_efficientnet_lite0", teacher_weights="package"
        ),
        data=tuple(map(str, folders)),
        epochs=8,
    )


def test_a_model_that_is_blind_to_one_part_is_a_collapse(config, tmp_path, monkeypatch):
    seen: list[np.ndarray] = []

    def blind_to_the_second(session, images, seed):
        seen.append(images)
        return raised_share(session, images, seed) if len(seen) == 1 else 0.25

    monkeypatch.setattr(finish, "raised_share", blind_to_the_second)
    with pytest.raises(CollapseError) as caught:
        train_run(config, tmp_path / "run", cpu())
    assert "25%" in caught.value.what
    assert "images of right" in caught.value.what
    record = read_record(tmp_path / "run")
    assert record is not None
    assert record.summary["raised_share"] == 0.25


def test_other_parts_than_those_of_the_run_are_refused(config, tmp_path):
    train_run(config, tmp_path / "run", cpu())
    left, right = config.data
    for other in ((left,), (right, left)):
        with pytest.raises(RunError) as caught:
            train_run(replace(config, data=other), tmp_path / "run", cpu())
        assert f"data {left} {right}, " in caught.value.what
        assert caught.value.what.endswith(f" {' '.join(other)}")
        assert "--out" in caught.value.hint


def test_equal_parts_have_equal_thresholds(config, tmp_path):
    run = train_run(config, tmp_path / "run", cpu())
    left, right = run.record.parts.values()
    # Both parts have the same images, so they have the same hold-out and the same scores.
    assert left == right
    assert left.train_images == 11
    assert left.threshold is not None


def test_every_part_is_seen_equally_often(config, tmp_path, monkeypatch):
    shown: list[int] = []
    batch = TeacherFeatures.batch

    def watched(features, numbers):
        if features.count == 21:
            shown.extend(numbers.tolist())
        return batch(features, numbers)

    monkeypatch.setattr(TeacherFeatures, "batch", watched)
    folders = [write_images(tmp_path / name, count) for name, count in (("many", 18), ("few", 6))]
    changed = replace(config, data=tuple(map(str, folders)), epochs=1)
    with contextlib.suppress(CollapseError):
        train_run(changed, tmp_path / "run", cpu())
    # The parts have 16 and 5 training images. An epoch is five batches of four, so one of the 21 is dropped.
    epoch = shown[:20]
    assert 9 <= sum(number < 16 for number in epoch) <= 11
