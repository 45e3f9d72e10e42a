"""Grid, execution and files of a comparison, on cells with real but small files; nothing is trained here."""

from __future__ import annotations

import base64
import fcntl
import html.parser
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgead.cluster.local import LocalExecutor
from edgead.comparison.figures import CellResult, collect, spread_of, summary_of
from edgead.comparison.grid import Grid, command_lines, commands_left, plan_grid, state_of
from edgead.comparison.page import COLUMNS, write_comparison
from edgead.comparison.run import run_grid
from edgead.errors import DataError, InputError, RunError
from edgead.files.lock import exclusive
from tests.helpers.comparison_cells import (
    finish,
    ready_to_evaluate,
    write_results,
    write_run,
    write_toy_bundle,
)
from tests.helpers.parts_on_disk import write_parts
from tests.helpers.training_parts import TINY_TEACHER

TINY = {"teacher": TINY_TEACHER, "teacher-weights": "random", "size": "64"}


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    """Two methods, two seeds, on parts in a folder whose name a shell would take apart."""
    parts = write_parts(tmp_path / "my parts")
    return plan_grid([parts], ["rd", "rd++"], 2, TINY, tmp_path / "out")


def test_the_cells_are_all_methods_of_one_seed_after_another(grid):
    assert [str(cell) for cell in grid.cells] == [
        "my parts/rd/seed0",
        "my parts/rd++/seed0",
        "my parts/rd/seed1",
        "my parts/rd++/seed1",
    ]
    assert len({cell.folder for cell in grid.cells}) == 4


@pytest.mark.parametrize(
    ("make", "left"),
    [
        (lambda cell: None, ["train", "build", "eval"]),
        (lambda cell: write_run(cell, "training"), ["train", "build", "eval"]),
        (lambda cell: write_run(cell, "collapsed"), []),
        (write_run, ["build", "eval"]),
        (ready_to_evaluate, ["eval"]),
        (finish, []),
        (lambda cell: write_results(cell, "every anomaly map is constant"), []),
    ],
    ids=["nothing", "training", "collapsed", "trained", "built", "evaluated", "collapsed-in-evaluation"],
)
def test_what_is_done_is_not_left(grid, make, left):
    cell = grid.cells[0]
    make(cell)
    commands = commands_left(cell, grid.options)
    assert [command[:2] for command in commands] == [["edgead", name] for name in left]
    if left[:1] == ["train"]:
        given = commands[0][commands[0].index("--seed") :]
        assert given == [
            "--seed",
            "0",
            "--teacher",
            TINY_TEACHER,
            "--teacher-weights",
            "random",
            "--size",
            "64",
        ]


def test_options_of_gradients_are_not_given_to_a_method_without_them(tmp_path):
    parts, options = write_parts(tmp_path / "parts"), {"epochs": "2", "preset": "paper", "size": "64"}
    grid = plan_grid(
        [parts], ["rd", "linear"], 1, {**options, "training-precision": "bf16-mixed"}, tmp_path / "out"
    )
    given = {cell.method: commands_left(cell, grid.options)[0] for cell in grid.cells}
    assert {"--epochs", "--preset", "--training-precision", "--size"} < set(given["rd"])
    assert [part for part in given["linear"] if part.startswith("--")] == [
        "--out",
        "--method",
        "--seed",
        "--size",
    ]


def test_the_lines_are_for_a_shell_and_go_through_xargs(grid, tmp_path):
    ready_to_evaluate(grid.cells[0])
    finish(grid.cells[1])
    # In the place of edgead: writes down what it was given, one argument a line.
    stub = tmp_path / "bin" / "edgead"
    stub.parent.mkdir()
    stub.write_text('#!/bin/sh\nfor part in "$@"; do echo "$part"; done >> "$SEEN"; echo --- >> "$SEEN"\n')
    stub.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{stub.parent}:{os.environ['PATH']}",
        "SEEN": str(tmp_path / "seen"),
    }
    lines = command_lines(grid)
    assert len(lines) == 3
    command = ["xargs", "-d", "\n", "-n", "1", "-P", "1", "sh", "-c"]
    subprocess.run(command, input="\n".join(lines) + "\n", text=True, check=True, env=environment)
    calls = (tmp_path / "seen").read_text().split("---\n")[:-1]
    expected = [command[1:] for cell in grid.cells for command in commands_left(cell, grid.options)]
    assert len(expected) == 7
    assert [call.splitlines() for call in calls] == expected


