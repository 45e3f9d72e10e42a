"""A method is one class in one file: training, builds, evaluation and stream take it, and know no method by name.

The new method is added to a copy of edgead exactly as CONTRIBUTING.md describes. That copy trains and builds; edgead
itself, which does not know the method, reads the bundle.
"""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from shutil import copyfile, copytree, ignore_patterns

import pytest

from edgead.bundle import open_bundle
from edgead.data.synthetic.dataset import write_dataset
from edgead.errors import InputError
from edgead.models import METHODS
from edgead.training.run import open_run
from tests.helpers import one_file_method
from tests.helpers.one_file_method import SharedSeed
from tests.helpers.stream_parts import verdicts_of
from tests.helpers.training_parts import TINY_TEACHER

NAME = "shared-seed"
CHECKOUT = Path(__file__).parents[1]
PRECISIONS = ("fp32", "fp16")
GOOD = tuple(f"good/{number:03d}.png" for number in range(10))
PLAIN_DEFECTS = ("hole/000.png", "hole/001.png", "contamination/000.png", "contamination/001.png")
# Images in the order in which they pass the camera.
LINE = {f"{number:02d}.png": image for number, image in enumerate((*PLAIN_DEFECTS, *GOOD))}


# Commands one after the other in one process, because the import of torch takes seconds.
COMMANDS = """
import itertools, sys
from edgead.cli.main import main
for is_between, words in itertools.groupby(sys.argv[1:], "&&".__eq__):
    if not is_between:
        sys.argv = ["edgead", *words]
        try:
            main()
        except SystemExit as end:
            if end.code:
                raise
"""


def insert_after(file: Path, line: str, new: str) -> None:
    """Insert a line after the only line that begins so."""
    lines = file.read_text().splitlines(keepends=True)
    (number,) = (number for number, text in enumerate(lines) if text.startswith(line))
    file.write_text("".join((*lines[: number + 1], f"{new}\n", *lines[number + 1 :])))


def write_checkout(root: Path) -> Path:
    """Copy edgead and add the new method: its file, an entry of METHODS, and a member of the command line's enum."""
    for folder in ("edgead", "engines"):
        copytree(CHECKOUT / folder, root / folder, ignore=ignore_patterns("__pycache__"))
    models = root / "edgead/models"
    copyfile(inspect.getfile(one_file_method), models / "shared_seed.py")
    name = SharedSeed.__name__
    insert_after(
        models / "__init__.py",
        "from edgead.models.rstpm_plus import",
        f"from edgead.models.shared_seed import {name}",
    )
    insert_after(models / "__init__.py", "METHODS: ", f'    "{NAME}": {name},')
    insert_after(root / "edgead/cli/choices.py", '    RD = "rd"', f'    SHARED_SEED = "{NAME}"')
    return root


def edgead(checkout: Path, folder: Path, *arguments: str | Path) -> str:
    """Standard output of a command of a checkout, or of several with "&&" between them, in a process of their own."""
    # Coverage measures this checkout only: a copy would count every line twice.
    kept = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, *map(str, arguments)],
        cwd=folder,
        env={**(os.environ if checkout == CHECKOUT else kept), "PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Washers, a run of the new method, its bundle, a bundle converted from that bundle, and a line of parts."""
    root = tmp_path_factory.mktemp("new_method")
    write_dataset(root / "washers", "washer", 60, len(GOOD), 10, size_px=64)
    (root / "line").mkdir()
    for name, image in LINE.items():
        copyfile(root / "washers/test" / image, root / "line" / name)
    extended = write_checkout(root / "checkout")
    teacher = ("--teacher", TINY_TEACHER, "--teacher-weights", "random")
    options = ("--method", NAME, "--size", "64", "--accelerator", "cpu", *teacher)
    train = ("train", "washers", "--out", "run", *options)
    edgead(extended, root, *train, "&&", "build", "run", "--out", "fp32")
    fp16 = ("--data", "washers", "--out", "fp16", "--precision", "fp16")
    edgead(CHECKOUT, root, "build", "fp32", *fp16)
    return root


def test_it_is_forty_lines_at_most() -> None:
    assert len(inspect.getsource(one_file_method).splitlines()) <= 40


def test_only_the_copy_knows_it(world: Path) -> None:
    assert NAME not in METHODS
    with pytest.raises(InputError) as refusal:
        open_run(world / "run").load_model()
    assert f"{NAME!r}" in refusal.value.what


@pytest.mark.parametrize("precision", PRECISIONS)
def test_its_bundle_finds_defects(world: Path, precision: str) -> None:
    manifest = open_bundle(world / precision).manifest
    assert (manifest.method, manifest.precision, manifest.verified) == (NAME, precision, True)
    figures = json.loads(edgead(CHECKOUT, world, "eval", precision, "washers", "--json"))["evaluation"]
    # Chance is 0.5; measured after some seconds of training: 0.9.
    assert figures["image_auroc"] > 0.8


@pytest.mark.parametrize("precision", PRECISIONS)
def test_its_stream_decides(world: Path, precision: str) -> None:
    lines = edgead(CHECKOUT, world, "stream", precision, "--source", "line", "--sink", "jsonl:-")
    flagged = [verdict["is_anomalous"] for verdict in verdicts_of(lines)]
    assert len(flagged) == len(LINE)
    assert all(flagged[: len(PLAIN_DEFECTS)])
    # The threshold is the highest score of six held-out parts, so about one in seven good parts may be above it.
    assert sum(flagged[len(PLAIN_DEFECTS) :]) <= 3
