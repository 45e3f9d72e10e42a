"""Bad input through the whole command line: one line with the value and the hint, and nothing half-written.

Most commands run in this process, because the import of torch takes most of their time. A few run as users start them,
among them the camera: OpenCV would print its own messages here, because it was imported before the command line.
Standard error is read from the file descriptor, to which OpenCV and FFmpeg would also write.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgead.bundle import SCHEMA
from tests.helpers.command_line import TRAIN, files_in, make_world, run_main, the_error
from tests.helpers.training_parts import TINY_TEACHER


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


# The command line, and the values that the message must have: the file or option concerned, and what to type.
CASES: dict[str, tuple[str, ...]] = {
    "train on a missing folder": ("train missing --out out", "missing"),
    "train on an empty folder": ("train empty --out out", "empty"),
    "train on a file": ("train notes.txt --out out", "notes.txt"),
    "train on text": ("train text --out out", "text/00", "--skip-broken"),
    "train on one image": ("train one --out out", "/one", "2"),
    "train, size no multiple": ("train good --out out --size 100", "100x100", "32"),
    "train, size a word": ("train good --out out --size big", "'big'", "256"),
    "train, unknown teacher": ("train good --out out --teacher magic", "'magic'", "resnet18"),
    "train, teacher of another kind": (
        "train good --out out --teacher vit_tiny_patch16_224", "'vit_tiny_patch16_224'",
    ),
    "train, missing weights": ("train good --out out --teacher-weights gone.pt", "gone.pt"),
    "train, weights of another network": (
        "train good --out out --teacher-weights other.pt", "other.pt", TINY_TEACHER,
    ),
    "train, weights that are text": ("train good --out out --teacher-weights text.pt", "text.pt", ".safetensors"),
    "train, weights without a package": (
        "train good --out out --teacher-weights package", f"'{TINY_TEACHER}'", "--teacher-weights hub",
    ),
    "train, region outside": ("train good --out out --roi 60,60,20,20", "64x64", "--roi"),
    "train, tile larger than the images": ("train good --out out --tile 128", "64x64", "--tile"),
    "train, mask of all pixels": ("train good --out out --ignore mask_all.png", "mask_all.png"),
    "train, mask of another size": ("train good --out out --ignore mask_other.png", "16x16", "64x64"),
    "train, overlap larger than half a tile": ("train good --out out --tile 64 --overlap 40", "40", "32"),
    "train, early stop without epochs": (
        "train good --out out --method linear --early-stop 3", "--early-stop 3", "leave out",
    ),
    "train, early stop of 2 stages": (
        "train good --out out --method rstpm+ --epochs 4 --early-stop 3", "2 stages", "leave out",
    ),
    "train, fusion of another method": (
        "train good --out out --method stfpm --fusion add", "--fusion add", "leave out",
    ),
    "update of another method": ("train good --out out --from run --method linear", "--method linear", "leave out"),
    "update of itself": ("train good --out run --from run", "--out run", "choose"),
    "train to a file": ("train good --out notes.txt", "notes.txt"),
    "train below a file": ("train good --out notes.txt/out", "notes.txt"),
    "train to other things": ("train good --out parts", "parts", "directory"),
    "build of a missing run": ("build missing --out out", "missing", "edgead train"),
    "build of an empty folder": ("build empty --out out", "empty", "edgead train"),
    "build of an unfinished run": ("build run_unfinished --out out", "run_unfinished", "edgead train"),
    "build of weights of another network": ("build run_other --out out", "run_other/model.safetensors"),
    "build of weights that are text": ("build run_notes --out out", "run_notes/model.safetensors"),
    "build without the images": ("build run_moved --out out", "gone/00"),
    "build with an image that is text": ("build run_text --out out", "text/00"),
    "build, wrong rate": ("build run --out out --false-alarm-rate 7", " 7", "0.01"),
    "build to a file": ("build run --out notes.txt", "notes.txt"),
    "build below a file": ("build run --out notes.txt/out", "notes.txt"),
    "build to other things": ("build run --out parts", "parts"),
    "eval of nothing": ("eval missing parts", "missing", "edgead build"),
    "eval of an empty folder": ("eval empty parts", "empty", "edgead build"),
    "eval of a changed byte": ("eval bundle_changed parts", "bundle_changed/model.onnx", "SHA-256"),
    "eval of a newer schema": ("eval bundle_newer parts", f"schema {SCHEMA + 1}", f"schema {SCHEMA},"),
    "eval of weights of another network": ("eval run_other parts", "run_other/model"),
    "eval on a missing folder": ("eval bundle missing", "missing"),
    "eval on an empty folder": ("eval bundle empty", "empty"),
    "eval without test images": ("eval bundle good", "good"),
    "eval on text": ("eval bundle parts_text", "parts_text/test/dot/000.png", "--skip-broken"),
    "eval to a file": ("eval bundle parts --out notes.txt", "notes.txt"),
    "eval below a file": ("eval bundle parts --out notes.txt/x", "notes.txt"),
    "stream of nothing": ("stream missing --source good", "missing", "edgead build"),
    "stream of a run": ("stream run --source good", "manifest.json", "edgead build"),
    "stream of a changed byte": ("stream bundle_changed --source good", "bundle_changed/model.onnx", "SHA-256"),
    "stream of a newer schema": ("stream bundle_newer --source good", f"schema {SCHEMA + 1}", f"schema {SCHEMA},"),
    "stream without a model": ("stream bundle_less --source good", "bundle_less/model.onnx"),
    "stream of a missing file": ("stream bundle --source gone.mp4", "'gone.mp4'", "rtsp://"),
    "stream of a video that is text": ("stream bundle --source video.mp4", "video.mp4", "FFmpeg"),
    "stream of an empty folder": ("stream bundle --source empty", "empty", "--watch"),
    "stream of text": ("stream bundle --source text", "text/00"),
    "stream, unknown source": ("stream bundle --source ftp://host/x", "'ftp://host/x'", "rtsp://"),
    "stream, unknown part": ("stream bundle --source synthetic:magic", "synthetic:magic", "washer"),
    "stream, no network camera": (
        "stream bundle --source rtsp://me:secret@127.0.0.1:9/a", "rtsp://***@127.0.0.1:9/a", "127.0.0.1:9 ",
    ),
    "stream, unknown sink": ("stream bundle --source good --sink magic:out", "'magic:out'", "jsonl:FILE"),
    "stream to a missing folder": (
        "stream bundle --source good --sink jsonl:gone/out", "gone/out", os.strerror(errno.ENOENT),
    ),
    "stream to a file for a folder": (
        "stream bundle --source good --sink rejects:notes.txt", "notes.txt", "rejects:",
    ),
    "stream to a video nowhere": (
        "stream bundle --source good --sink video:gone/out.mkv", "gone/out.mkv", "folder gone",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("line", "values"), [(line, values) for line, *values in CASES.values()], ids=CASES)
def test_one_line_has_the_value_and_a_hint(
    world: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    line: str,
    values: list[str],
) -> None:
    monkeypatch.chdir(world)
    before = files_in(world)
    command, *rest = line.split()
    if command == "train":
        options = zip(TRAIN[::2], TRAIN[1::2], strict=True)
        # Some options exclude one that the other trainings have.
        without = {
            other for word, other in {"--tile": "--size", "linear": "--epochs"}.items() if word in rest
        }
        rest += [word for option in options if option[0] not in {*rest, *without} for word in option]
    code = run_main(command, *rest)
    error = the_error(capfd.readouterr().err)
    assert code == 1
    assert [value for value in values if value not in error] == [], error
    # A case without a value of the hint needs a hint all the same.
    assert len(values) > 1 or ": " in error.removeprefix("error: "), error
    assert "secret" not in error
    assert files_in(world) == before


@pytest.mark.parametrize(
    ("arguments", "named", "hint"),
    [
        (["eval", "bundle_changed", "parts"], "bundle_changed/model.onnx", "edgead build"),
        (["stream", "bundle", "--source", "9"], "camera:9", "edgead doctor"),
    ],
    ids=["eval", "stream"],
)
def test_as_users_start_it(world: Path, arguments: list[str], named: str, hint: str) -> None:
    before = files_in(world)
    done = subprocess.run(
        [sys.executable, "-m", "edgead", *arguments],
        cwd=world,
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
