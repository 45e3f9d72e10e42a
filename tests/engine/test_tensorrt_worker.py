"""Calls of the worker to TensorRT 8.6, 10 and 11, recorded by a stand-in that has the interface of each version."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from onnx import ModelProto

from edgead.engine.request import EngineRequest, EngineTask, PluginLibrary
from edgead.engine.settings import BatchProfile, TensorRTSettings
from edgead.export.head.cut import features_of
from edgead.export.head.inline import without_head_function
from edgead.export.head.plugin_node import plugin_head
from edgead.export.precision.float16 import float16_from_float32
from edgead.files.parsing import json_text
from edgead.runtime.tensorrt.engine_record import EngineRecord
from edgead.runtime.tensorrt.feature_record import FeatureRecord
from tests.helpers.int8_graph import int8_graph
from tests.helpers.toy_graph import HEIGHT, WIDTH, toy_graph, toy_images

VERSIONS = ("8.6.1", "10.3.0", "11.1.0")

Work = Callable[..., tuple[dict[str, Any], dict[str, Any] | None]]


@pytest.fixture
def work(tmp_path: Path) -> Work:
    shutil.copy(Path(__file__).parents[1] / "fakes" / "tensorrt_builder.py", tmp_path / "tensorrt.py")

    def work(
        version: str,
        model: ModelProto,
        settings: TensorRTSettings | None = None,
        plugin: dict[str, str] | None = None,
        features: FeatureRecord | None = None,
        **environment: str,
    ) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """Answers of the worker, and the record of the stand-in."""
        graph, engine = tmp_path / "graph.onnx", tmp_path / "out" / "model.engine"
        graph.write_bytes(model.SerializeToString())
        task = EngineTask(
            request=EngineRequest(
                backend="tensorrt",
                precision="fp32",
                target="r",
                batch=BatchProfile(1, 2, 8),
                settings=settings or TensorRTSettings(workspace_mib=256, optimization_level=4),
                gpu="8.7",
            ),
            graph=graph,
            engine=engine,
            timing_cache=tmp_path / "timings" / "file.timing",
            plugin=None if plugin is None else PluginLibrary(Path(plugin["path"]), plugin["sha256"]),
            features=features,
        )
        result = subprocess.run(
            [sys.executable, "-m", "edgead.engine.tensorrt_worker"],
            input=json_text(asdict(task)),
            capture_output=True,
            text=True,
            env=os.environ
            | {
                "PYTHONPATH": first_on_path(tmp_path),
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


def first_on_path(folder: Path) -> str:
    """PYTHONPATH with this folder first, and no empty entry, which would be the working directory."""
    return os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))


def int8() -> ModelProto:
    model = toy_graph()
    return without_head_function(int8_graph(model, toy_images(2)))


def fp32() -> ModelProto:
    return without_head_function(toy_graph())


def fp16() -> ModelProto:
    return without_head_function(float16_from_float32(toy_graph()))


def int8_and_half() -> ModelProto:
    model = toy_graph()
    return without_head_function(float16_from_float32(int8_graph(model, toy_images(2)), layers=["embedding"]))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("graph", "flags_of_8"),
    [
        (fp32, []),
        (fp16, ["FP16", "OBEY_PRECISION_CONSTRAINTS"]),
        # What is not INT8 need not be float32.
        (int8, ["INT8", "FP16", "OBEY_PRECISION_CONSTRAINTS"]),
        (int8_and_half, ["INT8", "FP16", "OBEY_PRECISION_CONSTRAINTS"]),
    ],
    ids=["fp32", "fp16", "int8", "int8-and-half"],
)
def test_precision_is_in_the_graph_and_8_is_allowed_what_the_graph_holds(work, version, graph, flags_of_8):
    answers, told = work(version, graph())
    assert "error" not in answers
    assert told["flags"] == (flags_of_8 if version == "8.6.1" else [])
    # Of bit 0, EXPLICIT_BATCH, and bit 1, STRONGLY_TYPED.
    assert told["network"] == (1 if version == "8.6.1" else 2)
    assert told["cleared"] == ["TF32"]


def test_8_keeps_float32_what_is_float32_beside_half(work):
    model = fp16()
    _, told = work("8.6.1", model)
    held = {name for name, dtype in told["held"] if dtype == "FLOAT"}
    assert len(held) == len(told["held"])
    # The image is normalised in float32, and the head squares in it.
    products = {node.output[0] for node in model.graph.node if node.op_type == "MatMul"}
    assert {"planes", "scaled", "normalised", "anomaly_map", "anomaly_score"} | products <= held
    assert not held & {
        "normalised_half",
        "image",
        "teacher",
        "down",
        "main",
        "sum",
        "residual",
        "up",
        "student",
    }
    assert not held & {node.output[0] for node in model.graph.node if node.op_type == "Constant"}


def test_8_chooses_freely_without_half(work):
    assert work("8.6.1", fp32())[1]["held"] == []


@pytest.mark.parametrize("graph", [int8, int8_and_half])
def test_8_keeps_float32_only_the_head_behind_quantised_layers(work, graph):
    model = graph()
    held = {name for name, _ in work("8.6.1", model)[1]["held"]}
    products = {node.output[0] for node in model.graph.node if node.op_type in ("MatMul", "ReduceSum")}
    assert {"anomaly_map", "anomaly_score"} | products <= held
    # The layers up to the last convolution may be fused into INT8 layers.
    assert not held & {"image", "conv_t", "teacher", "down", "embedding", "main", "sum", "residual", "up"}


def test_8_leaves_the_plugin_the_types_that_it_takes(work, plugin):
    _, told = work(
        "8.6.1", without_head_function(plugin_head(float16_from_float32(toy_graph()))), plugin=plugin
    )
    assert "OBEY_PRECISION_CONSTRAINTS" in told["flags"]
    assert ["normalised", "FLOAT"] in told["held"]
    assert not {"anomaly_map", "anomaly_score"} & {name for name, _ in told["held"]}


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
    answers, told = work(version, fp32(), settings)
    assert told["flags"] == ["VERSION_COMPATIBLE"]
    assert told["hardware"] == "AMPERE_PLUS"
    assert "carried" not in told
    # The worker opens its own engine, which contains code for the host.
    assert json.loads(answers["layers"]) == {"Layers": [], "form": "JSON"}


def test_timings_are_read_and_written_back(work, tmp_path):
    cache = tmp_path / "timings" / "file.timing"
    work("10.3.0", fp32())
    assert cache.read_bytes() == b"+measured"
    work("10.3.0", fp32())
    assert cache.read_bytes() == b"+measured+measured"
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]


def test_timings_of_another_gpu_are_logged_and_measured_again(work, tmp_path):
    cache = tmp_path / "timings" / "file.timing"
    cache.parent.mkdir()
    cache.write_bytes(b"of the other GPU")
    answers, told = work("8.6.1", fp32())
    assert told is not None
    assert any("file.timing" in line for line in answers["progress"])
    assert cache.read_bytes() == b"+measured"


def test_timings_that_cannot_be_written_are_only_logged(work, tmp_path):
    (tmp_path / "timings").write_text("a file where the directory would be\n")
    answers, told = work("10.3.0", fp32())
    assert answers["built"] is True
    assert told is not None
    assert len([line for line in answers["progress"] if str(tmp_path / "timings") in line]) == 1


def test_timings_that_cannot_be_read_are_measured_again(work, tmp_path):
    cache = tmp_path / "timings" / "file.timing"
    cache.parent.mkdir()
    # Nobody can read the first byte of this file.
    cache.symlink_to("/proc/self/mem")
    answers, _ = work("10.3.0", fp32())
    assert answers["built"] is True
    assert cache.read_bytes() == b"+measured"


@pytest.mark.parametrize(
    ("version", "node"), [("8.6.1", "node 13: no"), ("10.3.0", "node anomaly_map_head (AnomalyMap): no")]
)
def test_an_error_of_the_parser_has_the_node_as_the_version_reports_it(work, version, node):
    model = toy_graph()
    del model.functions[:]
    answers, told = work(version, model)
    assert f"TensorRT {version}" in answers["error"]
    assert f"{node} importer" in answers["error"]
    assert told is None


def test_a_score_without_a_batch_axis_is_refused(work):
    # The parser of 8.6 reads a ReduceMax with axes as an input as a maximum over all axes, including the batch.
    model = fp32()
    del model.graph.output[1].type.tensor_type.shape.dim[:]
    answers, told = work("8.6.1", model)
    assert "anomaly_score FLOAT of 0 axes" in answers["error"]
    assert told is None


def test_no_driver_is_named(work):
    answers, _ = work("8.6.1", fp32(), FAKE_TENSORRT_NO_DRIVER="1")
    assert "TensorRT 8.6.1" in answers["error"]
    assert "NVIDIA driver" in answers["error"]


@pytest.fixture
def plugin(tmp_path: Path) -> dict[str, str]:
    """A library that sets a variable for the stand-in when it is loaded, as a plugin registers itself in TensorRT."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc: apt-get install gcc")
    source, library = tmp_path / "plugin.c", tmp_path / "plugin.so"
    source.write_text(
        "#include <stdlib.h>\n"
        '__attribute__((constructor)) void tell(void) { setenv("FAKE_TENSORRT_PLUGIN", "1", 1); }\n'
        "int edgead_tensorrt_of_headers(void) { return 100300; }\n"
        "int edgead_tensorrt_of_library(void) { return 100300; }\n"
    )
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
    return {"path": str(library), "sha256": hashlib.sha256(library.read_bytes()).hexdigest()}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "graph", [toy_graph, lambda: float16_from_float32(toy_graph())], ids=["fp32", "fp16"]
)
def test_a_plugin_is_loaded_before_the_graph_is_read(work, plugin, version, graph):
    model = without_head_function(plugin_head(graph()))
    answers, told = work(version, model, plugin=plugin)
    assert "error" not in answers
    assert "carried" not in told
    # Without it the parser knows no such node.
    assert "no importer" in work(version, model)[0]["error"]


