"""Jobs without Ray: the place, the part that runs on a worker, and one training for each part."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from edgead.cluster.each import train_each
from edgead.cluster.job import Job, absolute_paths, paths_in
from edgead.cluster.parcel import pack, unpack
from edgead.cluster.place import RayPlace, read_place
from edgead.cluster.ray_task import MAX_INPUT_BYTES, run_job
from edgead.cluster.versions import difference, versions_here
from edgead.errors import DataError, InputError
from edgead.imaging.preprocess import ModelSize
from tests.helpers.brightness_bundle import write_brightness_bundle
from tests.helpers.command_line import run_main, the_error
from tests.helpers.comparison_cells import LEVEL, ready_to_evaluate
from tests.helpers.parts_on_disk import write_parts
from tests.helpers.training_parts import TINY_TEACHER, write_images


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("ray", RayPlace(None)),
        ("ray?cpus=4", RayPlace(None, 4)),
        ("ray:auto", RayPlace("auto")),
        ("ray:10.0.0.2:6379?cpus=2", RayPlace("10.0.0.2:6379", 2)),
        ("ray://10.0.0.2:10001", RayPlace("ray://10.0.0.2:10001")),
    ],
)
def test_a_place(text, place, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert read_place(text) == place


def test_the_place_of_the_environment(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.2:6379")
    assert read_place("ray") == RayPlace("10.0.0.2:6379")


@pytest.mark.parametrize("text", ["slurm", "ray:", "ray://", "ray?cpus=0", "ray?gpus=1", "Ray", ""])
def test_no_place(text):
    with pytest.raises(InputError):
        read_place(text)


def test_paths_in_options(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.pt", "b.pt", "c,d.pt"):
        Path(name).touch()
    Path("hub").mkdir()
    assert absolute_paths("hub") == "hub"
    assert absolute_paths("a.pt,hub,b.pt") == f"{tmp_path}/a.pt,hub,{tmp_path}/b.pt"
    assert absolute_paths("c,d.pt") == f"{tmp_path}/c,d.pt"
    assert paths_in([f"{tmp_path}/a.pt,hub", "b.pt", f"{tmp_path}/c,d.pt"]) == (
        tmp_path / "a.pt",
        tmp_path / "c,d.pt",
    )


def test_versions_that_differ_are_named():
    here = versions_here()
    assert difference(here, dict(here)) is None
    found = difference(here, {**here, "edgead": "0.0.1"})
    assert found is not None
    assert "edgead 0.0.1" in found
    result = run_job(Job("a", Path("/nowhere"), (), ()), [], 1, 0, {**here, "torch": "0.1"})
    assert "torch" in str(result.error)


def test_a_worker_gets_all_and_gives_all_back(tmp_path):
    """The job of a worker in this process: the folders of the machine that asks are gone while it runs."""
    from edgead.comparison.grid import commands_left, plan_grid

    data = write_parts(tmp_path / 'my "parts"')
    grid = plan_grid([data], ["rd"], 1, {}, tmp_path / "out")
    (cell,) = grid.cells
    ready_to_evaluate(cell)
    (cell.folder / "run" / "run.json").write_text(json.dumps({"state": "finished", "data": str(data)}))
    job = Job("a", cell.folder, (data,), tuple(map(tuple, commands_left(cell, {}))))
    parcels = [list(pack(path, path.parent, MAX_INPUT_BYTES)) for path in (data, cell.folder)]
    data.rename(tmp_path / "away")
    cell.folder.rename(tmp_path / "cell")
    result = run_job(job, parcels, 1, 0, versions_here())
    assert result.error is None
    unpack(result.chunks, tmp_path / "back", MAX_INPUT_BYTES)
    texts = [
        file.read_text()
        for file in (tmp_path / "back").rglob("*.*")
        if file.suffix in (".json", ".txt", ".html")
    ]
    assert len(texts) >= 4
    assert not any("edgead-job-" in text for text in texts)
    assert json.loads((tmp_path / "back/run/run.json").read_text())["data"] == str(data)
    assert json.loads((tmp_path / "back/report/results.json").read_text())["evaluation"]["collapse"] is None


def test_an_error_of_a_worker_names_paths_of_this_machine(tmp_path):
    missing = tmp_path / "out" / "run"
    job = Job("a", tmp_path / "out", (), (("edgead", "info", str(missing)),))
    result = run_job(job, [], 1, 0, versions_here())
    assert str(missing) in str(result.error)
    assert "edgead-job-" not in str(result.error)


def test_an_empty_folder_is_there_on_the_worker_too(tmp_path, capfd):
    (data := tmp_path / "empty").mkdir()
    job = Job("a", tmp_path / "out", (data,), (("edgead", "info", str(data)),))
    result = run_job(job, [list(pack(data, data.parent, MAX_INPUT_BYTES))], 1, 0, versions_here())
    assert run_main("info", str(data)) == 1
    assert the_error(capfd.readouterr().err) == f"error: {result.error}"


def test_what_lies_in_another_input_comes_with_it(tmp_path):
    models, folder = tmp_path / "models", tmp_path / "models" / "out"
    bundles = [models / "washer", models / ".kept" / "disc"]
    for bundle in bundles:
        write_brightness_bundle(bundle, ModelSize(64, 64), LEVEL)
    folder.mkdir()
    (folder / "earlier.txt").write_text("here")
    (models / "empty").mkdir()
    inputs = (bundles[0], models, models, models / "empty", bundles[1])
    commands = tuple(("edgead", "info", str(bundle)) for bundle in bundles)
    job = Job("a", folder, inputs, (*commands, ("edgead", "info", str(models / "empty"))))
    assert job.sources == (models, bundles[1])
    result = run_job(
        job, [list(pack(path, path.parent, MAX_INPUT_BYTES)) for path in job.sources], 1, 0, versions_here()
    )
    # All that is named is there; a folder without a bundle is one.
    assert str(models / "empty") in str(result.error)
    unpack(result.chunks, tmp_path / "back", MAX_INPUT_BYTES)
    assert (tmp_path / "back" / "earlier.txt").read_text() == "here"
    # Its name, and the line of its description.
    log = (tmp_path / "back" / "log.txt").read_text()
    assert all(log.count(str(bundle)) >= 2 for bundle in bundles)


class Trainings:
    """An executor whose trainings write a record in a moment: as the parts are named, finished, collapsed or failed."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def run(self, jobs: Sequence[Job], lock: int | None) -> Iterator[tuple[Job, str | None]]:
        for job in jobs:
            self.jobs.append(job)
            name = job.folder.name.partition("-")[0]
            if name == "failed":
                yield job, "no image can be read"
                continue
            (job.folder / "run").mkdir(parents=True)
            record = {"state": name, "summary": {"collapse": "it gives a constant"}}
            (job.folder / "run" / "run.json").write_text(json.dumps(record))
            yield job, None if name == "finished" else "it gives a constant"


