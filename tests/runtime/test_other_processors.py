"""The same graph, the same answers: on processors with other kernels, in other batches, on other numbers of threads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import numpy_helper

from edgead.bundle import Bundle, open_bundle
from edgead.engine.build import build_bundle
from edgead.engine.plan import Plan
from edgead.engine.precision_converter import Calibrating, CandidatePrecision
from edgead.runtime import open_session
from edgead.runtime.agreement import golden_fidelity
from edgead.runtime.golden_check import multiplied_scales
from edgead.runtime.onnxruntime import OnnxRuntimeSession
from tests.helpers.emulated_cpu import AVX2_WITHOUT_VNNI, run_on
from tests.helpers.qdq_graph import OUT_STEP, exact_map, grey_images, qdq_graph
from tests.helpers.toy_graph import toy_graph, toy_images
from tests.helpers.toy_run import ToyRun

pytestmark = pytest.mark.usefixtures("graphs_exported_once")

ON_ANOTHER_CPU = """
import json, sys
from pathlib import Path
import onnxruntime
from tests.helpers.qdq_graph import grey_images, qdq_graph
from edgead.runtime.onnxruntime import OnnxRuntimeSession

model, images = qdq_graph().SerializeToString(), grey_images()
with OnnxRuntimeSession(model, threads=1) as session:
    ours = session.infer(images).anomaly_map
plain = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
theirs = plain.run(["anomaly_map"], {"images": images})[0]
print(json.dumps({"ours": ours[:, 0, 0, 0].tolist(), "plain": theirs[:, 0, 0, 0].tolist()}))
"""

GOLDEN_ON_ANOTHER_CPU = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from edgead.runtime.agreement import golden_fidelity
from edgead.runtime.golden_check import multiplied_scales
from edgead.bundle import open_bundle
from edgead.runtime import open_session

found = {}
for path in sys.argv[1:]:
    bundle = open_bundle(Path(path))
    thresholds = bundle.manifest.thresholds
    with open_session(bundle, threads=1) as session:
        agreements = golden_fidelity(
            bundle.golden(), session, thresholds, multiplied_scales(bundle, thresholds)
        )
    found[Path(path).name] = [asdict(agreement) for agreement in agreements.values()]
print(json.dumps(found))
"""


def test_a_quantised_convolution_with_extreme_weights_is_computed_as_its_nodes_define() -> None:
    with OnnxRuntimeSession(qdq_graph().SerializeToString()) as session:
        found = session.infer(grey_images()).anomaly_map
    np.testing.assert_allclose(found, exact_map(grey_images()), rtol=0, atol=1e-4 * OUT_STEP)


def test_it_is_also_on_a_cpu_where_sums_of_8_bit_products_saturate() -> None:
    found = run_on(AVX2_WITHOUT_VNNI, ON_ANOTHER_CPU)
    expected = exact_map(grey_images())[:, 0, 0, 0]
    np.testing.assert_allclose(found["ours"], expected, rtol=0, atol=1e-4 * OUT_STEP)
    # The emulation proves something only if ONNX Runtime with default options is wrong there, by many steps.
    assert np.abs(np.array(found["plain"]) - expected).max() > 10 * OUT_STEP


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    folder = tmp_path_factory.mktemp("bundles")
    candidate_precisions: tuple[CandidatePrecision, ...] = ("fp32", "fp16", "int8")
    calibrating = Calibrating(cache=folder / "calibration.json")
    return {
        candidate_precision: build_bundle(
            ToyRun(),
            folder / candidate_precision,
            Plan(candidate_precisions=(candidate_precision,), calibrating=calibrating),
        )
        for candidate_precision in candidate_precisions
    }


def test_every_precision_gives_its_golden_answers_on_another_cpu(bundles: dict[str, Bundle]) -> None:
    found = run_on(
        AVX2_WITHOUT_VNNI, GOLDEN_ON_ANOTHER_CPU, *(str(bundle.path) for bundle in bundles.values())
    )
    assert set(found) == set(bundles)
    for fidelities in found.values():
        for fidelity in fidelities:
            assert fidelity["decision_flips"] == 0
            assert fidelity["n"] > 0


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_threads_and_batches_change_nothing_that_matters(precision: str, bundles: dict[str, Bundle]) -> None:
    bundle = open_bundle(bundles[precision].path)
    golden = bundle.golden()
    # One rounding step of an activation may go the other way; the build allows many times as much.
    tolerance = 1e-5 if precision == "fp32" else 0.02
    for threads in (1, 2, 3, 8, 16):
        with open_session(bundle, threads=threads) as session:
            for batch in (1, 2, len(golden.images)):
                images = [golden.images[at : at + batch] for at in range(0, len(golden.images), batch)]
                maps = np.concatenate([session.infer(some).anomaly_map for some in images])
                np.testing.assert_allclose(maps, golden.anomaly_map, rtol=0, atol=tolerance)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_optimiser_changes_nothing_that_matters(precision: str, bundles: dict[str, Bundle]) -> None:
    bundle = open_bundle(bundles[precision].path)
    golden = bundle.golden()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    plain = onnxruntime.InferenceSession(
        str(bundle.file("model.onnx")), options, providers=["CPUExecutionProvider"]
    )
    maps = plain.run(["anomaly_map"], {"images": golden.images})[0]
    np.testing.assert_allclose(maps, golden.anomaly_map, rtol=0, atol=1e-5 if precision == "fp32" else 0.02)


def test_denormal_numbers_decide_nothing() -> None:
    # Weights of 1e-20 in a residual block give products below the smallest normal float32.
    model = toy_graph()
    for weight in model.graph.initializer:
        if weight.name in ("down_w", "main_w"):
            values = numpy_helper.to_array(weight) * np.float32(1e-20)
            weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    content, images = model.SerializeToString(), toy_images(4)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    flushing = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    flushed = flushing.run(["anomaly_map"], {"images": images})[0]
    with OnnxRuntimeSession(content) as session:
        np.testing.assert_allclose(session.infer(images).anomaly_map, flushed, rtol=0, atol=1e-5)


def test_agreement_of_a_bundle_with_itself_is_exact(bundles: dict[str, Bundle]) -> None:
    for path in (bundle.path for bundle in bundles.values()):
        bundle = open_bundle(Path(path))
        thresholds = bundle.manifest.thresholds
        factors = multiplied_scales(bundle, thresholds)
        with open_session(bundle) as session:
            for found in golden_fidelity(bundle.golden(), session, thresholds, factors).values():
                assert found.decision_flips == 0
                assert found.map_error_max <= 1e-5
