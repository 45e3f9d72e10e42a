import errno
import os
import pickle
import resource
import signal

import pytest
import torch

from edgead.errors import EdgeadError, RunError
from edgead.imaging.preprocess import ModelSize
from edgead.models.base import MethodConfig
from edgead.models.components.teacher import create_teacher
from edgead.models.rd import LOSSES
from edgead.training.checkpoint import (
    Checkpoint,
    load_student,
    read_checkpoint,
    student_state,
    write_checkpoint,
)
from tests.helpers.training_parts import TINY_TEACHER, Template, same_tensors


def checkpoint(values: int = 4) -> Checkpoint:
    return Checkpoint(
        epoch=2,
        images="abc",
        student={"weight": torch.arange(values, dtype=torch.float32)},
        optimizer={"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"betas": (0.5, 0.9)}]},
        scheduler={"last_epoch": 3},
        precision={},
        losses_before=[1.5],
        metrics=[{"epoch": 1, "loss": 0.1}],
    )


def method() -> Template:
    return Template(create_teacher(TINY_TEACHER, "random"), MethodConfig(ModelSize(32, 32), LOSSES[0]))


def test_a_checkpoint_is_read_as_it_was_written(tmp_path):
    written = checkpoint()
    write_checkpoint(tmp_path / "c.pt", written)
    read = read_checkpoint(tmp_path / "c.pt")
    assert read is not None
    assert same_tensors(read.student, written.student)
    assert (read.epoch, read.images, read.scheduler, read.losses_before, read.metrics) == (
        2,
        "abc",
        {"last_epoch": 3},
        [1.5],
        [{"epoch": 1, "loss": 0.1}],
    )
    assert read.optimizer["param_groups"] == [{"betas": (0.5, 0.9)}]
    assert os.listdir(tmp_path) == ["c.pt"]


def test_no_checkpoint(tmp_path):
    assert read_checkpoint(tmp_path / "c.pt") is None


class Code:
    def __reduce__(self):
        return os.getcwd, ()


@pytest.mark.parametrize(
    "content", [b"", b"text", b"\x80\x02c", pickle.dumps(Code())], ids=["empty", "text", "pickle", "code"]
)
def test_another_file_is_refused(tmp_path, content):
    (tmp_path / "c.pt").write_bytes(content)
    with pytest.raises(RunError) as caught:
        read_checkpoint(tmp_path / "c.pt")
    assert str(tmp_path / "c.pt") in caught.value.what


def test_a_checkpoint_of_other_fields_is_refused(tmp_path):
    torch.save({"epoch": 1}, tmp_path / "c.pt")
    with pytest.raises(RunError) as caught:
        read_checkpoint(tmp_path / "c.pt")
    assert str(tmp_path / "c.pt") in caught.value.what


@pytest.mark.parametrize("limit", [100, 20_000])
def test_a_disk_that_takes_no_more_leaves_the_last_checkpoint(tmp_path, limit):
    """The limit on file sizes stands in for a full disk."""
    write_checkpoint(tmp_path / "c.pt", checkpoint())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(EdgeadError) as caught:
            write_checkpoint(tmp_path / "c.pt", checkpoint(values=100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.EFBIG
    assert str(tmp_path / "c.pt") in caught.value.what
    assert os.listdir(tmp_path) == ["c.pt"]
    read = read_checkpoint(tmp_path / "c.pt")
    assert read is not None
    assert len(read.student["weight"]) == 4


def test_an_error_of_torch_that_is_not_the_disks_is_raised_unchanged(tmp_path, monkeypatch):
    bug = RuntimeError("a bug of torch")

    def fail(*_):
        raise bug

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(RuntimeError) as caught:
        write_checkpoint(tmp_path / "c.pt", checkpoint())
    assert caught.value is bug
    assert os.listdir(tmp_path) == []


def test_the_students_tensors_are_put_back_without_the_teachers():
    torch.manual_seed(1)
    one, other = method(), method()
    state = student_state(one)
    assert set(state) == {"templates.0", "templates.1", "templates.2"}
    teacher = {key: value.clone() for key, value in other.teacher.state_dict().items()}

    load_student(other, state)

    assert same_tensors(student_state(other), state)
    assert same_tensors(other.teacher.state_dict(), teacher)


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_students_tensors_that_do_not_fit_are_refused(change):
    state = student_state(method())
    if change == "missing":
        del state["templates.1"]
    elif change == "extra":
        state["templates.3"] = torch.zeros(1)
    else:
        state["templates.1"] = torch.zeros(1)
    with pytest.raises(RuntimeError, match=r"templates\.[13]"):
        load_student(method(), state)
