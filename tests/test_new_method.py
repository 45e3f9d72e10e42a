"""A method is one class in one file: training, builds, evaluation and stream take it, and know no method by name."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path
from shutil import copyfile

import pytest

from edgead.bundle import open_bundle
from edgead.data.synthetic.dataset import write_dataset
from edgead.errors import InputError
from edgead.models import METHODS
from edgead.training.run import open_run
from tests.helpers import one_file_method
from tests.helpers.command_line import run_main
from tests.helpers.one_file_method import SharedSeed
from tests.helpers.training_parts import TINY_TEACHER

NAME = "shared-seed"
PRECISIONS = ("fp32", "fp16")
GOOD = tuple(f"good/{number:03d}.png" for number in range(10))
PLAIN_DEFECTS = ("hole/000.png", "hole/001.png", "contamination/000.png", "contamination/001.png")
# What passes the camera, in turn: name and image.
LINE = {f"{number:02d}.png": image for number, image in enumerate((*PLAIN_DEFECTS, *GOOD))}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Washers, a run of the new method on them, its bundle, a bundle made of that, and a line of parts."""
    root = tmp_path_factory.mktemp("new_method")
    write_dataset(root / "washers", "washer", 60, len(GOOD), 10, size_px=64)
    teacher = ("--teacher", TINY_TEACHER, "--teacher-weights", "random")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        with patch.context() as known:
            known.setitem(METHODS, NAME, SharedSeed)
            options = ("--method", NAME, "--size", "64", "--accelerator", "cpu", *teacher)
            assert run_main("train", "washers", "--out", "run", *options) == 0
            assert run_main("build", "run", "--out", "fp32") == 0
        # From here on nothing knows the method.
        with pytest.raises(InputError, match=NAME):
            open_run(root / "run").load_model()
        assert run_main("build", "fp32", "--data", "washers", "--out", "fp16", "--precision", "fp16") == 0
    (root / "line").mkdir()
    for name, image in LINE.items():
        copyfile(root / "washers/test" / image, root / "line" / name)
    return root


def edgead(*arguments: str | Path) -> str:
    """Standard output of a command in a process of its own, where the new method is registered nowhere."""
    command = [sys.executable, "-c", "from edgead.cli.main import main; main()", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_forty_lines_at_most() -> None:
    assert len(inspect.getsource(one_file_method).splitlines()) <= 40


@pytest.mark.parametrize("precision", PRECISIONS)
def test_its_bundle_finds_defects(world: Path, precision: str) -> None:
    manifest = open_bundle(world / precision).manifest
    assert (manifest.method, manifest.precision, manifest.verified) == (NAME, precision, True)
    figures = json.loads(edgead("eval", world / precision, world / "washers", "--json"))["evaluation"]
    # Chance is 0.5; measured after some seconds of training: 0.9.
    assert figures["image_auroc"] > 0.8


@pytest.mark.parametrize("precision", PRECISIONS)
def test_its_stream_decides(world: Path, precision: str) -> None:
    lines = edgead("stream", world / precision, "--source", world / "line", "--sink", "jsonl:-").splitlines()
    flagged = [json.loads(line)["is_anomalous"] for line in lines]
    assert len(flagged) == len(LINE)
    assert all(flagged[: len(PLAIN_DEFECTS)])
    # The threshold is the highest score of six held-out parts, so one in seven of others may well lie above it.
    assert sum(flagged[len(PLAIN_DEFECTS) :]) <= 3