def test_a_directory_keeps_its_options_and_may_grow(grid, tmp_path):
    data = [tmp_path / "my parts"]
    more = [*data, write_parts(tmp_path / "other")]
    assert len(plan_grid(more, ["rd", "stfpm"], 3, TINY, grid.out).cells) == 12
    assert len(plan_grid(data, ["rd"], 1, TINY, grid.out).cells) == 1
    for options, values in (
        ({**TINY, "size": "96"}, ["--size 64", "--size 96"]),
        ({**TINY, "epochs": "3"}, ["no --epochs", "--epochs 3"]),
        ({k: v for k, v in TINY.items() if k != "size"}, ["--size 64", "no --size"]),
    ):
        with pytest.raises(InputError) as caught:
            plan_grid(data, ["rd"], 1, options, grid.out)
        assert all(value in caught.value.what for value in [str(grid.out), *values])
        assert "--out" in caught.value.hint
    moved = write_parts(tmp_path / "elsewhere" / "my parts")
    with pytest.raises(InputError) as caught:
        plan_grid([moved], ["rd"], 1, TINY, grid.out)
    assert str(moved) in caught.value.what
    assert str(data[0]) in caught.value.what


def test_what_cannot_be_compared_is_refused_at_once(tmp_path):
    parts = write_parts(tmp_path / "parts")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine\n")
    for data, methods, seeds, out, kind, value in (
        ([parts], ["rd"], 0, "out", InputError, "0"),
        ([parts], [], 1, "out", InputError, ""),
        ([parts], ["rd", "rd"], 1, "out", InputError, "rd"),
        ([parts, parts], ["rd"], 1, "out", InputError, "parts"),
        ([tmp_path / "none"], ["rd"], 1, "out", DataError, str(tmp_path / "none")),
        ([parts / "train" / "good"], ["rd"], 1, "out", DataError, str(parts / "train" / "good")),
        ([parts], ["rd"], 1, "notes", InputError, str(tmp_path / "notes")),
    ):
        with pytest.raises(kind) as caught:
            plan_grid(data, methods, seeds, {}, tmp_path / out)
        assert type(caught.value) is kind
        assert value in caught.value.what
    assert not (tmp_path / "out").exists()


def test_a_cell_that_fails_is_named_and_the_others_go_on(grid, caplog):
    first, second, third, fourth = grid.cells
    for cell in (first, second, third):
        ready_to_evaluate(cell)
    whole = (second.folder / "bundle" / "model.onnx").read_bytes()
    (second.folder / "bundle" / "model.onnx").write_bytes(whole[:-1])
    write_run(fourth, "collapsed", why="the student learnt nothing")
    caplog.set_level("INFO")
    failed = run_grid(grid, LocalExecutor())
    assert set(failed) == {second}
    assert f"{second.folder}/bundle/model.onnx" in failed[second]
    assert str(len(whole) - 1) in failed[second]
    assert "\n" not in failed[second]
    assert [state_of(cell) for cell in grid.cells] == ["done", "left", "done", "collapsed"]
    assert sum(line.startswith("[") for line in caplog.messages) == 3
    assert "AUROC" in (first.folder / "log.txt").read_text()

    comparison = collect(grid, failed)
    assert [result.state for result in comparison.results] == ["done", "failed", "done", "collapsed"]
    assert comparison.results[1].reason == failed[second]

    # Once fixed, the same again does the rest and nothing else.
    (second.folder / "bundle" / "model.onnx").write_bytes(whole)
    before = (first.folder / "report" / "results.json").stat().st_mtime_ns
    caplog.clear()
    assert run_grid(grid, LocalExecutor()) == {}
    assert state_of(second) == "done"
    assert (first.folder / "report" / "results.json").stat().st_mtime_ns == before
    assert [line for line in caplog.messages if line.startswith("[")] == [
        "[2/4] my parts/rd++/seed0: edgead eval"
    ]


