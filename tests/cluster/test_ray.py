"""Jobs on a real Ray cluster of two nodes on this machine, which share no folder: each job has a temporary one."""

from __future__ import annotations

import base64
import io
import json
import shutil
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgead.api import load
from edgead.cluster import ray_connection as connection_module
from edgead.cluster import ray_executor
from edgead.cluster.job import Job
from edgead.cluster.place import open_executor, read_place
from edgead.cluster.ray_connection import head_answers, live_nodes, ray_connection
from edgead.comparison.figures import ACCURACY, Summary, collect
from edgead.comparison.grid import Grid, plan_grid, state_of
from edgead.comparison.run import run_grid
from edgead.errors import BackendError
from edgead.imaging.decode import image_from_bytes
from edgead.imaging.preprocess import ModelSize
from edgead.serving.plan import check_models, read_address
from edgead.serving.replica import REPORT_S
from edgead.serving.start import serving
from tests.helpers.brightness_bundle import write_brightness_bundle
from tests.helpers.command_line import run_main
from tests.helpers.comparison_cells import LEVEL, ready_to_evaluate
from tests.helpers.mqtt_broker import free_port
from tests.helpers.parts_on_disk import SIZE_PX, write_parts
from tests.helpers.ray_cluster import needs_ray, two_nodes
from tests.helpers.serve_load import Request, kill_replica, replicas, run_load