COMPATIBLE = TensorRTSettings(version_compatible=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "graph", [toy_graph, lambda: float16_from_float32(toy_graph())], ids=["fp32", "fp16"]
)
def test_a_version_compatible_engine_carries_its_plugin(work, plugin, version, graph):
    model = without_head_function(plugin_head(graph()))
    answers, told = work(version, model, COMPATIBLE, plugin=plugin)
    assert "error" not in answers
    assert told["carried"] == [plugin["path"]]
    assert "VERSION_COMPATIBLE" in told["flags"]
    # The worker could open the engine again, because only the registry of the builder has the plugin.
    assert json.loads(answers["layers"]) == {"Layers": [], "form": "JSON"}


def test_a_plugin_is_carried_by_its_whole_path(work, plugin, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = without_head_function(plugin_head(toy_graph()))
    relative = plugin | {"path": Path(plugin["path"]).name}
    assert work("10.3.0", model, COMPATIBLE, plugin=relative)[1]["carried"] == [plugin["path"]]


def test_a_version_without_plugins_in_engines_is_named(work, plugin):
    model = without_head_function(plugin_head(toy_graph()))
    answers, told = work("8.6.1", model, COMPATIBLE, plugin=plugin, FAKE_TENSORRT_CARRIES_NOTHING="1")
    for value in ("TensorRT 8.6.1", "plugins_to_serialize"):
        assert value in answers["error"]
    for value in ("--head standard", "version_compatible"):
        assert value in answers["hint"]
    assert told is None
    # An engine without a plugin does not need it.
    assert work("8.6.1", model, plugin=plugin, FAKE_TENSORRT_CARRIES_NOTHING="1")[1] is not None


def test_a_plugin_that_the_builder_refuses_is_one_line(work, plugin):
    model = without_head_function(plugin_head(toy_graph()))
    answers, told = work("10.3.0", model, COMPATIBLE, plugin=plugin, FAKE_TENSORRT_NO_PLUGIN="1")
    for value in (
        "TensorRT 10.3.0",
        plugin["path"],
        "Cannot register the library as plugin creator exists already.",
    ):
        assert value in answers["error"]
    assert "'edgead plugin build'" in answers["hint"]
    assert told is None


@pytest.mark.parametrize("settings", [None, COMPATIBLE], ids=["loaded", "carried"])
def test_a_plugin_that_was_changed_is_not_loaded(work, plugin, settings):
    model = without_head_function(plugin_head(toy_graph()))
    answers, told = work("10.3.0", model, settings, plugin=plugin | {"sha256": "0" * 64})
    for value in (plugin["path"], plugin["sha256"], "0" * 64):
        assert value in answers["error"]
    assert told is None


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "graph", [toy_graph, lambda: float16_from_float32(toy_graph())], ids=["fp32", "fp16"]
)
def test_a_graph_of_features_is_built(work, version, graph):
    model, features = features_of(graph())
    answers, told = work(version, without_head_function(model), features=features)
    assert "error" not in answers
    assert told is not None