@pytest.mark.parametrize(
    ("code", "values"),
    [
        ("import os\nos.kill(os.getpid(), 9)", ["signal 9"]),
        ("raise KeyError('x')", ["exit code 1", "KeyError: 'x'", "log.txt"]),
        ("raise SystemExit(3)", ["exit code 3", "log.txt"]),
    ],
    ids=["killed", "bug", "silent"],
)
def test_a_command_that_dies_without_a_message_is_a_failure_too(grid, tmp_path, monkeypatch, code, values):
    stub = tmp_path / "stub" / "edgead"
    stub.mkdir(parents=True)
    (stub / "__init__.py").touch()
    (stub / "__main__.py").write_text(code + "\n")
    monkeypatch.chdir(stub.parent)
    for cell in grid.cells:
        ready_to_evaluate(cell)
    failed = run_grid(grid, LocalExecutor())
    assert set(failed) == set(grid.cells)
    assert all(value in error for error in failed.values() for value in ["edgead eval", *values])


ALONE = """
import sys
from pathlib import Path
from edgead.cluster.local import LocalExecutor
from edgead.comparison.grid import plan_grid
from edgead.comparison.run import run_grid
run_grid(plan_grid([Path(sys.argv[1])], ["rd"], 1, {}, Path(sys.argv[2])), LocalExecutor())
"""


def test_what_a_killed_comparison_left_running_is_waited_for(tmp_path):
    parts, out = write_parts(tmp_path / "parts"), tmp_path / "out"
    stub, started, go = (tmp_path / name for name in ("edgead", "started", "go"))
    stub.mkdir()
    (stub / "__init__.py").touch()
    (stub / "__main__.py").write_text(
        "import time\nfrom pathlib import Path\nPath('started').touch()\n"
        "while not Path('go').exists():\n    time.sleep(0.02)\n"
    )
    # As a file, because what -c runs would take the stub for edgead, too.
    (script := tmp_path / "scripts" / "alone.py").parent.mkdir()
    script.write_text(ALONE)
    with subprocess.Popen([sys.executable, script, str(parts), str(out)], cwd=tmp_path) as process:
        try:
            until = time.monotonic() + 60
            while not started.exists():
                assert time.monotonic() < until
                assert process.poll() is None
                time.sleep(0.02)
        finally:
            process.kill()
    with (tmp_path / ".out.lock").open() as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    timer = threading.Timer(0.3, go.touch)
    timer.start()
    # Begins when the command that was left has ended.
    with exclusive(out):
        assert go.exists()
    timer.join()
    assert not (tmp_path / ".out.lock").exists()


def test_broken_files_of_a_cell_are_its_failure(grid):
    first, second = grid.cells[:2]
    for cell in grid.cells[2:]:
        finish(cell)
    write_run(first)
    (first.folder / "run" / "run.json").write_text("{")
    finish(second)
    (second.folder / "report" / "results.json").write_text('{"evaluation": {"collapse": null}}')
    failed = run_grid(grid, LocalExecutor())
    assert set(failed) == {first}
    assert str(first.folder / "run" / "run.json") in failed[first]
    states = {str(result.cell): (result.state, result.reason) for result in collect(grid, failed).results}
    assert states[str(first)] == ("failed", failed[first])
    assert states[str(second)][0] == "failed"
    assert "image_auroc" in str(states[str(second)][1])


