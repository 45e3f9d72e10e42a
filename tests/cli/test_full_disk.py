"""Commands that write to a full or read-only disk: one error line, and nothing half-written."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgead.training.run import read_record
from tests.helpers.command_line import TRAIN, files_in, make_world, run_main, the_error
from tests.helpers.stream_parts import verdicts_of


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@dataclass
class SmallDisk:
    """A small disk at `folder`.

    Attributes:
        folder: Root of the disk.
        is_mounted: True for a real disk, False for a limit on the size of each file.
    """

    folder: Path
    is_mounted: bool


def mount(folder: Path, options: str) -> bool:
    """Mount a disk in memory; return False if this process lacks the rights."""
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return not subprocess.run(command, capture_output=True, check=False).returncode


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if mount(folder, "size=32k"):
        yield SmallDisk(folder, True)
        subprocess.run(["umount", str(folder)], check=True)
        return
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**15, before[1]))
    yield SmallDisk(folder, False)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def disk_full(disk: SmallDisk, capfd: pytest.CaptureFixture[str], file: str, *arguments: str) -> set[str]:
    """Run a command that fills the disk while it writes `file`; return the files that it leaves."""
    assert run_main(*arguments) == 1
    error = the_error(capfd.readouterr().err)
    assert f"{disk.folder}/{file}" in error
    # A limit on files has its own message of the system, except when a part of a line was written.
    assert "disk" in error or (not disk.is_mounted and os.strerror(errno.EFBIG) in error)
    return {name for name, content in files_in(disk.folder).items() if content is not None}


def test_a_training_on_a_full_disk_can_be_continued(
    world: Path, small_disk: SmallDisk, capfd: pytest.CaptureFixture[str]
) -> None:
    out = small_disk.folder / "run"
    command = ["train", str(world / "good"), "--out", str(out), *TRAIN]
    assert disk_full(small_disk, capfd, "run/model.safetensors", *command) == {"run/run.json"}
    record = read_record(out)
    assert record is not None
    assert record.state == "training"


def test_a_build_on_a_full_disk_leaves_nothing(
    world: Path, small_disk: SmallDisk, capfd: pytest.CaptureFixture[str]
) -> None:
    out = small_disk.folder / "bundle"
    assert disk_full(small_disk, capfd, "bundle", "build", str(world / "run"), "--out", str(out)) == set()


def test_an_evaluation_on_a_full_disk_leaves_no_half_report(
    world: Path, small_disk: SmallDisk, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["eval", str(world / "bundle"), str(world / "parts"), "--out", str(small_disk.folder / "page")]
    assert disk_full(small_disk, capfd, "page/report.html", *command) == set()


def test_a_stream_on_a_full_disk_leaves_whole_lines(
    world: Path, small_disk: SmallDisk, capfd: pytest.CaptureFixture[str]
) -> None:
    source, sink = "synthetic:washer?size=64&frames=400", f"jsonl:{small_disk.folder}/out.jsonl"
    command = ["stream", str(world / "bundle"), "--source", source, "--sink", sink]
    assert disk_full(small_disk, capfd, "out.jsonl", *command) == {"out.jsonl"}
    text = (small_disk.folder / "out.jsonl").read_text()
    assert text.endswith("\n")
    verdicts = verdicts_of(text)
    assert [verdict["frame_index"] for verdict in verdicts] == list(range(len(verdicts)))
    assert verdicts


@pytest.mark.parametrize("sink", ["rejects:{}/rejects", "video:{}/out.mkv"])
def test_a_stream_on_a_full_disk_leaves_no_half_image(
    world: Path, small_disk: SmallDisk, capfd: pytest.CaptureFixture[str], sink: str
) -> None:
    if not small_disk.is_mounted:
        pytest.skip("needs the right to mount a small disk: a limit on each file does not fill up")
    command = ["stream", str(world / "bundle"), "--source", "synthetic:washer?size=64&frames=400"]
    place = sink.partition("{}/")[2]
    left = disk_full(small_disk, capfd, place, *command, "--sink", sink.format(small_disk.folder))
    images = {name.removesuffix(".png") for name in left if name.endswith(".png")}
    assert left == {f"{name}{suffix}" for name in images for suffix in (".png", "_heat.jpg")}
    assert bool(images) == sink.startswith("rejects")


def test_a_prediction_on_a_full_disk_can_be_continued(
    world: Path, small_disk: SmallDisk, capfd: pytest.CaptureFixture[str]
) -> None:
    if not small_disk.is_mounted:
        pytest.skip("needs the right to mount a small disk: a limit on each file does not fill up")
    out = small_disk.folder / "out"
    command = ["predict", str(world / "bundle"), str(world / "good"), "--save", "map", "--out"]
    left = disk_full(small_disk, capfd, "out/maps", *command, str(out))
    assert {name for name in left if not name.startswith("out/maps/")} == {
        "out/predict.json", "out/predictions.jsonl",
    }  # fmt: skip
    subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk.folder)], check=True)
    assert run_main(*command, str(out)) == 0
    assert run_main(*command, str(world / "results")) == 0
    assert files_in(out) == files_in(world / "results")


@pytest.fixture(scope="module")
def read_only(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("read_only")
    if mount(folder, "ro,size=16k"):
        yield folder
        subprocess.run(["umount", str(folder)], check=True)
        return
    folder.chmod(0o555)
    if os.access(folder, os.W_OK):
        pytest.skip("this user can write to read-only folders, and cannot mount a read-only disk")
    yield folder


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "good", *TRAIN, "--out", "{}/run"],
        ["build", "run", "--out", "{}/bundle"],
        ["eval", "bundle", "parts", "--out", "{}/page"],
        ["predict", "bundle", "good", "--out", "{}/results"],
        ["stream", "bundle", "--source", "good", "--sink", "jsonl:{}/out.jsonl"],
        ["stream", "bundle", "--source", "good", "--sink", "rejects:{}/rejects"],
        ["stream", "bundle", "--source", "good", "--sink", "video:{}/out.mkv"],
    ],
    ids=["train", "build", "eval", "predict", "jsonl", "rejects", "video"],
)
def test_where_nothing_may_be_written(
    world: Path,
    read_only: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
) -> None:
    monkeypatch.chdir(world)
    before = files_in(world)
    assert run_main(*(argument.format(read_only) for argument in arguments)) == 1
    captured = capfd.readouterr()
    error = the_error(captured.err)
    assert str(read_only) in error
    assert ": " in error.removeprefix("error: "), f"no hint: {error}"
    assert captured.out == "", "work was done before the refusal"
    assert files_in(world) == before
    assert list(read_only.iterdir()) == []