def test_a_graph_of_other_features_is_refused(work):
    model, features = features_of(toy_graph())
    for changed in (
        replace(features, dtype="float16"),
        replace(features, shapes=features.shapes * 2),
        None,
    ):
        answers, told = work("10.3.0", without_head_function(model), features=changed)
        assert "student_features_1 FLOAT of 4 axes, teacher_features_1 FLOAT of 4 axes" in answers["error"]
        assert told is None


def test_a_whole_graph_is_no_graph_of_features(work):
    answers, _ = work("10.3.0", fp32(), features=features_of(toy_graph())[1])
    assert answers["error"].endswith("student_features_1 FLOAT of 4 axes, teacher_features_1 FLOAT of 4 axes")
    assert "'edgead build'" in answers["hint"]


@pytest.mark.parametrize("task", ["", "{}", "[" * 100_000, '{"request": 1}', "\udcff", " " * 2**17])
def test_an_invalid_task_is_answered_in_one_line(task):
    result = subprocess.run(
        [sys.executable, "-m", "edgead.engine.tensorrt_worker"],
        input=task.encode(errors="surrogateescape"),
        capture_output=True,
    )
    assert result.returncode == 0
    (line,) = result.stdout.splitlines()
    answer = json.loads(line)
    assert list(answer) == ["error", "hint", "refused"]
    # Another graph would not help.
    assert answer["refused"] is False


