"""NVIDIA Polygraphy and the checker of ONNX examine the graphs of a toy and of RD in every precision."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import ModelProto

from edgead.export.from_torch import onnx_from_method
from edgead.export.graph_sections import computed_tensors
from edgead.export.precision.calibration import absolute_maxima_of
from edgead.export.precision.float16 import float16_from_float32
from edgead.imaging.preprocess import ModelSize
from edgead.models import create_method
from edgead.models.components.teacher import create_teacher
from edgead.models.rd import LOSSES
from edgead.runtime.onnxruntime import OnnxRuntimeSession
from tests.helpers.int8_graph import int8_graph
from tests.helpers.toy_run import SIZE, ToyRun

pytest.importorskip("polygraphy", reason="polygraphy is not installed: pip install 'edgead[dev]'")

from polygraphy.backend.onnxrt import OnnxrtRunner
from polygraphy.comparator import Comparator, RunResults, SimpleCompareFunc
from polygraphy.logger import G_LOGGER

Graphs = tuple[dict[str, ModelProto], np.ndarray]
PRECISIONS = ("fp32", "fp16", "int8")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with G_LOGGER.verbosity(G_LOGGER.ERROR):
        yield


def make_images(size: ModelSize, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (3, size.height_px, size.width_px, 3), np.uint8)


def precisions(exact: ModelProto, images: np.ndarray) -> dict[str, ModelProto]:
    return {
        "fp32": exact,
        "fp16": float16_from_float32(exact, absolute_maxima_of(exact, images, computed_tensors(exact))),
        "int8": int8_graph(exact, images),
    }


@pytest.fixture(scope="module", params=["toy", "rd"])
def graphs(request: pytest.FixtureRequest) -> Graphs:
    """The graphs by precision, and images that they were not calibrated on."""
    if request.param == "toy":
        method, size = ToyRun().load_model(), SIZE
    else:
        size = ModelSize(64, 64)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            method = create_method(
                "rd", create_teacher("tf_efficientnet_lite0", "random"), size, LOSSES[0]
            ).eval()
    return precisions(onnx_from_method(method, size), make_images(size, 1)), make_images(size, 2)


def peer(model: ModelProto, images: np.ndarray, *, optimised: bool = False) -> RunResults:
    """Outputs of Polygraphy's runner, by default of the graph as it is, with nothing fused or reordered."""
    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
    # The graph defines INT8: a session that fuses Q/DQ pairs computes another function.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return Comparator.run([OnnxrtRunner(session, name="peer")], data_loader=[{"images": images}])


def ours(model: ModelProto, images: np.ndarray) -> dict[str, np.ndarray]:
    with OnnxRuntimeSession(model.SerializeToString()) as session:
        prediction = session.infer(images)
    return {"anomaly_map": prediction.anomaly_map, "anomaly_score": prediction.anomaly_score}


def agrees(found: RunResults, other: dict[str, np.ndarray], atol: float) -> bool:
    results = RunResults(list(found))
    results.add([other], runner_name="other")
    accuracy = Comparator.compare_accuracy(results, compare_func=SimpleCompareFunc(rtol=0.0, atol=atol))
    # Both outputs were compared, not only one.
    assert set(accuracy.output_names()) == {"anomaly_map", "anomaly_score"}
    return bool(accuracy)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_our_session_gives_what_polygraphy_gives(precision: str, graphs: Graphs) -> None:
    models, images = graphs
    found = peer(models[precision], images, optimised=True)
    answers = ours(models[precision], images)
    assert agrees(found, answers, atol=1e-5)
    assert not agrees(found, {**answers, "anomaly_score": answers["anomaly_score"] + 0.01}, atol=1e-3)


@pytest.mark.parametrize(("precision", "atol"), [("fp32", 1e-4), ("fp16", 1e-3)])
def test_fusion_by_the_runtime_changes_nothing(precision: str, atol: float, graphs: Graphs) -> None:
    # INT8 is compared with float32 below instead: the last bit of a float decides to which step a value is rounded, and
    # over all layers such steps add up to as much as the error of INT8.
    models, images = graphs
    assert agrees(peer(models[precision], images), ours(models[precision], images), atol)


@pytest.mark.parametrize(("precision", "share"), [("fp16", 0.005), ("int8", 0.05)])
def test_lower_precisions_are_near_float32(precision: str, share: float, graphs: Graphs) -> None:
    # Shares of the smallest score, a tenth of the tolerance of the targets. No lower precision equals float32 itself.
    models, images = graphs
    found, exact = peer(models[precision], images), ours(models["fp32"], images)
    assert agrees(found, exact, atol=share * float(exact["anomaly_score"].min()))
    assert not agrees(found, exact, atol=1e-6)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_checker_of_onnx_finds_nothing(precision: str, graphs: Graphs) -> None:
    model = graphs[0][precision]
    onnx.checker.check_model(model, full_check=True)
    # Only the float16 graph has float16 weights, and only the INT8 graph has Q/DQ pairs.
    types = {weight.data_type for weight in model.graph.initializer}
    assert (onnx.TensorProto.FLOAT16 in types) == (precision == "fp16")
    assert ("QuantizeLinear" in {node.op_type for node in model.graph.node}) == (precision == "int8")