# Ray uses old names of pydantic.
pytestmark = [needs_ray, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with two_nodes() as cluster:
        yield cluster


def images(folder: Path) -> dict[bytes, float | None]:
    """JPEG files of grey images with the scores that `edgead.load` gives them, and two files that are no images."""
    bundle = write_brightness_bundle(folder / "washer", ModelSize(SIZE_PX, SIZE_PX), LEVEL)
    files: dict[bytes, float | None] = {b"a note, not an image": None}
    with load(bundle) as model:
        for value in range(10, 250, 40):
            file = folder / f"{value}.jpg"
            assert cv2.imwrite(str(file), np.full((48, 40, 3), value, np.uint8))
            files[file.read_bytes()] = model.predict(file).anomaly_score
    files[next(data for data, score in files.items() if score is not None)[:-200]] = None
    return files


def archive(files: dict[int, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as opened:
        for name, content in files.items():
            opened.writestr(str(name), content)
    return data.getvalue()


def ask(url: str, **headers: str) -> tuple[int, bytes]:
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_a_server_that_loses_a_replica_answers_every_request_once(cluster, tmp_path):
    files = list(images(tmp_path).items())
    chosen = [files[number % len(files)] for number in range(400)]
    requests = [
        Request(f"r{number}", data, 422 if score is None else 200, score, hangs_up=number % 20 == 19)
        for number, (data, score) in enumerate(chosen)
    ]
    port = free_port()
    address, place = read_address(f"127.0.0.1:{port}"), read_place(f"ray:{cluster.address}", {})
    models = check_models([tmp_path / "washer"], 1)
    url = f"http://127.0.0.1:{port}"
    with serving(models, address, place, 2, 1):
        assert len(replicas("washer")) == 2
        done = run_load(f"{url}/models/washer", requests, 16, {100: lambda: kill_replica("washer")})
        assert done.wrong(requests) == []
        (drawn,) = run_load(f"{url}/models/washer?heatmap=1", requests[1:2], 1).answers.values()
        png = base64.b64decode(drawn[0][1]["heatmap_png"])
        assert image_from_bytes(png, "the heat map").shape == (48, 40, 3)
        packed = Request(
            "several", archive(dict(enumerate(data for data, _ in files))), kind="application/zip"
        )
        ((status, answer),) = run_load(f"{url}/models/washer", [packed], 1).answers["several"]
        assert (status, answer["id"]) == (200, "several")
        # In the order of the archive, as each alone; a broken image has an error, and the others their verdicts.
        for number, (verdict, (_, score)) in enumerate(zip(answer["verdicts"], files, strict=True)):
            assert verdict["image"] == str(number)
            assert verdict.get("anomaly_score") == (
                score if score is None else pytest.approx(score, rel=1e-4)
            )
            assert ("error" in verdict) == (score is None)
        first = Request("drawn", archive({0: files[1][0]}), kind="application/zip")
        ((status, answer),) = run_load(f"{url}/models/washer?heatmap=1", [first], 1).answers["drawn"]
        png = base64.b64decode(answer["verdicts"][0]["heatmap_png"])
        assert image_from_bytes(png, "the heat map").shape == (48, 40, 3)
        note = Request("note", b"a note, no archive", kind="application/zip")
        ((status, answer),) = run_load(f"{url}/models/washer", [note], 1).answers["note"]
        assert (status, answer["id"], answer["error"].count("\n")) == (400, "note", 0)
        assert ask(f"{url}/models/washer")[0] == 405
        assert ask(f"{url}/models/other")[0] == 404
        assert ask(f"{url}/health", Host="elsewhere.example")[0] == 421
        status, health = ask(f"{url}/health")
        assert (status, json.loads(health)["is_healthy"]) == (200, True)
        time.sleep(1.5 * REPORT_S)
        status, text = ask(f"{url}/metrics")
        assert status == 200
        numbers = dict(line.rsplit(" ", 1) for line in text.decode().splitlines() if line[0] != "#")
        verdicts = [
            int(numbers[f'edgead_requests_total{{model="washer",outcome="{one}"}}'])
            for one in ("good", "anomalous")
        ]
        # Each verdict has a time, also those of archives.
        assert int(numbers['edgead_verdict_seconds_count{model="washer"}']) == sum(verdicts) > 0


def grid_of_eight(folder: Path, out: Path) -> Grid:
    """Two datasets of different figures and four seeds, trained and built."""
    data = [write_parts(folder / "even"), write_parts(folder / "uneven")]
    image = data[1] / "test" / "good" / "000.png"
    cv2.imwrite(str(image), np.full_like(cv2.imread(str(image)), 90))
    grid = plan_grid(data, ["rd"], 4, {}, out)
    for cell in grid.cells:
        ready_to_evaluate(cell)
    return grid


class LosesANode:
    """An executor that loses a node after the first job."""

    def __init__(self, executor: Any, lose: Any) -> None:
        self._executor, self._lose = executor, lose

    def run(self, jobs: Sequence[Job], lock: int | None) -> Iterator[tuple[Job, str | None]]:
        for number, ended in enumerate(self._executor.run(jobs, lock)):
            if number == 0:
                self._lose()
            yield ended


def test_a_grid_that_loses_a_node_gives_the_table_of_one_machine(cluster, tmp_path, caplog):
    grid = grid_of_eight(tmp_path / "data", tmp_path / "out")
    broken = grid.cells[3].folder / "bundle" / "model.onnx"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-1])
    caplog.set_level("INFO")
    with open_executor(f"ray:{cluster.address}") as executor:
        losing = LosesANode(executor, lambda: cluster.remove_node(cluster.other, allow_graceful=False))
        failed = run_grid(grid, losing)
        # A cell that fails by itself is named with a path of this machine, and the others go on.
        assert set(failed) == {grid.cells[3]}
        assert str(broken) in failed[grid.cells[3]]
        assert any(record.levelname == "WARNING" and "node" in record.message for record in caplog.records)
        broken.write_bytes(whole)
        assert run_grid(grid, executor) == {}
    here = plan_grid(list(grid.datasets.values()), ["rd"], 4, {}, tmp_path / "here")
    for cell, other in zip(grid.cells, here.cells, strict=True):
        assert state_of(cell) == "done"
        assert "AUROC" in (cell.folder / "log.txt").read_text()
        # Nothing tells of the folder on the worker.
        assert not any(
            b"edgead-job-" in file.read_bytes() for file in cell.folder.rglob("*") if file.is_file()
        )
        ready_to_evaluate(other)
        report = other.folder / "report"
        if other.seed == 0:
            assert run_main("eval", str(other.folder / "bundle"), str(other.data), "--out", str(report)) == 0
        else:
            shutil.copytree(report.parents[1] / "seed0" / "report", report)
    for each in (grid, here):
        for cell in each.cells[::4]:
            shutil.copytree(here.cells[0].folder / "report", each.out / "baseline" / cell.dataset)
    one, other = (collect(each, {}).summaries for each in (grid, here))
    assert [figures(summary) for summary in one] == [figures(summary) for summary in other]
    assert figures(one[0]) != figures(one[1])


def test_a_cluster_that_is_silent_for_a_moment_ends_no_job(cluster, tmp_path, caplog, monkeypatch):
    """The probe and the list of the nodes fail once each, as of a head that starts again."""
    import ray

    caplog.set_level("INFO")
    answers = iter([True, True, False])
    monkeypatch.setattr(ray_executor, "head_answers", lambda: next(answers, True))
    lists = iter([RuntimeError("\nno node\ncan be asked")])

    def nodes() -> dict[str, dict[str, float]]:
        for error in lists:
            raise error
        return live_nodes()

    bundle = write_brightness_bundle(tmp_path / "washer", ModelSize(SIZE_PX, SIZE_PX), LEVEL)
    jobs = [
        Job(f"{number}", tmp_path / f"out{number}", (bundle, bundle / "manifest.json"), (command,))
        for number in range(2)
        for command in [("edgead", "info", str(bundle))]
    ]
    with open_executor(f"ray:{cluster.address}") as executor:
        monkeypatch.setattr(ray_executor, "live_nodes", nodes)
        # A node that an earlier test killed may still be listed, and is then reported.
        caplog.clear()
        ended = list(executor.run(jobs, None))
        assert [error for _, error in ended] == [None, None]
        assert all((job.folder / "log.txt").is_file() for job in jobs)
        warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
        assert len(warnings) == 2
        assert "can be asked" in warnings[0]
        assert all("\n" not in warning for warning in warnings)
        # For long: an error in one line, and no job stays behind.
        monkeypatch.setattr(ray_executor, "head_answers", lambda: False)
        monkeypatch.setattr(ray_executor, "_HEAD_S", 1.0)
        with pytest.raises(BackendError) as caught:
            list(executor.run(jobs, None))
        assert caught.value.hint
        assert ray.is_initialized()


def test_a_job_whose_worker_loses_its_node_runs_again(cluster, tmp_path, monkeypatch):
    """A worker that outlives its node for a moment ends its job with an OSError of Ray, "Broken pipe"."""
    whole, tries = ray_executor._run_on_worker, tmp_path / "tries"
    tries.mkdir()

    def losing(*arguments):
        number = len(list(tries.iterdir()))
        (tries / str(number)).touch()
        if number == 0:
            raise OSError("Broken pipe")
        return whole(*arguments)

    monkeypatch.setattr(ray_executor, "_run_on_worker", losing)
    bundle = write_brightness_bundle(tmp_path / "washer", ModelSize(SIZE_PX, SIZE_PX), LEVEL)
    job = Job("one", tmp_path / "out", (bundle, bundle / "manifest.json"), (("edgead", "info", str(bundle)),))
    with open_executor(f"ray:{cluster.address}") as executor:
        assert [error for _, error in executor.run([job], None)] == [None]
    assert len(list(tries.iterdir())) == 2
    assert (job.folder / "log.txt").is_file()


def test_a_node_that_is_lost_but_still_listed_prevents_no_connection(cluster, caplog, monkeypatch):
    """As in the seconds until the head notices that a node is lost."""
    lost = "ab" * 28
    monkeypatch.setattr(connection_module, "live_nodes", lambda: {lost: {"CPU": 1.0}, **live_nodes()})
    with ray_connection(cluster.address):
        assert lost not in live_nodes()
    # A node that an earlier test killed may still be listed too.
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert sum(lost[:12] in warning for warning in warnings) == 1


def test_a_head_that_is_lost_is_seen(cluster, monkeypatch):
    import ray

    with ray_connection(cluster.address):
        assert head_answers()
        context = type("Context", (), {"gcs_address": f"127.0.0.1:{free_port()}"})
        monkeypatch.setattr(ray, "get_runtime_context", context)
        assert not head_answers()


def figures(summary: Summary) -> dict[str, Any]:
    """Accuracy of a row of the table."""
    return {name: summary.figures[name] for name in ACCURACY}