def test_means_are_of_the_seeds_that_are_done(grid):
    done, other = grid.cells[0], grid.cells[2]
    finish(done, (30.0, 60.0), image_auroc=0.9, aupro=None)
    finish(other, (60.0, 120.0), image_auroc=0.7, aupro=None)
    # The second method has one seed that is done and one that would spoil any mean.
    finish(grid.cells[1], image_auroc=0.8)
    write_run(grid.cells[3])
    write_toy_bundle(grid.cells[3])
    write_results(grid.cells[3], "image AUROC 0.100 is no better than guessing", image_auroc=0.1)
    comparison = collect(grid, {})
    first, second = comparison.summaries
    assert (first.method, first.done, first.collapsed, first.failed) == ("rd", 2, 0, 0)
    auroc, minutes = first.figures["image_auroc"], first.figures["training_minutes"]
    # By hand: 0.8 +- sqrt(2 * 0.1 ** 2), and 1.5 and 3 minutes.
    assert auroc.mean == pytest.approx(0.8)
    assert auroc.deviation == pytest.approx(0.1 * np.sqrt(2))
    assert minutes.mean == pytest.approx(2.25)
    assert first.figures["aupro"] is None
    # The graph of `toy_graph`, as counted by hand in tests/export/test_cost.py.
    operations = 2 * (18432 + 49152 + 13824 + 10368 + 6144 + 3072 + 4096 + 32768)
    assert first.figures["gflop"].mean == pytest.approx(operations / 1e9)
    assert first.figures["gflop"].deviation == 0
    size = (done.folder / "bundle" / "model.onnx").stat().st_size
    assert first.figures["model_bytes"].mean == size
    assert (second.method, second.done, second.collapsed) == ("rd++", 1, 1)
    assert second.figures["image_auroc"].mean == 0.8
    assert second.figures["image_auroc"].deviation is None
    assert comparison.results[3].figures == {}


def test_no_figure_of_a_cell_that_collapsed_or_failed_is_averaged(grid):
    states = ("done", "collapsed", "failed")
    results = [
        CellResult(grid.cells[0], state, None, {"image_auroc": value})
        for state, value in zip(states, (0.9, 0.5, 0.1), strict=True)
    ]
    summary = summary_of("parts", "rd", results)
    assert (summary.done, summary.collapsed, summary.failed) == (1, 1, 1)
    assert summary.figures["image_auroc"].mean == 0.9


def test_spread_leaves_out_what_is_not_there():
    assert spread_of([None, None]) is None
    found = spread_of([1.0, None, 4.0, 7.0])
    assert (found.mean, found.deviation) == (4.0, 3.0)


def test_latency_is_measured_once_for_a_model_and_a_machine(grid):
    grid = replace(grid, methods=("rd",), seeds=1)
    (cell,) = grid.cells
    finish(cell)
    first = collect(grid, {}).results[0].figures["latency_ms"]
    assert first > 0.0
    file = cell.folder / "latency.json"
    known = json.loads(file.read_text())
    assert known["p10_ms"] <= known["median_ms"] <= known["p90_ms"]
    file.write_text(json.dumps({**known, "median_ms": 1234.5}))
    assert collect(grid, {}).results[0].figures["latency_ms"] == 1234.5
    for change in ({"machine": "another"}, {"model_sha256": "0" * 64}):
        file.write_text(json.dumps({**known, "median_ms": 1234.5, **change}))
        assert collect(grid, {}).results[0].figures["latency_ms"] != 1234.5


