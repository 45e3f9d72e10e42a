"""What the worker asks of TensorRT 8.6, 10 and 11, by a stand-in that has what each version has and no more."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from onnx import ModelProto
from toy_graph import HEIGHT, WIDTH, toy_graph, toy_images

from edgead.engine.settings import BatchProfile, TensorRTSettings
from edgead.export.calibrate import calibrate
from edgead.export.half import half_from_float
from edgead.export.inline import without_head_function
from edgead.export.quantise import int8_from_float

VERSIONS = ("8.6.1", "10.3.0", "11.1.0")

Work = Callable[..., tuple[dict[str, Any], dict[str, Any] | None]]


@pytest.fixture
def work(tmp_path: Path) -> Work:
    shutil.copy(Path(__file__).parent / "fake_tensorrt.py", tmp_path / "tensorrt.py")

    def work(
        version: str, model: ModelProto, settings: TensorRTSettings | None = None, **environment: str
    ) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """Answers of the worker, and what the stand-in was told."""
        graph, engine = tmp_path / "graph.onnx", tmp_path / "out" / "model.engine"
        graph.write_bytes(model.SerializeToString())
        spec = {
            "backend": "tensorrt",
            "graph": str(graph),
            "engine": str(engine),
            "timing_cache": str(tmp_path / "timings" / "file.timing"),
            "batch": asdict(BatchProfile(1, 2, 8)),
            "settings": asdict(settings or TensorRTSettings(workspace_mib=256, optimization_level=4)),
        }
        result = subprocess.run(
            [sys.executable, "-m", "edgead.engine.tensorrt_worker"],
            input=json.dumps(spec),
            capture_output=True,
            text=True,
            env=os.environ
            | {
                "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}",
                "FAKE_TENSORRT_VERSION": version,
            }
            | environment,
        )
        assert result.returncode == 0, result.stderr
        answers: dict[str, Any] = {"progress": []}
        for line in result.stdout.splitlines():
            answer = json.loads(line)
            answers["progress"] += [answer.pop("progress")] if "progress" in answer else []
            answers |= answer
        return answers, json.loads(engine.read_bytes()) if engine.exists() else None

    return work


def int8() -> ModelProto:
    model = toy_graph()
    ranges = calibrate(model, toy_images(2), "minmax").ranges
    return without_head_function(int8_from_float(model, ranges))


def fp32() -> ModelProto:
    return without_head_function(toy_graph())


def fp16() -> ModelProto:
    return without_head_function(half_from_float(toy_graph()))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("graph", "flags_of_8"), [(fp32, []), (fp16, ["FP16"]), (int8, ["INT8"])], ids=["fp32", "fp16", "int8"]
)
def test_precision_is_in_the_graph_and_8_is_allowed_what_the_graph_holds(work, version, graph, flags_of_8):
    answers, told = work(version, graph())
    assert "error" not in answers
    assert told["flags"] == (flags_of_8 if version == "8.6.1" else [])
    # Of bit 0, EXPLICIT_BATCH, and bit 1, STRONGLY_TYPED.
    assert told["network"] == (1 if version == "8.6.1" else 2)
    assert told["cleared"] == ["TF32"]


@pytest.mark.parametrize("version", VERSIONS)
def test_settings_reach_the_builder(work, version):
    answers, told = work(version, fp32())
    assert (told["workspace"], told["level"], told["verbosity"]) == (256 * 2**20, 4, "DETAILED")
    assert told["hardware"] == "NONE"
    assert told["profile"] == ["images", *([count, HEIGHT, WIDTH, 3] for count in (1, 2, 8))]
    assert answers["built"] is True
    assert json.loads(answers["layers"]) == {"Layers": [], "form": "JSON"}
    assert ("building engine, 50 %" in answers["progress"]) == (version != "8.6.1")


@pytest.mark.parametrize("version", VERSIONS)
def test_compatibility_reaches_the_builder(work, version):
    settings = TensorRTSettings(version_compatible=True, hardware_compatibility="ampere+")
    _, told = work(version, fp32(), settings)
    assert told["flags"] == ["VERSION_COMPATIBLE"]
    assert told["hardware"] == "AMPERE_PLUS"


def test_timings_are_read_and_written_back(work, tmp_path):
    cache = tmp_path / "timings" / "file.timing"
    work("10.3.0", fp32())
    assert cache.read_bytes() == b"+measured"
    work("10.3.0", fp32())
    assert cache.read_bytes() == b"+measured+measured"
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]


def test_timings_of_another_gpu_are_said_and_measured_anew(work, tmp_path):
    cache = tmp_path / "timings" / "file.timing"
    cache.parent.mkdir()
    cache.write_bytes(b"of the other GPU")
    answers, told = work("8.6.1", fp32())
    assert told is not None
    assert any("file.timing is of another GPU or version" in line for line in answers["progress"])
    assert cache.read_bytes() == b"+measured"


@pytest.mark.parametrize(
    ("version", "node"), [("8.6.1", "node 13: no"), ("10.3.0", "node anomaly_map_head (AnomalyMap): no")]
)
def test_an_error_of_the_parser_has_what_the_version_tells_of_the_node(work, version, node):
    model = toy_graph()
    del model.functions[:]
    answers, told = work(version, model)
    assert answers["error"] == f"TensorRT {version} does not take the graph: {node} importer"
    assert told is None


def test_a_score_without_a_batch_axis_is_refused(work):
    # What the parser of 8.6 makes of a ReduceMax whose axes are an input: the maximum over the batch too.
    model = fp32()
    del model.graph.output[1].type.tensor_type.shape.dim[:]
    answers, told = work("8.6.1", model)
    assert "anomaly_score FLOAT of 0 axes" in answers["error"]
    assert told is None


def test_no_driver_is_named(work):
    answers, _ = work("8.6.1", fp32(), FAKE_TENSORRT_NO_DRIVER="1")
    assert answers["error"].startswith(
        "TensorRT 8.6.1 cannot start to build: no NVIDIA driver, or one too old"
    )
