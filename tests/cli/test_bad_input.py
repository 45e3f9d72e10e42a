"""Bad input through the whole command line: one line that names it and the hint, and nothing half-written.

Most commands run in this process, for most of their time goes into importing torch; a few run as users start
them, among them the camera, of which OpenCV would speak here, where it was imported before the command line.
Standard error is taken from the file descriptor, where OpenCV and FFmpeg would write too.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.command_line import TRAIN, files_in, make_world, run_main, the_error
from tests.helpers.training_parts import TINY_TEACHER


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


# What is typed, and what the message must say: the file or the value, then the hint.
CASES = {
    "train on a missing folder": ("train missing --out out", "missing is missing", "give a folder"),
    "train on an empty folder": ("train empty --out out", "empty is empty", "put images of good parts"),
    "train on a file": ("train notes.txt --out out", "notes.txt is not a folder", "give a folder"),
    "train on text": ("train text --out out", "text/00", "--skip-broken"),
    "train on one image": ("train one --out out", "/one holds one good image", "at least 2"),
    "train, size no multiple": ("train good --out out --size 100", "size 100x100", "multiples of 32"),
    "train, size a word": ("train good --out out --size big", "size 'big'", "give 256"),
    "train, unknown teacher": ("train good --out out --teacher magic", "teacher 'magic'", "resnet18"),
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
    "build without the images": ("build run_moved --out out", "gone/00", "back as it was, or train again"),
    "build with an image that is text": ("build run_text --out out", "text/00", "back as it was, or train again"),
    "build, wrong rate": ("build run --out out --false-alarm-rate 7", "not 7", "such as 0.01"),
    "build to a file": ("build run --out notes.txt", "notes.txt is a file", "choose another path"),
    "build below a file": ("build run --out notes.txt/out", "notes.txt is a file", "choose another path"),
    "build to other things": ("build run --out parts", "parts holds files that are no bundle", "choose an empty"),
    "eval of nothing": ("eval missing parts", "missing does not exist", "edgead build wrote"),
    "eval of an empty folder": ("eval empty parts", "empty is neither a run", "edgead build wrote"),
    "eval of a changed byte": ("eval bundle_changed parts", "model.onnx has changed", "copy it again"),
    "eval of a newer schema": ("eval bundle_newer parts", "is newer than the", "install a newer edgead"),
    "eval of weights of another network": ("eval run_other parts", "run_other/model", "train the run again"),
    "eval on a missing folder": ("eval bundle missing", "missing is missing", "give a folder"),
    "eval on an empty folder": ("eval bundle empty", "empty is empty", "put images"),
    "eval without test images": ("eval bundle good", "no images to score: good", "give a dataset"),
    "eval on text": ("eval bundle parts_text", "parts_text/test/dot/000.png", "--skip-broken"),
    "eval to a file": ("eval bundle parts --out notes.txt", "notes.txt is a file", "choose another path"),
    "eval below a file": ("eval bundle parts --out notes.txt/x", "notes.txt is a file", "choose another path"),
    "stream of nothing": ("stream missing --source good", "missing does not exist", "edgead build' wrote"),
    "stream of a run": ("stream run --source good", "run has no manifest.json", "edgead build' wrote"),
    "stream of a changed byte": ("stream bundle_changed --source good", "model.onnx has changed", "copy it again"),
    "stream of a newer schema": ("stream bundle_newer --source good", "is newer than the", "install a newer edgead"),
    "stream without a model": ("stream bundle_less --source good", "model.onnx is missing", "copy it again"),
    "stream of a missing file": ("stream bundle --source gone.mp4", "'gone.mp4' is not there", "give a camera"),
    "stream of a video that is text": ("stream bundle --source video.mp4", "video.mp4 is not a video", "give a video"),
    "stream of an empty folder": ("stream bundle --source empty", "empty holds no image", "--watch"),
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


@pytest.mark.parametrize(("line", "named", "hint"), list(CASES.values()), ids=CASES)
def test_one_line_names_it_and_the_hint(
    world: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    line: str,
    named: str,
    hint: str,
) -> None:
    monkeypatch.chdir(world)
    before = files_in(world)
    command, *rest = line.split()
    # An option that is given twice has its last value.
    code = run_main(command, *(rest[:1] + TRAIN + rest[1:] if command == "train" else rest))
    error = the_error(capfd.readouterr().err)
    assert code == 1
    assert named in error
    assert hint in error
    assert "secret" not in error
    assert files_in(world) == before


NO_HUB = ["train", "good", "--out", "out", "--teacher", "resnet18", "--teacher-weights", "hub"]


@pytest.mark.parametrize(
    ("arguments", "named", "hint"),
    [
        (NO_HUB, "'resnet18' cannot be fetched from the model hub", "check the network"),
        (["build", "empty", "--out", "out"], "no training run in empty", "edgead train wrote"),
        (["eval", "bundle_changed", "parts"], "model.onnx has changed", "copy it again"),
        (["stream", "bundle", "--source", "9"], "no camera at camera:9", "edgead doctor"),
    ],
    ids=["train", "build", "eval", "stream"],
)
def test_as_users_start_it(world: Path, tmp_path: Path, arguments: list[str], named: str, hint: str) -> None:
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
    assert hint in error
    assert files_in(world) == before
