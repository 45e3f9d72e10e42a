"""`edgead info` of runs and bundles, without torch, and without onnx."""

import json
import subprocess
import sys

import onnx
import pytest

from edgead import __version__
from edgead.bundle import open_bundle
from edgead.engine.build import build_bundle
from edgead.export.cost import cost_of
from edgead.imaging.preprocess import ModelSize
from edgead.scoring.threshold import Threshold
from edgead.training.run import open_run, read_record
from tests.helpers.brightness_bundle import write_brightness_bundle
from tests.helpers.command_line import run_main
from tests.helpers.toy_run import PART, ToyRun
from tests.helpers.training_parts import TINY_TEACHER, write_images

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


def test_a_bundle_says_what_its_manifest_and_graph_say(bundle):
    said, manifest = info(bundle.path), bundle.manifest
    cost = cost_of(onnx.load(bundle.file("model.onnx")))
    assert (said["kind"], said["state"]) == ("bundle", "finished")
    assert (said["target"], said["backend"]) == ("cpu", "onnxruntime")
    assert (said["method"], said["teacher"]) == (manifest.method, manifest.teacher)
    assert (said["size"], said["precision"], said["verified"]) == (str(manifest.size), "fp32", True)
    assert (said["parameters"], said["gflop"]) == (cost.parameters, cost.flop / 1e9)
    assert said["model_mb"] == bundle.file("model.onnx").stat().st_size / 1e6
    threshold = manifest.thresholds[PART]
    assert said["parts"][PART]["threshold"] == threshold.value
    assert said["parts"][PART]["held_out"] == threshold.n_normal
    found = said["verification"][PART]
    assert (found["reference"], found["n"]) == ("torch", manifest.verification["parts"][PART]["n"])
    assert found["measured"]["decision_flips"] == 0
    assert found["allowed"] == manifest.verification["parts"][PART]["limits"]
    assert (said["written_at"], said["edgead_version"]) == (manifest.created_at, __version__)


def test_without_onnx_the_row_says_what_to_install(bundle):
    said = info(bundle.path, blocked=f"{TRAINING},onnx")
    assert said["parameters"] is said["gflop"] is None
    assert set(said["absent"]) == {"parameters", "gflop"}
    assert "edgead[build]" in said["absent"]["gflop"]


def test_a_run_says_what_its_record_says(run):
    said, record = info(run), read_record(run)
    assert (said["kind"], said["state"], said["method"]) == ("run", record.state, "rstpm:deep")
    assert (said["teacher"], said["size"], said["precision"]) == (TINY_TEACHER, "64x64", "32-true")
    assert said["data"] == list(record.config.data)
    part = said["parts"]["discs"]
    assert (part["trained_on"], part["held_out"]) == (11, 1)
    assert part["threshold"] == record.parts["discs"].threshold.value
    assert (said["gflop"], said["verified"]) == (None, None)
    assert said["model_mb"] == (run / "model.safetensors").stat().st_size / 1e6
    record_file = run / "run.json"
    content = json.loads(record_file.read_text())
    record_file.write_text(json.dumps({**content, "state": "finished"}))
    learnt = sum(parameter.numel() for parameter in open_run(run).load_model().parameters())
    assert said["parameters"] == learnt
    assert said["edgead_version"] == __version__
    assert said["written_at"] == record.summary["finished_at"]


@pytest.mark.parametrize("kind", ["run", "bundle"])
def test_the_table_has_the_same_facts(kind, run, bundle, capsys):
    path = run if kind == "run" else bundle.path
    assert run_main("info", str(path)) == 0
    lines = capsys.readouterr().out.splitlines()
    said = info(path)
    facts = {line[:20].strip(): line[21:] for line in lines}
    assert facts[kind] == str(path)
    assert facts["method"] == said["method"]
    assert facts["parameters"] == f"{said['parameters']:,}"
    assert {"GFLOP", "verified"} <= facts.keys()
    (part,) = said["parts"]
    assert facts["part"].startswith(f"{part}: ")


def test_an_unfinished_run_has_no_threshold_yet(run, tmp_path):
    content = json.loads((run / "run.json").read_text())
    parts = {name: {**part, "threshold": None} for name, part in content["parts"].items()}
    (tmp_path / "run.json").write_text(
        json.dumps({**content, "state": "training", "parts": parts, "summary": {}})
    )
    said = info(tmp_path)
    assert said["state"] == "training"
    assert said["parts"]["discs"]["threshold"] is None
    assert said["model_mb"] is said["parameters"] is None


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
