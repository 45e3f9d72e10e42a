"""An export for nvinfer: its keys are those of NVIDIA, and its graph answers float planes as the bundle does images."""

from __future__ import annotations

import configparser
import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from typer.testing import CliRunner

from edgead.bundle import Bundle, open_bundle, write_bundle
from edgead.bundle.golden import golden_bytes
from edgead.cli.main import app
from edgead.errors import InputError
from edgead.export.head.model_file import file_from_graph
from edgead.export.precision.float16 import float16_from_float32
from edgead.imaging.preprocess import ModelSize
from edgead.imaging.view import View
from edgead.other_runtimes.deepstream import export_deepstream
from edgead.scoring.threshold import Threshold
from tests.helpers.brightness_bundle import write_brightness_bundle
from tests.helpers.golden_answers import golden_of_model, verification_of
from tests.helpers.toy_graph import toy_graph, toy_images

KEYS = {
    line
    for line in Path(__file__).with_name("nvinfer_keys.txt").read_text().splitlines()
    if not line.startswith("#")
}
THRESHOLD = Threshold(0.5, 0.01, 0.95, 0.95, 299, 299)


def toy_bundle(bundle: Bundle, out: Path, precision: str) -> Bundle:
    """A bundle of the toy graph."""
    images = toy_images(4)
    graph = toy_graph()
    if precision == "fp16":
        graph = float16_from_float32(graph)
    content = file_from_graph(graph)
    manifest = dataclasses.replace(
        bundle.manifest, precision=precision, size=ModelSize(32, 64), verification=verification_of("washer")
    )
    return write_bundle(
        out, manifest, {"model.onnx": content, "golden.npz": golden_bytes(golden_of_model(content, images))}
    )


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path = tmp_path_factory.mktemp("deepstream") / "bundle"
    return open_bundle(write_brightness_bundle(path, ModelSize(32, 64), THRESHOLD))


@pytest.mark.parametrize(("precision", "mode"), [("fp32", "0"), ("fp16", "2")])
def test_the_export_is_what_nvinfer_takes(bundle: Bundle, tmp_path: Path, precision: str, mode: str):
    toy, out = toy_bundle(bundle, tmp_path / "toy", precision), tmp_path / "out"
    export_deepstream(toy, out)
    config = configparser.ConfigParser(delimiters="=", comment_prefixes="#")
    config.read(out / "nvinfer.txt")
    assert config.sections() == ["property"]
    chosen = config["property"]
    assert set(chosen) <= KEYS
    assert (chosen["network-mode"], chosen["network-type"], chosen["output-tensor-meta"]) == (
        mode,
        "100",
        "1",
    )
    # The values that the element gives are those of the image, in the order of the colours of edgead.
    assert (float(chosen["net-scale-factor"]), chosen["model-color-format"]) == (1.0, "0")
    graph = onnx.load(out / chosen["onnx-file"])
    onnx.checker.check_model(graph, full_check=True)
    (images,) = graph.graph.input
    lengths = [one.dim_value for one in images.type.tensor_type.shape.dim]
    assert lengths[1:] == [int(length) for length in chosen["infer-dims"].split(";")] == [3, 32, 64]
    assert images.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert [one.name for one in graph.graph.output] == chosen["output-blob-names"].split(";")
    golden = toy.golden()
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    planes = golden.images.transpose(0, 3, 1, 2).astype(np.float32)
    maps, scores = session.run(["anomaly_map", "anomaly_score"], {"images": planes})
    np.testing.assert_allclose(maps, golden.anomaly_map, atol=1e-5)
    np.testing.assert_allclose(scores, golden.anomaly_score[:, None], rtol=1e-5)


def test_what_nvinfer_cannot_run_is_refused(bundle: Bundle, tmp_path: Path):
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    for name, change in {"int8": {"precision": "int8"}, "view": {"view": View(fit="pad")}}.items():
        other = write_bundle(tmp_path / name, dataclasses.replace(bundle.manifest, **change), files)
        with pytest.raises(InputError):
            export_deepstream(other, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_replaces_an_earlier_export_alone(bundle: Bundle, tmp_path: Path):
    out, notes = tmp_path / "out", tmp_path / "notes"
    for _ in range(2):
        done = CliRunner().invoke(app, ["export-deepstream", str(bundle.path), "--out", str(out)])
        assert done.exit_code == 0, done.output
    assert sorted(file.name for file in out.iterdir()) == ["README.md", "model.onnx", "nvinfer.txt"]
    notes.mkdir()
    (notes / "nvinfer.txt").write_text("[property]\n")
    refused = CliRunner().invoke(app, ["export-deepstream", str(bundle.path), "--out", str(notes)])
    assert isinstance(refused.exception, InputError)
    assert [file.name for file in notes.iterdir()] == ["nvinfer.txt"]