BUILD = """
import logging
import os
import sys
from pathlib import Path
from edgead.engine.request import EngineRequest
from edgead.engine.settings import BatchProfile, TensorRTSettings
from edgead.engine.tensorrt_build import build_engine
from edgead.errors import EdgeadError

class Log(logging.Handler):
    def emit(self, record):
        if "gone" in sys.argv:
            raise BrokenPipeError("nobody reads the log")

logging.basicConfig(level=logging.INFO, handlers=[Log()])
folder = Path(sys.argv[1])
if "among-modules" in sys.argv:
    os.chdir(folder / "modules")
    # Like Python 3.10, which ignores the variable.
    sys.executable = str(folder / "python3.10")
try:
    built = build_engine(
        folder / "model.onnx",
        EngineRequest(
            backend="tensorrt", precision="fp32", target="r", batch=BatchProfile(), gpu="8.7", head="plugin",
            settings=TensorRTSettings(version_compatible="compatible" in sys.argv),
        ),
        directory=folder, timing_caches=folder,
    )
except BrokenPipeError as error:
    sys.exit(f"the caller's own: {error}")
except EdgeadError as error:
    sys.exit(f"{type(error).__name__}: {error}")
print(built.record.to_json())
"""


@pytest.fixture
def build(tmp_path, monkeypatch, plugin) -> Callable[..., subprocess.CompletedProcess[str]]:
    shutil.copy(Path(__file__).parents[1] / "fakes" / "tensorrt_builder.py", tmp_path / "tensorrt.py")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", first_on_path(tmp_path))
    monkeypatch.setenv("FAKE_TENSORRT_VERSION", "10.3.0")

    def build(
        model: ModelProto, *arguments: str, with_plugin: bool = True
    ) -> subprocess.CompletedProcess[str]:
        place = tmp_path / "cache" / "edgead" / "plugin" / "libedgead_plugin.so"
        if with_plugin:
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(plugin["path"], place)
        (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
        return subprocess.run(
            [sys.executable, "-c", BUILD, str(tmp_path), *arguments], capture_output=True, text=True
        )

    return build


def test_an_engine_with_the_plugin_names_its_library(build, plugin):
    result = build(toy_graph())
    assert result.returncode == 0, result.stderr
    record = EngineRecord.from_json(result.stdout, "")
    assert (record.head, record.plugin_sha256, record.features) == ("plugin", plugin["sha256"], None)
    # This is the graph of the bundle, not the graph that was made from it for the library.
    assert record.graph_sha256 == hashlib.sha256(toy_graph().SerializeToString()).hexdigest()


def test_without_a_library_the_error_names_the_command(build):
    error = build(toy_graph(), with_plugin=False).stderr
    assert error.startswith("BackendError: ")
    assert "libedgead_plugin.so" in error
    assert error.endswith("'edgead plugin build'\n")


def test_a_version_compatible_engine_with_the_plugin_names_and_carries_its_library(build, plugin, tmp_path):
    result = build(toy_graph(), "compatible")
    assert result.returncode == 0, result.stderr
    record = EngineRecord.from_json(result.stdout, "")
    assert (record.head, record.plugin_sha256) == ("plugin", plugin["sha256"])
    assert record.version_compatible
    assert record.carries_plugin
    (carried,) = json.loads((tmp_path / "model.engine").read_bytes())["carried"]
    assert carried == str(tmp_path / "cache" / "edgead" / "plugin" / "libedgead_plugin.so")


def test_a_head_that_the_plugin_cannot_compute_is_refused_with_its_sigma(build):
    model = toy_graph()
    (sigma,) = (a for a in model.graph.node[-1].attribute if a.name == "sigma")
    sigma.f = 33.0
    error = build(model).stderr
    assert error.startswith("BackendError: ")
    for value in ("32.0", "33.0", "--head standard"):
        assert value in error


def test_an_error_in_the_log_of_the_caller_reaches_the_caller(build):
    assert build(toy_graph(), "gone").stderr == "the caller's own: nobody reads the log\n"


def test_no_module_of_the_working_directory_is_imported(build, tmp_path):
    (tmp_path / "modules").mkdir()
    for name in ("json", "edgead", "threading"):
        (tmp_path / "modules" / f"{name}.py").write_text("raise SystemExit(7)\n")
    python = tmp_path / "python3.10"
    python.write_text(f'#!/bin/sh\nunset PYTHONSAFEPATH\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    result = build(toy_graph(), "among-modules")
    assert result.returncode == 0, result.stderr
