"""Bad input through the whole command line: one line that names it and the mend, and nothing half-written.

Most commands run in this process, for most of their time goes into importing torch; a few run as users start
them, among them the camera, of which OpenCV would speak here, where it was imported before the command line.
Standard error is taken from the file descriptor, where OpenCV and FFmpeg would write too.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree

import pytest
import torch
from brightness_bundle import write_brightness_bundle
from parts_on_disk import SIZE_PX, write_parts
from training_parts import TINY_TEACHER, write_pictures

from edgead.cli.main import main
from edgead.preprocess import ModelSize
from edgead.threshold import Threshold
from edgead.train.run import read_record

TINY = ["--teacher", TINY_TEACHER, "--teacher-weights", "random", "--size", "64", "--epochs", "1"]
TRAIN = ["--accelerator", "cpu", "--batch-size", "4", *TINY]


def run_main(*arguments: str) -> int | str | None:
    """Exit code of the command line in this process; an exception that is no exit goes through."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["edgead", *arguments])
        # What the command line sets for its process.
        patch.setenv("OPENCV_LOG_LEVEL", "SILENT")
        patch.setenv("OPENCV_FFMPEG_LOGLEVEL", "-8")
        try:
            main()
        except SystemExit as end:
            return end.code
        return 0


def files_in(folder: Path) -> dict[str, bytes | None]:
    """Content of every file below a folder; None for a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def the_error(text: str) -> str:
    """The last line of standard error, which must be the only error of it."""
    lines = text.splitlines()
    assert lines, "nothing on standard error"
    assert lines[-1].startswith("error: "), text
    assert sum("error" in line.lower() for line in lines) == 1, text
    assert "Traceback" not in text
    return lines[-1]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what commands may be given, whole and broken."""
    world = tmp_path_factory.mktemp("world")
    write_pictures(world / "good", 4)
    write_pictures(world / "one", 1)
    (world / "empty").mkdir()
    (write_pictures(world / "text") / "002.png").write_text("a note, not a picture\n")
    write_parts(world / "parts")
    copytree(world / "parts", world / "parts_text")
    (world / "parts_text/test/dot/000.png").write_text("a note, not a picture\n")
    (world / "notes.txt").write_text("mine\n")
    (world / "video.mp4").write_text("a note, not a video\n" * 10)
    (world / "text.pt").write_text("a note, not weights\n")
    torch.save({"conv.weight": torch.zeros(3)}, world / "other.pt")

    # So short a training counts as collapsed; what the model can is not the matter here.
    assert run_main("train", str(world / "good"), "--out", str(world / "run"), *TRAIN) == 1
    record = json.loads((world / "run/run.json").read_text())
    (world / "run/run.json").write_text(json.dumps({**record, "state": "finished"}))
    for name, change in {
        "run_unfinished": {"state": "training"},
        "run_other": {"state": "finished", "config": {**record["config"], "teacher": "resnet18"}},
        "run_moved": {"state": "finished", "config": {**record["config"], "data": str(world / "gone")}},
        "run_text": {"state": "finished", "config": {**record["config"], "data": str(world / "text")}},
    }.items():
        copytree(world / "run", world / name)
        (world / name / "run.json").write_text(json.dumps({**record, **change}))
    (world / "text" / record["holdout"][0]).write_text("a note, not a picture\n")
    copytree(world / "run", world / "run_notes")
    (world / "run_notes/model.safetensors").write_text("a note, not weights\n")

    threshold = Threshold(0.2, 0.01, 0.95, 0.95, 299, 299)
    write_brightness_bundle(world / "bundle", ModelSize(SIZE_PX, SIZE_PX), threshold)
    for name in ("bundle_changed", "bundle_newer", "bundle_less"):
        copytree(world / "bundle", world / name)
    model = bytearray((world / "bundle/model.onnx").read_bytes())
    model[len(model) // 2] ^= 1
    (world / "bundle_changed/model.onnx").write_bytes(model)
    manifest = json.loads((world / "bundle/manifest.json").read_text())
    (world / "bundle_newer/manifest.json").write_text(json.dumps({**manifest, "schema": 2, "new": True}))
    (world / "bundle_less/model.onnx").unlink()
    return world


# What is typed, and what the message must say: the file or the value, then the mend.
CASES = {
    "train on a missing folder": ("train missing --out out", "missing is missing", "give a folder"),
    "train on an empty folder": ("train empty --out out", "empty is empty", "put pictures of good parts"),
    "train on a file": ("train notes.txt --out out", "notes.txt is not a folder", "give a folder"),
    "train on text": ("train text --out out", "text/00", "--skip-broken"),
    "train on one picture": ("train one --out out", "/one holds one good picture", "at least 2"),
    "train, size no multiple": ("train good --out out --size 100", "size 100x100", "multiples of 32"),
    "train, size a word": ("train good --out out --size big", "size 'big'", "give 256"),
    "train, unknown method": ("train good --out out --method magic", "method 'magic'", "give --method rd"),
    "train, unknown teacher": ("train good --out out --teacher magic", "teacher 'magic'", "resnet18"),
    "train, unknown layout": ("train good --out out --layout magic", "layout 'magic'", "give auto, mvtec"),
    "train, teacher of another kind": (
        "train good --out out --teacher vit_tiny_patch16_224", "'vit_tiny_patch16_224'", "take a convolutional",
    ),
    "train, missing weights": (
        "train good --out out --teacher-weights gone.pt", "no weights file gone.pt", "an existing FILE",
    ),
    "train, weights of another network": (
        "train good --out out --teacher-weights other.pt", "'other.pt' do not fit", "give the weights of",
    ),
    "train, weights that are text": (
        "train good --out out --teacher-weights text.pt", "text.pt is not a weights file", "give a .safetensors",
    ),
    "train, weights without a package": (
        "train good --out out --teacher-weights package", f"'{TINY_TEACHER}'", "--teacher-weights hub or a FILE",
    ),
    "train to a file": ("train good --out notes.txt", "notes.txt is a file", "choose another path"),
    "train below a file": ("train good --out notes.txt/out", "notes.txt is a file", "choose another path"),
    "train to other things": ("train good --out parts", "--out parts holds files", "choose another directory"),
    "build of a missing run": ("build missing --out out", "no training run in missing", "edgead train wrote"),
    "build of an empty folder": ("build empty --out out", "no training run in empty", "edgead train wrote"),
    "build of an unfinished run": (
        "build run_unfinished --out out", "run_unfinished is unfinished", "run the same edgead train",
    ),
    "build of weights of another network": (
        "build run_other --out out", "run_other/model.safetensors is", "train the run again",
    ),
    "build of weights that are text": (
        "build run_notes --out out", "run_notes/model.safetensors is", "train the run again",
    ),
    "build without the pictures": ("build run_moved --out out", "gone/00", "back as it was, or train again"),
    "build with a picture that is text": ("build run_text --out out", "text/00", "back as it was, or train again"),
    "build, wrong rate": ("build run --out out --false-alarm-rate 7", "not 7", "such as 0.01"),
    "build to a file": ("build run --out notes.txt", "notes.txt is a file", "choose another path"),
    "build below a file": ("build run --out notes.txt/out", "notes.txt is a file", "choose another path"),
    "build to other things": ("build run --out parts", "parts holds files that are no bundle", "choose an empty"),
    "eval of nothing": ("eval missing parts", "missing does not exist", "edgead build wrote"),
    "eval of an empty folder": ("eval empty parts", "empty is neither a run", "edgead build wrote"),
    "eval of a changed byte": ("eval bundle_changed parts", "model.onnx has changed", "copy it again"),
    "eval of a newer schema": ("eval bundle_newer parts", "schema 2 is newer", "install a newer edgead"),
    "eval of weights of another network": ("eval run_other parts", "run_other/model", "train the run again"),
    "eval on a missing folder": ("eval bundle missing", "missing is missing", "give a folder"),
    "eval on an empty folder": ("eval bundle empty", "empty is empty", "put pictures"),
    "eval without test pictures": ("eval bundle good", "no pictures to score: good", "give a dataset"),
    "eval on text": ("eval bundle parts_text", "parts_text/test/dot/000.png", "--skip-broken"),
    "eval, unknown layout": ("eval bundle parts --layout magic", "layout 'magic'", "give auto, mvtec"),
    "eval to a file": ("eval bundle parts --out notes.txt", "notes.txt is a file", "choose another path"),
    "eval below a file": ("eval bundle parts --out notes.txt/x", "notes.txt is a file", "choose another path"),
    "stream of nothing": ("stream missing --source good", "missing does not exist", "edgead build' wrote"),
    "stream of a run": ("stream run --source good", "run has no manifest.json", "edgead build' wrote"),
    "stream of a changed byte": ("stream bundle_changed --source good", "model.onnx has changed", "copy it again"),
    "stream of a newer schema": ("stream bundle_newer --source good", "schema 2 is newer", "install a newer edgead"),
    "stream without a model": ("stream bundle_less --source good", "model.onnx is missing", "copy it again"),
    "stream of a missing file": ("stream bundle --source gone.mp4", "'gone.mp4' is not there", "give a camera"),
    "stream of a video that is text": ("stream bundle --source video.mp4", "video.mp4 is not a video", "give a video"),
    "stream of an empty folder": ("stream bundle --source empty", "empty holds no picture", "--watch"),
    "stream of text": ("stream bundle --source text", "text/00", "remove it or save it as PNG"),
    "stream, unknown source": ("stream bundle --source ftp://host/x", "'ftp://host/x'", "rtsp://..., http://"),
    "stream, unknown part": ("stream bundle --source synthetic:magic", "synthetic:magic", "the kinds are washer"),
    "stream, no network camera": (
        "stream bundle --source rtsp://me:secret@127.0.0.1:9/a", "rtsp://***@127.0.0.1:9/a", "check the address",
    ),
    "stream, unknown sink": ("stream bundle --source good --sink csv:out", "sink 'csv:out'", "give jsonl:FILE"),
    "stream to a missing folder": (
        "stream bundle --source good --sink jsonl:gone/out", "gone/out: No such file", "check the path",
    ),
    "stream to a file for a folder": (
        "stream bundle --source good --sink rejects:notes.txt", "notes.txt: it is a file", "give rejects: a folder",
    ),
    "stream to a video nowhere": (
        "stream bundle --source good --sink video:gone/out.mkv", "gone/out.mkv", "make it first",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("line", "named", "mend"), list(CASES.values()), ids=CASES)
def test_one_line_names_it_and_the_mend(
    world: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    line: str,
    named: str,
    mend: str,
) -> None:
    monkeypatch.chdir(world)
    before = files_in(world)
    command, *rest = line.split()
    # An option that is given twice has its last value.
    code = run_main(command, *(rest[:1] + TRAIN + rest[1:] if command == "train" else rest))
    error = the_error(capfd.readouterr().err)
    assert code == 1
    assert named in error
    assert mend in error
    assert "secret" not in error
    assert files_in(world) == before


NO_HUB = ["train", "good", "--out", "out", "--teacher", "resnet18", "--teacher-weights", "hub"]


@pytest.mark.parametrize(
    ("arguments", "named", "mend"),
    [
        (NO_HUB, "'resnet18' cannot be fetched from the model hub", "check the network"),
        (["build", "empty", "--out", "out"], "no training run in empty", "edgead train wrote"),
        (["eval", "bundle_changed", "parts"], "model.onnx has changed", "copy it again"),
        (["stream", "bundle", "--source", "9"], "no camera at camera:9", "edgead doctor"),
    ],
    ids=["train", "build", "eval", "stream"],
)
def test_as_users_start_it(world: Path, tmp_path: Path, arguments: list[str], named: str, mend: str) -> None:
    before = files_in(world)
    done = subprocess.run(
        [sys.executable, "-m", "edgead", *arguments],
        cwd=world,
        # Where nothing answers, whatever network this machine has.
        env={**os.environ, "HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1
    error = the_error(done.stderr)
    assert named in error
    assert mend in error
    assert files_in(world) == before


@dataclass
class SmallDisk:
    """A disk that is soon full, at `folder`. is_mounted: it is a real one, and not a limit on each file."""

    folder: Path
    is_mounted: bool

    @property
    def words(self) -> str:
        return "disk full while writing" if self.is_mounted else "cannot write"


def mount(folder: Path, options: str) -> bool:
    """Mount a disk in memory; False where that needs rights that this process has not."""
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
    """Run a command that fills the disk, which it must say of `file`; return the files that it leaves."""
    assert run_main(*arguments) == 1
    error = the_error(capfd.readouterr().err)
    assert f"{disk.words} {disk.folder}/{file}" in error
    assert "free some space" in error or not disk.is_mounted
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
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["frame_index"] for line in lines] == list(range(len(lines)))
    assert lines


@pytest.mark.parametrize("sink", ["rejects:{}/rejects", "video:{}/out.mkv"])
def test_a_stream_on_a_full_disk_leaves_no_half_picture(
    world: Path, small_disk: SmallDisk, capfd: pytest.CaptureFixture[str], sink: str
) -> None:
    if not small_disk.is_mounted:
        pytest.skip("needs the right to mount a small disk: only whole disks are full here, not files")
    command = ["stream", str(world / "bundle"), "--source", "synthetic:washer?size=64&frames=400"]
    place = sink.partition("{}/")[2]
    left = disk_full(small_disk, capfd, place, *command, "--sink", sink.format(small_disk.folder))
    pictures = {name.removesuffix(".png") for name in left if name.endswith(".png")}
    assert left == {f"{name}{suffix}" for name in pictures for suffix in (".png", "_heat.jpg")}
    assert bool(pictures) == sink.startswith("rejects")


@pytest.fixture(scope="module")
def read_only(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("read_only")
    if mount(folder, "ro,size=16k"):
        yield folder
        subprocess.run(["umount", str(folder)], check=True)
        return
    folder.chmod(0o555)
    if os.access(folder, os.W_OK):
        pytest.skip("no folder is read-only for this user, and no disk can be mounted so")
    yield folder


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "good", *TRAIN, "--out", "{}/run"],
        ["build", "run", "--out", "{}/bundle"],
        ["eval", "bundle", "parts", "--out", "{}/page"],
        ["stream", "bundle", "--source", "good", "--sink", "jsonl:{}/out.jsonl"],
        ["stream", "bundle", "--source", "good", "--sink", "rejects:{}/rejects"],
        ["stream", "bundle", "--source", "good", "--sink", "video:{}/out.mkv"],
    ],
    ids=["train", "build", "eval", "jsonl", "rejects", "video"],
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
    assert "cannot write" in error
    assert str(read_only) in error
    assert "rights" in error
    assert captured.out == "", "work was done before the refusal"
    assert files_in(world) == before
    assert list(read_only.iterdir()) == []
