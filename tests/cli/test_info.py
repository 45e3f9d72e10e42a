"""`edgead info` of runs and bundles, without torch, and without onnx."""

import json
import subprocess
import sys

import pytest

from edgead import __version__
from edgead.bundle import open_bundle
from edgead.engine.build import build_bundle
from edgead.export.cost import cost_of
from edgead.export.head.model_file import graph_from_file
from edgead.imaging.preprocess import ModelSize
from edgead.scoring.threshold import Threshold
from edgead.training.run import open_run, read_record
from tests.helpers.brightness_bundle import write_brightness_bundle
from tests.helpers.command_line import run_main
from tests.helpers.toy_run import PART, ToyRun
from tests.helpers.training_parts import TINY_TEACHER, write_images

pytestmark = pytest.mark.usefixtures("graphs_exported_once")

BLOCKED = """
import sys
for name in sys.argv.pop().split(","):
    sys.modules[name] = None
from edgead.cli.main import main
main()
"""
TRAINING = "torch,timm,lightning_fabric,safetensors,rich,matplotlib,jinja2"


def info(path, blocked=TRAINING):
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, "info", str(path), "--json", blocked],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return build_bundle(ToyRun(), tmp_path_factory.mktemp("engines") / "toy")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    data = write_images(root / "discs", 12)
    model = f"--method rstpm --variant deep --teacher {TINY_TEACHER} --teacher-weights random --size 64"
    machine = "--epochs 1 --accelerator cpu"
    code = run_main("train", str(data), "--out", str(root / "run"), *model.split(), *machine.split())
    assert code in (0, 4)
    return root / "run"


def test_a_bundle_is_described_by_its_manifest_and_graph(bundle):
    described, manifest = info(bundle.path), bundle.manifest
    cost = cost_of(graph_from_file(bundle.graph()))
    assert (described["kind"], described["state"]) == ("bundle", "finished")
    assert (described["target"], described["backend"]) == ("cpu", "onnxruntime")
    assert (described["method"], described["teacher"]) == (manifest.method, manifest.teacher)
    assert (described["size"], described["precision"], described["verified"]) == (
        str(manifest.size),
        "fp32",
        True,
    )
    assert (described["parameters"], described["gflop"]) == (cost.parameters, cost.flop / 1e9)
    assert described["model_mb"] == bundle.file("model.onnx").stat().st_size / 1e6
    threshold = manifest.thresholds[PART]
    assert described["parts"][PART]["threshold"] == threshold.value
    assert described["parts"][PART]["held_out"] == threshold.n_normal
    found = described["verification"][PART]
    assert (found["reference"], found["n"]) == ("torch", manifest.verification["parts"][PART]["n"])
    assert found["measured"]["decision_flips"] == 0
    assert found["allowed"] == manifest.verification["parts"][PART]["limits"]
    assert (described["written_at"], described["edgead_version"]) == (manifest.created_at, __version__)


def test_without_onnx_the_row_names_the_extra(bundle):
    described = info(bundle.path, blocked=f"{TRAINING},onnx")
    assert described["parameters"] is described["gflop"] is None
    assert set(described["absent"]) == {"parameters", "gflop"}
    assert "edgead[build]" in described["absent"]["gflop"]


def test_a_run_is_described_by_its_record(run):
    described, record = info(run), read_record(run)
    assert (described["kind"], described["state"], described["method"]) == ("run", record.state, "rstpm:deep")
    assert (described["teacher"], described["size"], described["precision"]) == (
        TINY_TEACHER,
        "64x64",
        "32-true",
    )
    assert described["data"] == list(record.config.data)
    part = described["parts"]["discs"]
    assert (part["trained_on"], part["held_out"]) == (8, 4)
    assert part["threshold"] == record.parts["discs"].threshold.value
    assert (described["gflop"], described["verified"]) == (None, None)
    assert described["model_mb"] == (run / "model.safetensors").stat().st_size / 1e6
    record_file = run / "run.json"
    content = json.loads(record_file.read_text())
    record_file.write_text(json.dumps({**content, "state": "finished"}))
    learnt = sum(parameter.numel() for parameter in open_run(run).load_model().parameters())
    assert described["parameters"] == learnt
    assert described["edgead_version"] == __version__
    assert described["written_at"] == record.summary["finished_at"]


@pytest.mark.parametrize("kind", ["run", "bundle"])
def test_the_table_has_the_same_facts(kind, run, bundle, capsys):
    path = run if kind == "run" else bundle.path
    assert run_main("info", str(path)) == 0
    lines = capsys.readouterr().out.splitlines()
    described = info(path)
    facts = {line[:20].strip(): line[21:] for line in lines}
    assert facts[kind] == str(path)
    assert facts["method"] == described["method"]
    assert facts["parameters"] == f"{described['parameters']:,}"
    assert {"GFLOP", "verified"} <= facts.keys()
    (part,) = described["parts"]
    assert facts["part"].startswith(f"{part}: ")


def test_an_unfinished_run_has_no_threshold_yet(run, tmp_path):
    content = json.loads((run / "run.json").read_text())
    parts = {name: {**part, "threshold": None} for name, part in content["parts"].items()}
    (tmp_path / "run.json").write_text(
        json.dumps({**content, "state": "training", "parts": parts, "summary": {}})
    )
    described = info(tmp_path)
    assert described["state"] == "training"
    assert described["parts"]["discs"]["threshold"] is None
    assert described["model_mb"] is described["parameters"] is None


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"config": 3}', '{"config": {}, "state": "asleep"}', "[" * 100000], ids=len
)
def test_a_broken_record_is_one_line(content, tmp_path, capsys):
    (tmp_path / "run.json").write_text(content)
    assert run_main("info", str(tmp_path)) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_header_that_lies_about_its_length_is_one_line(run, tmp_path, capsys):
    (tmp_path / "run.json").write_bytes((run / "run.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 8 + b"{}")
    assert run_main("info", str(tmp_path)) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_damaged_bundle_and_anything_else_are_refused(tmp_path, capsys):
    path = write_brightness_bundle(
        tmp_path / "b", ModelSize(32, 32), Threshold(0.2, 0.01, 0.95, 0.95, 299, 299)
    )
    (open_bundle(path).file("model.onnx")).write_bytes(b"x")
    for model in (path, tmp_path, tmp_path / "gone"):
        assert run_main("info", str(model)) == 1
        assert capsys.readouterr().err.count("\n") == 1
