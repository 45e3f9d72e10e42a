"""Bundles with correct hashes and a wrong model for `edgead build`: one line with the cause and the hint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from edgead.bundle import Manifest, write_bundle
from edgead.bundle.golden import golden_bytes
from edgead.data.images import image_hash
from edgead.export.head.model_file import file_from_graph
from edgead.imaging.preprocess import ModelSize
from edgead.runtime.onnxruntime import OnnxRuntimeSession
from edgead.scoring.threshold import Threshold
from tests.helpers.brightness_bundle import brightness_model
from tests.helpers.command_line import files_in, run_main, the_error
from tests.helpers.golden_answers import LIMITS, golden_of_model
from tests.helpers.toy_graph import HEIGHT, WIDTH, toy_graph, toy_images

GOOD, OTHERS = toy_images(6, seed=5), toy_images(10, seed=6)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for index, image in enumerate(np.concatenate([GOOD, OTHERS])):
        assert cv2.imwrite(str(folder / f"{index:02}.png"), image[..., ::-1])
    return folder


def write(path: Path, model: bytes, answering: bytes | None = None) -> Path:
    """Write the bundle of a model, with the golden answers of the toy model or of `answering`."""
    with OnnxRuntimeSession(answering or toy_graph().SerializeToString()) as session:
        answers = session.infer(GOOD)
    manifest = Manifest(
        method="rd",
        teacher="none",
        backend="onnxruntime",
        target="cpu",
        precision="fp32",
        size=ModelSize(HEIGHT, WIDTH),
        thresholds={"toy": Threshold(float(answers.anomaly_score.max()), 0.01, 0.95, 0.06, 6, 299)},
        training={},
        verification={
            "parts": {
                "toy": {
                    "limits": LIMITS,
                    "n": len(GOOD),
                    "validation_images": [image_hash(image) for image in GOOD],
                }
            }
        },
        verified=True,
        verified_on={},
    )
    golden = golden_bytes(golden_of_model(answering or toy_graph().SerializeToString(), GOOD))
    write_bundle(path, manifest, {"model.onnx": model, "golden.npz": golden})
    return path


def other_inputs() -> ModelProto:
    """Takes float32 planes, as most graphs of other programs do."""
    images = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, HEIGHT, WIDTH])
    scores = helper.make_tensor_value_info("anomaly_score", TensorProto.FLOAT, ["N", 3, HEIGHT, WIDTH])
    graph = helper.make_graph(
        [helper.make_node("Relu", ["input"], ["anomaly_score"])], "x", [images], [scores]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def other_outputs() -> ModelProto:
    model = brightness_model(HEIGHT, WIDTH)
    del model.graph.output[1]
    return model


def opset_99() -> ModelProto:
    model = brightness_model(HEIGHT, WIDTH)
    model.opset_import[0].version = 99
    return model


def no_head() -> ModelProto:
    return brightness_model(HEIGHT, WIDTH)


def nan_weights() -> ModelProto:
    model = toy_graph()
    for weight in model.graph.initializer:
        if weight.name == "down_w":
            values = numpy_helper.to_array(weight).copy()
            values[0, 0, 0, 0] = np.nan
            weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    return model


def of(make: Callable[[], ModelProto]) -> bytes:
    model = make()
    if model.functions:
        # As edgead writes it: with the head as standard operators.
        return file_from_graph(model)
    content: bytes = model.SerializeToString()
    return content


RANDOM = np.random.default_rng(0).bytes(5000)
BAD = {
    "other inputs": (of(other_inputs), ["float32 (N, 3, 32, 64)", "uint8 (N, H, W, 3)"]),
    "other outputs": (of(other_outputs), ["anomaly_map", "float32 (N, 1, 32, 64)"]),
    "opset 99": (of(opset_99), ["model.onnx", "99"]),
    "random bytes": (RANDOM, ["model.onnx"]),
    "empty": (b"", ["model.onnx"]),
    "truncated": (of(toy_graph)[:900], ["model.onnx"]),
    "other size": (brightness_model(64, 64).SerializeToString(), ["64x64", "32x64"]),
}


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert run_main(*map(str, arguments)) == 1
    return the_error(capsys.readouterr().err)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "auto", None])
@pytest.mark.parametrize("name", BAD)
def test_a_wrong_model_is_refused_in_one_line(
    name: str, precision: str | None, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, named = BAD[name]
    bundle = write(tmp_path / "bundle", model)
    before = files_in(tmp_path)
    cache = ("--cache", tmp_path / "clipping_limits.json") if precision == "int8" else ()
    asked = () if precision is None else ("--data", data, "--precision", precision, *cache)
    message = refused(capsys, "build", bundle, "--out", tmp_path / "x", *asked)
    assert all(value in message for value in named)
    assert "edgead build" in message
    assert files_in(tmp_path) == before


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_graph_without_the_head_has_no_lower_precision(
    precision: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = write(tmp_path / "bundle", of(no_head), answering=of(no_head))
    before = files_in(tmp_path)
    cache = ("--cache", tmp_path / "clipping_limits.json") if precision == "int8" else ()
    asked = ("--data", data, "--precision", precision, *cache)
    message = refused(capsys, "build", bundle, "--out", tmp_path / "x", *asked)
    assert "0 nodes edgead::AnomalyMap" in message
    assert "edgead build" in message
    assert files_in(tmp_path) == before


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", None])
def test_weights_that_are_not_finite_are_refused(
    precision: str | None, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = write(tmp_path / "bundle", of(nan_weights))
    before = files_in(tmp_path)
    cache = ("--cache", tmp_path / "clipping_limits.json") if precision == "int8" else ()
    asked = () if precision is None else ("--data", data, "--precision", precision, *cache)
    capsys.readouterr()
    code = run_main(*map(str, ("build", bundle, "--out", tmp_path / "x", *asked)))
    printed = capsys.readouterr().err
    message = the_error(printed)
    # With --data the scores for the threshold are not finite; without, the answers differ from the golden answers.
    assert code == (1 if precision else 3), message
    assert precision or "inf*" in printed
    assert ": " in message.removeprefix("error: ")
    assert files_in(tmp_path) == before


def test_the_model_that_the_bad_ones_are_made_from_is_accepted(data: Path, tmp_path: Path) -> None:
    bundle = write(tmp_path / "bundle", of(toy_graph))
    onnx.checker.check_model(toy_graph(), full_check=True)
    for name, asked in {"a": (), "b": ("--data", data, "--precision", "fp16")}.items():
        assert run_main("build", str(bundle), "--out", str(tmp_path / name), *map(str, asked)) == 0