class Page(html.parser.HTMLParser):
    """Words, rows of tables and images of a page, and every address that it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.rows: list[list[str]] = []
        self.images: list[np.ndarray] = []
        self.addresses: list[str] = []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        for name, value in attributes:
            if name == "src" and str(value).startswith("data:image/png;base64,"):
                data = np.frombuffer(base64.b64decode(str(value).split(",", 1)[1], validate=True), np.uint8)
                self.images.append(cv2.imdecode(data, cv2.IMREAD_COLOR))
            elif name in ("src", "href"):
                self.addresses.append(str(value))

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self.rows and data.strip():
            self.rows[-1].append(data.strip())


def test_the_page_and_the_files_say_the_same(grid):
    finish(grid.cells[0], image_auroc=0.9)
    finish(grid.cells[2], image_auroc=0.7)
    finish(grid.cells[1], image_auroc=0.8)
    comparison = collect(grid, {grid.cells[3]: "a <script> went | wrong"})
    assert write_comparison(comparison) == grid.out / "index.html"
    page = Page((grid.out / "index.html").read_text(encoding="utf-8"))
    rows = {row[0]: row[1:] for row in page.rows if row}
    assert rows["method"] == [heading for heading, _ in COLUMNS.values()]
    # By hand: mean and sample deviation of 0.9 and 0.7.
    assert rows["rd"][0] == "0.800 ± 0.141"
    assert rows["rd++ (1 failed)"][0] == "0.800"
    baseline = json.loads((grid.out / "baseline" / "my parts" / "results.json").read_text())["evaluation"]
    assert rows["nearest mean"][0] == f"{baseline['image_auroc']:.3f}"
    assert rows["nearest mean"][5] == "-"
    assert "my parts/rd++/seed1 failed: a <script> went | wrong" in page.text
    # The cells of this test have no pages of their own.
    assert page.addresses == ["baseline/my%20parts/report.html"]
    (image,) = page.images
    assert image.std() > 10

    lines = (grid.out / "compare.md").read_text(encoding="utf-8").splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 5
    assert {line.count("|") for line in table} == {len(COLUMNS) + 2}
    assert table[2].startswith("| rd | 0.800 ± 0.141 | ")

    content = json.loads((grid.out / "compare.json").read_text())
    assert [cell["state"] for cell in content["cells"]] == ["done", "done", "done", "failed"]
    assert [cell.get("image_auroc") for cell in content["cells"]] == [0.9, 0.8, 0.7, None]
    assert content["summaries"][0]["figures"]["image_auroc"]["mean"] == pytest.approx(0.8)
    assert content["baselines"][0]["image_auroc"] == baseline["image_auroc"]


def test_a_baseline_that_fails_is_reported_and_the_page_is_written(grid):
    for cell in grid.cells:
        finish(cell)
    shutil.rmtree(grid.datasets["my parts"] / "train")
    comparison = collect(grid, {})
    (baseline,) = comparison.baselines
    assert baseline.reason is not None
    write_comparison(comparison)
    page = Page((grid.out / "index.html").read_text(encoding="utf-8"))
    assert baseline.reason in page.text


@pytest.mark.parametrize("content", ["{}", '{"evaluation": []}', '{"evaluation": {"aupro": 1}}', "[]"])
def test_an_external_report_in_the_place_of_the_baselines_is_refused(grid, content):
    file = grid.out / "baseline" / "my parts" / "results.json"
    file.parent.mkdir(parents=True)
    file.write_text(content)
    (baseline,) = collect(grid, dict.fromkeys(grid.cells, "not asked for")).baselines
    assert baseline.figures == {}
    assert baseline.reason is not None
    assert str(file) in baseline.reason
    assert f"remove {file.parent} " in baseline.reason
    assert "\n" not in baseline.reason


@pytest.mark.parametrize(
    "content", ["{}", '{"options": {}}', '{"options": [], "datasets": {}}', '{"datasets": {}}']
)
def test_an_external_grid_is_refused(grid, tmp_path, content):
    (grid.out / "grid.json").write_text(content)
    with pytest.raises(RunError) as caught:
        plan_grid([tmp_path / "my parts"], ["rd"], 1, TINY, grid.out)
    assert str(grid.out / "grid.json") in caught.value.what
    assert "--out" in caught.value.hint
    assert "\n" not in str(caught.value)
    assert (grid.out / "grid.json").read_text() == content


@pytest.mark.parametrize("evaluation", [None, [], 3])
def test_a_result_without_an_evaluation_is_refused(grid, evaluation):
    report = grid.cells[0].folder / "report"
    report.mkdir(parents=True)
    (report / "results.json").write_text(json.dumps({"evaluation": evaluation}))
    with pytest.raises(RunError) as caught:
        state_of(grid.cells[0])
    assert str(report / "results.json") in caught.value.what
    assert str(grid.cells[0].folder) in caught.value.hint
