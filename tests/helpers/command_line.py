"""The command line in this process, and whole and broken files for it; for the tests of bad input."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from shutil import copytree

import cv2
import numpy as np
import pytest
import torch

from edgead.bundle import SCHEMA
from edgead.cli.main import run_command_line
from edgead.imaging.preprocess import ModelSize
from edgead.scoring.threshold import Threshold
from tests.helpers.brightness_bundle import write_brightness_bundle
from tests.helpers.parts_on_disk import SIZE_PX, write_parts
from tests.helpers.training_parts import TINY_TEACHER, write_images

TINY = ["--teacher", TINY_TEACHER, "--teacher-weights", "random", "--size", "64", "--epochs", "1"]
TRAIN = ["--accelerator", "cpu", "--batch-size", "4", *TINY]


def run_main(*arguments: str) -> int | str | None:
    """Run the command line in this process and return its exit code; only SystemExit is caught."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["edgead", *arguments])
        # The command line sets these variables for its process.
        patch.setenv("OPENCV_LOG_LEVEL", "SILENT")
        patch.setenv("OPENCV_FFMPEG_LOGLEVEL", "-8")
        try:
            run_command_line()
        except SystemExit as end:
            return end.code
        return 0


def files_in(folder: Path) -> dict[str, bytes | None]:
    """Return the content of every file below a folder by its path; None for a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def the_error(text: str) -> str:
    """Return the last line of standard error, which must be its only error."""
    lines = text.splitlines()
    assert lines, "nothing on standard error"
    assert lines[-1].startswith("error: "), text
    # The table of a refused build has rows of this name.
    others = [line for line in lines if not line.lstrip().startswith(("map error ", "score error "))]
    assert sum("error" in line.lower() for line in others) == 1, text
    assert "Traceback" not in text
    return lines[-1]


def make_world(world: Path) -> Path:
    """Fill a folder with whole and broken input for commands; return the folder."""
    write_images(world / "good", 4)
    write_images(world / "one", 1)
    (world / "empty").mkdir()
    (write_images(world / "text") / "002.png").write_text("a note, not an image\n")
    write_parts(world / "parts")
    copytree(world / "parts", world / "parts_text")
    (world / "parts_text/test/dot/000.png").write_text("a note, not an image\n")
    (world / "notes.txt").write_text("mine\n")
    (world / "video.mp4").write_text("a note, not a video\n" * 10)
    (world / "text.pt").write_text("a note, not weights\n")
    for name, mask in {"all": np.full((SIZE_PX, SIZE_PX), 255), "other": np.eye(SIZE_PX // 2) * 255}.items():
        assert cv2.imwrite(str(world / f"mask_{name}.png"), mask.astype(np.uint8))
    torch.save({"conv.weight": torch.zeros(3)}, world / "other.pt")

    # Such a short training counts as collapsed; the quality of the model does not matter here.
    assert run_main("train", str(world / "good"), "--out", str(world / "run"), *TRAIN) == 4
    record = json.loads((world / "run/run.json").read_text())
    (world / "run/run.json").write_text(json.dumps({**record, "state": "finished"}))

    def of_folder(name: str) -> dict[str, object]:
        config = {**record["config"], "data": [str(world / name)]}
        return {"state": "finished", "config": config, "parts": {name: record["parts"]["good"]}}

    for name, change in {
        "run_unfinished": {"state": "training"},
        "run_other": {"state": "finished", "config": {**record["config"], "teacher": "resnet18"}},
        "run_moved": of_folder("gone"),
        "run_text": of_folder("text"),
    }.items():
        copytree(world / "run", world / name)
        (world / name / "run.json").write_text(json.dumps({**record, **change}))
    (world / "text" / record["parts"]["good"]["holdout"][0]).write_text("a note, not an image\n")
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
    (world / "bundle_newer/manifest.json").write_text(
        json.dumps({**manifest, "schema": SCHEMA + 1, "new": True})
    )
    (world / "bundle_less/model.onnx").unlink()
    return world
