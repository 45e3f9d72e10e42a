"""A prediction that was killed continues, and gives the files of a prediction without an interrupt, byte for byte."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgead.scoring.threshold import Threshold
from tests.cli.test_predict import SIZE, spots, write
from tests.helpers.brightness_bundle import write_brightness_bundle
from tests.helpers.command_line import files_in, run_main
from tests.helpers.stream_parts import break_frames, textured, write_video

LINE = ["predict", "bundle", "parts", "line.mkv", "more", "--recursive", "--save", "map,mask", "--out"]
BROKEN = "parts/a/006.png"
# Prints nothing of its own; kills itself, without a chance to clean up, after the batch with the given image.
KILLED = """
import logging, os, signal, sys
from edgead.files.progress import ScoringState, state_of
done = int(sys.argv.pop(1))
class Kill(logging.Handler):
    def emit(self, record):
        state = state_of(record)
        if isinstance(state, ScoringState) and state.done >= done:
            os.kill(os.getpid(), signal.SIGKILL)
logging.getLogger("edgead").addHandler(Kill())
from edgead.cli.main import main
main()
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """21 images, one of them broken, a video of 11 frames, two of them broken, 3 more images, and their prediction."""
    folder = tmp_path_factory.mktemp("continued")
    write_brightness_bundle(folder / "bundle", SIZE, Threshold(0.5, 0.01, 0.95, 0.96, 320, 299))
    for seed in range(21):
        write(folder / f"parts/{'ab'[seed % 2]}/{seed:03d}.png", spots(seed))
    (folder / BROKEN).write_text("a note, not an image\n")
    for seed in range(3):
        write(folder / f"more/{seed:03d}.png", spots(seed + 30))
    break_frames(write_video(folder / "line.mkv", [textured(20 * level) for level in range(11)]), 4, 10)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run_main(*LINE, "whole") == 5
    return folder


@pytest.fixture
def out(world: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished results, made to look like those of a running prediction."""
    monkeypatch.chdir(world)
    shutil.rmtree(world / "out", ignore_errors=True)
    shutil.copytree(world / "whole", world / "out")
    record = json.loads((world / "out/predict.json").read_text())
    (world / "out/predict.json").write_text(json.dumps({**record, "state": "running"}))
    (world / "out/predictions.csv").unlink()
    return world / "out"


def ends_like_the_whole_one(out: Path) -> None:
    assert run_main(*LINE, "out") == 5
    assert files_in(out) == files_in(out.parent / "whole")


@pytest.mark.parametrize("done", [8, 21, 30])
def test_after_a_kill(world: Path, done: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)
    shutil.rmtree(world / "out", ignore_errors=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    command = [sys.executable, "-c", KILLED, str(done), *LINE, "out"]
    killed = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (world / "out/predictions.csv").exists()
    rows = (world / "out/predictions.jsonl").read_bytes()
    assert done <= rows.count(b"\n") < 35
    assert (world / "whole/predictions.jsonl").read_bytes().startswith(rows)
    ends_like_the_whole_one(world / "out")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 0.33, 0.5, 0.61, 0.75, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("rest", [b"", b"\0" * 100, b'{"image": "parts'], ids=["torn", "zeros", "half"])
def test_after_lines_that_are_torn_anywhere(out: Path, share: float, rest: bytes) -> None:
    lines = (out / "predictions.jsonl").read_bytes()
    (out / "predictions.jsonl").write_bytes(lines[: int(share * len(lines))] + rest)
    ends_like_the_whole_one(out)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "the lines are missing": lambda out: (out / "predictions.jsonl").unlink(),
    "the files of an image are missing": lambda out: (out / "masks/parts/a/010.png").unlink(),
    "the map of a frame is missing": lambda out: (out / "maps/line.mkv/00000009.tiff").unlink(),
    "unfinished files": lambda out: (
        (out / ".partial").mkdir(), (out / ".partial/7").write_bytes(b"half"),
    ),
    "lines in another order": lambda out: (out / "predictions.jsonl").write_bytes(
        b"".join(reversed((out / "predictions.jsonl").read_bytes().splitlines(keepends=True)))
    ),
    "all is done except the table": lambda out: None,
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_after_other_damage(out: Path, damage: Callable[[Path], object]) -> None:
    damage(out)
    ends_like_the_whole_one(out)


def test_images_that_are_done_are_not_read_again(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (out / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    (out / "predictions.jsonl").write_bytes(b"".join(lines[:20]))
    read: list[str] = []

    def count(path: Path, bit_depth: int | None) -> object:
        read.append(path.as_posix())
        return original(path, bit_depth)

    from edgead.prediction import batches

    original = batches.read_image
    monkeypatch.setattr(batches, "read_image", count)
    ends_like_the_whole_one(out)
    names = [json.loads(line)["image"] for line in lines]
    # From the batch of the 20th image on: a batch has 8 images.
    assert sorted(read) == sorted(name for name in names[16:] if name != "line.mkv")
