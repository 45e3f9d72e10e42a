"""`edgead compare` through the command line: one small real grid, and one that is killed."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgead.cli.main import main
from edgead.comparison.grid import plan_grid, state_of
from tests.helpers.command_line import run_main, the_error
from tests.helpers.comparison_cells import ready_to_evaluate
from tests.helpers.parts_on_disk import write_parts
from tests.helpers.processes import start_process
from tests.helpers.training_parts import TINY_TEACHER, good_parts

TINY = ["--teacher", TINY_TEACHER, "--teacher-weights", "random", "--size", "64"]
OPTIONS = ["--methods", "stfpm", "--seeds", "1", "--epochs", "12", *TINY]


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a dataset of discs, with obvious defects: a chequered square."""
    root = tmp_path_factory.mktemp("data") / "discs"
    images = good_parts(24)
    for number, image in enumerate(images):
        kind = "train/good" if number < 16 else "test/good" if number < 20 else "test/square"
        mask = np.zeros(image.shape[:2], np.uint8)
        if number >= 20:
            mask[16:48, 2 * number - 28 : 2 * number + 4] = 255
            # A pattern that does not occur in discs.
            image[mask > 0] = 255 * ((np.argwhere(mask) // 4).sum(axis=1, keepdims=True) % 2)
            masks = root / "ground_truth" / "square"
            masks.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(masks / f"{number:03d}_mask.png"), mask)
        (root / kind).mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(root / kind / f"{number:03d}.png"), image)
    return root


def test_a_grid_from_images_to_the_page(discs, tmp_path, capfd):
    out = tmp_path / "out"
    command = ["compare", str(discs), "--out", str(out), *OPTIONS]
    assert run_main(*command, "--list") == 0
    (line,) = capfd.readouterr().out.splitlines()
    assert line.count("edgead ") == 3
    assert "--method stfpm --seed 0 --epochs 12 " in line
    assert " --size 64 && edgead build" in line
    assert not (out / "cells").exists()

    assert run_main(*command) == 0
    told = capfd.readouterr()
    assert told.out.splitlines()[-1] == f"page: {out}/index.html"
    cell = out / "cells" / "discs" / "stfpm" / "seed0"
    (row,) = json.loads((out / "compare.json").read_text())["cells"]
    evaluation = json.loads((cell / "report" / "results.json").read_text())["evaluation"]
    for name in ("image_auroc", "pixel_auroc", "aupro", "image_f1_max"):
        assert row[name] == evaluation[name]
    assert (row["state"], row["precision"]) == ("done", "32-true")
    assert row["image_auroc"] > 0.9
    seconds = [epoch["seconds"] for epoch in json.loads((cell / "run" / "metrics.json").read_text())]
    assert len(seconds) == 12
    assert row["training_minutes"] == pytest.approx(np.sum(seconds) / 60)
    assert row["latency_ms"] > 0.0
    assert row["model_bytes"] == (cell / "bundle" / "model.onnx").stat().st_size

    assert run_main(*command, "--list") == 0
    assert capfd.readouterr().out == ""
    assert run_main(*command) == 0
    assert "edgead train" not in capfd.readouterr().err

    # A cell that breaks later is named in the error, and the page is written nevertheless.
    (cell / "bundle" / "model.onnx").write_bytes(b"")
    (cell / "report" / "results.json").unlink()
    (out / "index.html").unlink()
    assert run_main(*command) == 1
    error = the_error(capfd.readouterr().err.replace("  error: ", "  said: "))
    assert all(value in error for value in ("1 of 1", "discs/stfpm/seed0", "model.onnx", " 0 bytes"))
    assert (out / "index.html").is_file()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--methods", "magic"], "'magic'"),
        (["--methods", ","], "--methods"),
        (["--methods", "rstpm:shallow"], "'rstpm:shallow'"),
        (["--methods", "rd:deep"], "'rd:deep'"),
        (["--methods", "rd", "--bit-depth", "9"], " 9 "),
    ],
)
def test_a_wrong_option_is_an_error_and_leaves_nothing(tmp_path, capfd, options, named):
    parts = write_parts(tmp_path / "parts")
    assert run_main("compare", str(parts), "--out", str(tmp_path / "out"), *options) == 1
    assert named in the_error(capfd.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_listed_lines_may_be_run_in_any_directory(tmp_path, capfd, monkeypatch):
    write_parts(tmp_path / "parts")
    (tmp_path / "weights.pt").touch()
    monkeypatch.chdir(tmp_path)
    options = ["--methods", "rd", "--seeds", "1", "--teacher-weights", "weights.pt"]
    assert run_main("compare", "parts", "--out", "out", *options, "--list") == 0
    train, build, test = capfd.readouterr().out.strip().split(" && ")
    run = f"{tmp_path}/out/cells/parts/rd/seed0"
    assert train == (
        f"edgead train {tmp_path}/parts --out {run}/run --method rd --seed 0 --teacher-weights {tmp_path}/weights.pt"
    )
    assert build == f"edgead build {run}/run --out {run}/bundle"
    assert test == f"edgead eval {run}/bundle {tmp_path}/parts --out {run}/report"


def test_a_variant_is_a_cell_of_its_own(tmp_path, capfd):
    parts = write_parts(tmp_path / "parts")
    options = ["--methods", "rstpm,rstpm:deep", "--seeds", "1"]
    assert run_main("compare", str(parts), "--out", str(tmp_path / "out"), *options, "--list") == 0
    plain, deep = capfd.readouterr().out.splitlines()
    assert "--method rstpm --seed 0" in plain
    assert "--method rstpm --variant deep --seed 0" in deep


def test_each_training_gets_the_bit_depth(tmp_path, capfd):
    parts = write_parts(tmp_path / "parts")
    options = ["--methods", "rd", "--seeds", "1", "--bit-depth", "12"]
    assert run_main("compare", str(parts), "--out", str(tmp_path / "out"), *options, "--list") == 0
    train, *others = capfd.readouterr().out.split(" && ")
    assert train.endswith(" --bit-depth 12")
    assert not any("--bit-depth" in command for command in others)


def compare(*arguments):
    sys.argv = ["edgead", "compare", *arguments]
    main()


def test_a_killed_grid_is_continued(tmp_path):
    parts, out = write_parts(tmp_path / "parts"), tmp_path / "out"
    tiny = {"teacher": TINY_TEACHER, "teacher-weights": "random", "size": "64"}
    grid = plan_grid([parts], ["rd"], 3, tiny, out)
    for cell in grid.cells:
        ready_to_evaluate(cell)
    arguments = [str(parts), "--out", str(out), "--methods", "rd", *TINY]
    first = grid.cells[0].folder / "report" / "results.json"
    process = start_process(compare, *arguments, output=tmp_path / "killed.txt")
    until = time.monotonic() + 120
    while not first.exists():
        assert time.monotonic() < until
        assert process.is_alive()
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert state_of(grid.cells[2]) == "left"
    assert not (out / "index.html").exists()
    written_at = first.stat().st_mtime_ns
    process = start_process(compare, *arguments, output=tmp_path / "again.txt")
    process.join(170)
    said = (tmp_path / "again.txt").read_text()
    assert process.exitcode == 0, said
    assert [state_of(cell) for cell in grid.cells] == ["done"] * 3
    assert first.stat().st_mtime_ns == written_at
    assert "[1/3]" not in said
    assert "[3/3] parts/rd/seed2: edgead eval" in said
    assert (out / "index.html").is_file()