@pytest.fixture
def plant(tmp_path: Path) -> Path:
    for name in ("finished-1", "collapsed-2", "failed-3", "finished-4"):
        (tmp_path / "plant" / name).mkdir(parents=True)
    return tmp_path / "plant"


def test_each_part_has_a_result_and_what_is_done_is_skipped(plant, tmp_path):
    executor, out = Trainings(), tmp_path / "runs"
    options = {"--method": "linear", "--skip-broken": None}
    results = train_each([plant], out, options, None, executor)
    assert [(result.name, result.state) for result in results] == [
        ("collapsed-2", "collapsed"),
        ("failed-3", "failed"),
        ("finished-1", "finished"),
        ("finished-4", "finished"),
    ]
    assert results[1].reason == "no image can be read"
    assert executor.jobs[0].commands == (
        (
            "edgead",
            "train",
            f"{plant}/collapsed-2",
            "--out",
            f"{out}/collapsed-2/run",
            "--method",
            "linear",
            "--skip-broken",
        ),
    )
    (plant / "finished-5").mkdir()
    executor.jobs.clear()
    again = train_each([plant], out, options, None, executor)
    assert [job.folder.name for job in executor.jobs] == ["failed-3", "finished-5"]
    assert len(again) == 5


def test_other_options_folders_and_names_are_refused(plant, tmp_path):
    executor, out = Trainings(), tmp_path / "runs"
    train_each([plant], out, {"--method": "rd"}, None, executor)
    executor.jobs.clear()
    for options in ({"--method": "linear"}, {}, {"--method": "rd", "--seed": "1"}):
        with pytest.raises(InputError):
            train_each([plant], out, options, None, executor)
    with pytest.raises(InputError):
        train_each([plant], plant, {}, None, executor)
    (tmp_path / "other" / "failed-3").mkdir(parents=True)
    with pytest.raises(InputError):
        train_each([plant, tmp_path / "other"], tmp_path / "new", {}, None, executor)
    for folder in (plant / "failed-3", tmp_path / "missing"):
        with pytest.raises(DataError):
            train_each([folder], tmp_path / "new", {}, None, executor)
    assert executor.jobs == []


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--on", "ray"], "--each"),
        (["--each", "--nodes", "2"], "--nodes"),
        (["--each", "--on", "slurm"], "slurm"),
        (["--each", "--from", "run"], "--from"),
    ],
)
def test_options_that_do_not_fit(plant, tmp_path, capfd, options, named):
    assert run_main("train", str(plant), "--out", str(tmp_path / "runs"), *options) == 1
    assert named in the_error(capfd.readouterr().err)
    assert not (tmp_path / "runs").exists()


def test_two_parts_are_trained_and_the_broken_one_is_named(tmp_path, capfd):
    write_images(tmp_path / "plant" / "disc", 4)
    (tmp_path / "plant" / "empty").mkdir()
    tiny = ["--teacher", TINY_TEACHER, "--teacher-weights", "random", "--size", "64", "--method", "linear"]
    command = ["train", str(tmp_path / "plant"), "--each", "--out", str(tmp_path / "runs"), *tiny]
    assert run_main(*command) == 1
    captured = capfd.readouterr()
    error = captured.err.splitlines()[-1]
    assert error.startswith("error: 1 of 2 ")
    assert "empty" in error
    lines = captured.out.splitlines()
    assert any(line.startswith("failed") and "empty" in line for line in lines)
    # Noise in place of weights teaches nothing.
    assert any(line.startswith("collapsed") and "disc" in line for line in lines)
    assert json.loads((tmp_path / "runs/disc/run/run.json").read_text())["state"] == "collapsed"
    assert (tmp_path / "runs/disc/log.txt").is_file()
