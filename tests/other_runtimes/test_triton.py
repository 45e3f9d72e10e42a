"""A model repository is read with Triton's protobuf, and its files as the backends read them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from typer.testing import CliRunner

from edgead.bundle import Bundle, open_bundle, write_bundle
from edgead.cli.main import app
from edgead.errors import BundleError, InputError
from edgead.imaging.preprocess import ModelSize
from edgead.imaging.view import View
from edgead.other_runtimes.triton import export_triton
from edgead.runtime.tensorrt.engine_record import EngineRecord
from edgead.scoring.threshold import Threshold
from tests.helpers.brightness_bundle import write_brightness_bundle
from tests.helpers.openvino_here import needs_openvino
from tests.helpers.triton_config import model_config

HEIGHT, WIDTH = 32, 64
THRESHOLDS = {
    name: Threshold(value, 0.01, 0.95, 0.95, 299, 299) for name, value in (("nut", 0.4), ('a "b"|c', 0.625))
}
BITS = {"TYPE_UINT8": onnx.TensorProto.UINT8, "TYPE_FP32": onnx.TensorProto.FLOAT}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path = tmp_path_factory.mktemp("triton") / "my-parts"
    view = View(fit="pad", roi=((2, 1), (9, 1), (9, 8), (2, 8)))
    return open_bundle(write_brightness_bundle(path, ModelSize(HEIGHT, WIDTH), THRESHOLDS, view=view))


def for_backend(bundle: Bundle, out: Path, backend: str, precision: str = "fp32", **engine: Any) -> Bundle:
    """The same bundle for another backend, with an engine that nothing runs."""
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    if engine:
        record = EngineRecord(
            backend,
            "10.3.0",
            "linux-x86_64",
            ("8.6",),
            "none",
            False,
            precision,
            (1, 4, 16),
            "0" * 64,
            "datacenter",
        )
        record = dataclasses.replace(record, **engine)
        files |= {"engine.json": record.to_json().encode(), "model.engine": b"an engine"}
    manifest = dataclasses.replace(bundle.manifest, backend=backend, precision=precision)
    return write_bundle(out, manifest, files)


def exported(bundle: Bundle, out: Path) -> tuple[Path, Any]:
    """The folder of the model, and its parsed configuration."""
    model = export_triton(bundle, out)
    return model.path, model_config((model.path / "config.pbtxt").read_text(encoding="utf-8"))


def values(repeated: Any) -> dict[str, Any]:
    return {one.name: one for one in repeated}


def data_type(tensor: Any) -> int:
    name = tensor.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[tensor.data_type].name
    return BITS[name]


def check_tensors(config: Any, model: onnx.ModelProto) -> None:
    """Compare the tensors of a configuration with those of the graph, of which Triton adds the first dimension."""
    for described, graph in ((config.input, model.graph.input), (config.output, model.graph.output)):
        assert list(values(described)) == list(values(graph))
        for name, tensor in values(graph).items():
            (first, *others) = tensor.type.tensor_type.shape.dim
            assert first.dim_param
            served = values(described)[name]
            dims = list(served.reshape.shape) if served.HasField("reshape") else list(served.dims)
            assert dims == [one.dim_value for one in others]
            assert data_type(served) == tensor.type.tensor_type.elem_type
            # Triton refuses a tensor without a dimension.
            assert len(served.dims) >= 1
            # A reshape changes the dimensions alone, not the number of elements.
            assert np.prod(served.dims) == np.prod(dims)


def test_the_configuration_is_that_of_the_graph(bundle: Bundle, tmp_path: Path):
    folder, config = exported(bundle, tmp_path / "models")
    assert folder == tmp_path / "models/my-parts"
    assert (config.name, config.backend, config.default_model_filename) == (
        "my-parts",
        "onnxruntime",
        "model.onnx",
    )
    check_tensors(config, onnx.load(folder / "1/model.onnx"))
    assert config.max_batch_size == 8
    assert config.HasField("dynamic_batching")
    assert config.version_policy.latest.num_versions == 1
    (group,) = config.instance_group
    assert (group.count, group.kind) == (1, group.KIND_CPU)
    assert not config.HasField("optimization")
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    assert {float(parameters[f"edgead.threshold.{part}"]) for part in THRESHOLDS} == {0.4, 0.625}
    assert parameters["edgead.view"] == str(bundle.manifest.view)


def test_each_warm_up_is_a_golden_image_that_the_graph_takes(bundle: Bundle, tmp_path: Path):
    folder, config = exported(bundle, tmp_path / "models")
    golden = bundle.golden()
    session = onnxruntime.InferenceSession(folder / "1/model.onnx", providers=["CPUExecutionProvider"])
    batches = [warm_up.batch_size for warm_up in config.model_warmup]
    assert batches == [*[1] * len(golden.images), config.max_batch_size]
    assert len({warm_up.name for warm_up in config.model_warmup}) == len(batches)
    scores = []
    for warm_up in config.model_warmup:
        ((name, data),) = warm_up.inputs.items()
        assert data_type(data) == onnx.TensorProto.UINT8
        content = (folder / "warmup" / data.input_data_file).read_bytes()
        # One image, which Triton repeats for a batch.
        assert len(content) == np.prod(data.dims)
        batch = np.frombuffer(content, np.uint8).reshape(1, *data.dims).repeat(warm_up.batch_size, 0)
        (found,) = session.run(["anomaly_score"], {name: batch})
        assert found.shape == (warm_up.batch_size,)
        scores.append(found[0])
    np.testing.assert_array_equal(scores[:-1], golden.anomaly_score)
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert all(f"| {float(score)!r} |" in text for score in golden.anomaly_score)


def test_int8_on_onnx_runtime_is_not_fused(bundle: Bundle, tmp_path: Path):
    _, config = exported(for_backend(bundle, tmp_path / "b", "onnxruntime", "int8"), tmp_path / "models")
    assert config.optimization.graph.level == -1


@needs_openvino
def test_openvino_takes_the_batch_that_the_configuration_has(bundle: Bundle, tmp_path: Path):
    import openvino

    folder, config = exported(for_backend(bundle, tmp_path / "b", "openvino"), tmp_path / "models")
    check_tensors(config, onnx.load(folder / "1/model.onnx"))
    assert (config.backend, config.instance_group[0].kind) == ("openvino", config.instance_group[0].KIND_CPU)
    # As Triton's backend reads it: the first dimension is the batch, and is fixed.
    core = openvino.Core()
    steps = openvino.preprocess.PrePostProcessor(
        core.read_model(folder / "1" / config.default_model_filename)
    )
    steps.input("images").tensor().set_layout(openvino.Layout("N..."))
    graph = steps.build()
    openvino.set_batch(graph, config.max_batch_size)
    image = np.frombuffer((folder / "warmup/golden-0").read_bytes(), np.uint8).reshape(1, HEIGHT, WIDTH, 3)
    found = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})({"images": image})
    np.testing.assert_allclose(found["anomaly_score"], bundle.golden().anomaly_score[:1], rtol=1e-5)


@pytest.mark.parametrize(
    ("engine", "option"),
    [
        ({"head": "standard"}, None),
        ({"head": "plugin", "plugin_sha256": "1" * 64}, "plugins="),
        (
            {"head": "plugin", "plugin_sha256": "1" * 64, "version_compatible": True},
            "version-compatible=true",
        ),
        ({"version_compatible": True}, "version-compatible=true"),
    ],
)
def test_an_engine_is_served_with_its_largest_batch(
    bundle: Bundle, tmp_path: Path, engine: dict[str, Any], option: str | None
):
    folder, config = exported(
        for_backend(bundle, tmp_path / "b", "tensorrt", "fp16", **engine), tmp_path / "models"
    )
    assert (folder / "1" / config.default_model_filename).read_bytes() == b"an engine"
    assert (config.backend, config.max_batch_size) == ("tensorrt", 16)
    assert config.instance_group[0].kind == config.instance_group[0].KIND_GPU
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert ("--backend-config" in text) == (option is not None)
    assert option is None or option in text


@pytest.mark.parametrize(
    ("backend", "precision", "engine"),
    [
        ("openvino", "int8", {}),
        ("openvino-gpu", "fp32", {}),
        ("openvino-npu", "fp16", {}),
        ("tensorrt-rtx", "fp16", {"head": "standard"}),
        ("tensorrt", "fp16", {"batch": (2, 4, 16)}),
    ],
)
def test_what_triton_would_compute_otherwise_is_refused(
    bundle: Bundle, tmp_path: Path, backend: str, precision: str, engine: dict[str, Any]
):
    other = for_backend(bundle, tmp_path / "b", backend, precision, **engine)
    with pytest.raises(InputError):
        export_triton(other, tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_a_repository_takes_several_models_and_a_newer_export(bundle: Bundle, tmp_path: Path):
    repository = tmp_path / "models"
    copytree(bundle.path, tmp_path / "other-parts")
    export_triton(bundle, repository)
    export_triton(open_bundle(tmp_path / "other-parts"), repository)
    (repository / "my-parts/1/model.onnx").write_bytes(b"old")
    export_triton(bundle, repository)
    assert sorted(entry.name for entry in repository.iterdir()) == ["my-parts", "other-parts"]
    assert (repository / "my-parts/1/model.onnx").read_bytes() == bundle.read("model.onnx")


def test_what_is_no_model_of_edgead_stays(bundle: Bundle, tmp_path: Path):
    notes, other = tmp_path / "notes", tmp_path / "models"
    notes.mkdir()
    (notes / "mine.txt").write_text("mine")
    (other / "my-parts").mkdir(parents=True)
    (other / "my-parts/config.pbtxt").write_text('backend: "python"\n')
    for repository in (notes, other):
        before = sorted(path.relative_to(tmp_path) for path in repository.rglob("*"))
        with pytest.raises(InputError):
            export_triton(bundle, repository)
        assert sorted(path.relative_to(tmp_path) for path in repository.rglob("*")) == before
    with pytest.raises(InputError):
        export_triton(bundle, tmp_path / "new", "../up")


def test_the_command_names_the_model(bundle: Bundle, tmp_path: Path):
    done = CliRunner().invoke(
        app, ["export-triton", str(bundle.path), "--out", str(tmp_path / "models"), "--name", "washer"]
    )
    assert done.exit_code == 0, done.output
    assert str(tmp_path / "models/washer") in done.stdout
    broken = tmp_path / "broken"
    copytree(bundle.path, broken)
    manifest = json.loads((broken / "manifest.json").read_text())
    (broken / "manifest.json").write_text(json.dumps({**manifest, "precision": "int4"}))
    refused = CliRunner().invoke(app, ["export-triton", str(broken), "--out", str(tmp_path / "new")])
    assert isinstance(refused.exception, BundleError)
    assert not (tmp_path / "new").exists()
