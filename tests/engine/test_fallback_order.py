"""`--precision auto` keeps the first candidate precision that decides as the model and records the others.

If no candidate precision does, nothing is written. The graph of the run is a hand-made toy, so that every build is
quick; everything else is real.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, numpy_helper
from sklearn.metrics import roc_auc_score

from edgead.bundle import Bundle, open_bundle
from edgead.data import LoadedImages, Sample
from edgead.data.pseudo_anomalies.rectangles import synthetic_defects
from edgead.engine.build import build_bundle
from edgead.engine.fidelity import Tolerance
from edgead.engine.plan import Plan
from edgead.engine.precision_converter import (
    Calibrating,
    CandidatePrecision,
    ConvertedModel,
    PrecisionConverter,
)
from edgead.engine.target import find_target
from edgead.errors import PrecisionError, VerificationError
from edgead.export.precision.quantize import int8_from_float32
from edgead.imaging.preprocess import ModelSize
from edgead.runtime import open_session
from edgead.runtime.golden_check import check_golden
from edgead.runtime.onnxruntime import OnnxRuntimeSession
from edgead.types import Prediction
from tests.helpers.toy_graph import HEIGHT, WIDTH, toy_graph, toy_images
from tests.helpers.toy_run import PART, ToyRun

SIZE = ModelSize(HEIGHT, WIDTH)
GOOD = toy_images(12, seed=5)
INT8 = ("int8", "int8-sensitive-fp16", "int8-student")
# What TensorRT tries.
ORDER = find_target(None, "jetson-orin")[1].fallback_order
NOTHING = Tolerance(0.0, 0.0, 1.0, 0.0, 0.0)
ANYTHING = Tolerance(10.0, 10.0, -1.0, 1.0, 1.0)
TARGET = replace(Plan().target, fallback_order=ORDER)


@dataclass
class GraphRun(ToyRun):
    """A run that exports this graph, which is also its reference."""

    size: ModelSize = SIZE
    graph: bytes = toy_graph().SerializeToString()

    def session(self) -> Any:
        return OnnxRuntimeSession(self.graph)

    def holdout_images(self) -> dict[str, LoadedImages]:
        return {PART: loaded(GOOD)}

    def training_images(self, count: int) -> LoadedImages:
        return loaded(toy_images(min(count, self.training_count), seed=6))


def loaded(images: np.ndarray, labels: Collection[int | None] = ()) -> LoadedImages:
    known = list(labels) or [0] * len(images)
    samples = tuple(Sample(Path(f"{i}.png"), label) for i, label in enumerate(known))
    return LoadedImages(images, samples, ())


@pytest.fixture(autouse=True)
def _exported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgead.engine.build.onnx_from_run", lambda run: run.graph)


def plan(folder: Path, *candidate_precisions: CandidatePrecision, **tolerances: Tolerance) -> Plan:
    target = replace(TARGET, tolerances=replace(TARGET.tolerances, **tolerances))
    return Plan(
        "cpu",
        target,
        candidate_precisions or target.fallback_order,
        Calibrating(cache=folder / "clipping_limits.json"),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the calibration, which all builds of the same graph share."""
    return tmp_path_factory.mktemp("fallback_order")


def sabotage(monkeypatch: pytest.MonkeyPatch, *candidate_precisions: str) -> None:
    """Multiply one weight scale of the graphs of these candidate precisions by eight."""
    graph = PrecisionConverter.graph

    def sabotaging(self: PrecisionConverter, asked: CandidatePrecision) -> ConvertedModel:
        honest = graph(self, asked)
        if asked not in candidate_precisions:
            return honest
        model = onnx.load_from_string(honest.model)
        scale = next(weight for weight in model.graph.initializer if weight.name.endswith("_w_scale"))
        scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * np.float32(8.0), scale.name))
        return replace(honest, model=model.SerializeToString())

    monkeypatch.setattr(PrecisionConverter, "graph", sabotaging)


def logged(caplog: pytest.LogCaptureFixture) -> list[Any]:
    """The candidate precision of each line that was logged while candidate precisions were tried."""
    lines = [record.getMessage() for record in caplog.records if record.module == "candidate_precisions"]
    return [next(word for word in line.split() if word in ORDER) for line in lines]


def fallback_order(bundle: Bundle) -> list[tuple[str, bool]]:
    return [
        (tried["candidate_precision"], tried["holds"])
        for tried in bundle.manifest.verification["fallback_order"]
    ]


def test_an_honest_graph_stays_on_the_first_candidate_precision(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "edgead")
    bundle = build_bundle(GraphRun(), tmp_path / "x", plan(folder))
    manifest = open_bundle(bundle.path).manifest
    assert (manifest.precision, manifest.verification["candidate_precision"]) == ("int8", "int8")
    assert fallback_order(bundle) == [("int8", True)]
    assert set(logged(caplog)) == {"int8"}
    # The fallback order has the same measures for the kept candidate precision as the table.
    (kept,) = manifest.verification["fallback_order"]
    for name in ("map_error_max", "score_error_max", "rank_correlation", "decision_flips", "n"):
        assert kept["parts"][PART][name] == manifest.verification["parts"][PART][name]
    assert set(manifest.files) == {"model.onnx", "golden.npz", "calibration.json"}


def test_one_candidate_precision_alone_is_no_fallback_order(folder: Path, tmp_path: Path) -> None:
    bundle = build_bundle(GraphRun(), tmp_path / "x", plan(folder, "int8"))
    assert {"candidate_precision", "fallback_order"}.isdisjoint(bundle.manifest.verification)


def test_a_sabotaged_candidate_precision_is_skipped_and_recorded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sabotage(monkeypatch, "int8")
    caplog.set_level(logging.INFO, "edgead")
    bundle = build_bundle(GraphRun(), tmp_path / "x", plan(folder))
    assert bundle.manifest.verification["candidate_precision"] == "int8-sensitive-fp16"
    assert fallback_order(bundle) == [("int8", False), ("int8-sensitive-fp16", True)]
    first, second = bundle.manifest.verification["fallback_order"]
    assert first["parts"][PART]["map_error_max"] > second["parts"][PART]["map_error_max"]
    # Both are built and compared, and one line more says how far the first one is out of tolerance.
    assert logged(caplog) == ["int8"] * 3 + ["int8-sensitive-fp16"] * 2
    (over,) = (line for line in caplog.messages if f"{first['parts'][PART]['map_error_max']:.3g} " in line)
    assert " 24 " in over


@pytest.mark.parametrize("backwards", [False, True])
def test_with_all_int8_sabotaged_the_candidate_precision_is_float16(
    backwards: bool, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sabotage(monkeypatch, *INT8)
    int8: tuple[CandidatePrecision, ...] = INT8[::-1] if backwards else INT8
    bundle = build_bundle(GraphRun(), tmp_path / "x", plan(folder, *int8, *ORDER[3:]))
    assert (bundle.manifest.precision, bundle.manifest.verification["candidate_precision"]) == (
        "fp16",
        "fp16",
    )
    assert fallback_order(bundle) == [(candidate_precision, False) for candidate_precision in int8] + [
        ("fp16", True)
    ]
    # Nothing is left of the candidate precisions that were tried before.
    assert set(bundle.manifest.files) == {"model.onnx", "golden.npz"}
    assert "calibration" not in bundle.manifest.verification
    judged = bundle.manifest.verification["parts"][PART]
    limits = TARGET.tolerances.fp16.limits(24)
    assert judged["limits"]["map_error_max"] == limits.map_error_max


def test_float32_is_the_last_resort_and_is_what_it_was(folder: Path, tmp_path: Path) -> None:
    wanted = plan(folder, int8=NOTHING, fp16=NOTHING)
    bundle = build_bundle(GraphRun(), tmp_path / "x", wanted)
    assert (bundle.manifest.precision, bundle.manifest.verification["candidate_precision"]) == (
        "fp32",
        "fp32",
    )
    assert fallback_order(bundle) == [(candidate_precision, False) for candidate_precision in ORDER[:-1]]
    assert bundle.file("model.onnx").read_bytes() == GraphRun().graph
    plain = build_bundle(GraphRun(), tmp_path / "plain")
    assert bundle.manifest.thresholds[PART] == plain.manifest.thresholds[PART]
    assert bundle.manifest.verification["reference"] == "torch"


def test_a_tolerance_that_nothing_holds_writes_nothing(folder: Path, tmp_path: Path) -> None:
    old = build_bundle(GraphRun(), tmp_path / "old").path
    before = {file.name: file.read_bytes() for file in old.iterdir()}
    wanted = plan(folder, *ORDER[:-1], int8=NOTHING, fp16=NOTHING)
    for target in (old, tmp_path / "new"):
        with pytest.raises(VerificationError) as refusal:
            build_bundle(GraphRun(), target, wanted)
        assert refusal.value.exit_code == 3
        assert "\n" not in str(refusal.value)
        assert ", ".join(ORDER[:-1]) in refusal.value.what
        assert "'cpu'" in refusal.value.what
        assert refusal.value.hint is not None
        assert "--target" in refusal.value.hint
        headings = [line.split()[0] for line in refusal.value.table if " images" in line]
        assert headings == list(ORDER[:-1])
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert {file.name: file.read_bytes() for file in old.iterdir()} == before


@pytest.mark.parametrize(
    ("weights", "outside", "advised"),
    [
        # The graph with the student alone in INT8 has no such scale of the teacher.
        ("conv_t", {"measured", "teacher"}, "--quantize student"),
        ("main", {"measured", "student"}, "--precision fp16"),
    ],
)
def test_a_refusal_shows_which_half_does_the_harm_and_what_to_try(
    weights: str,
    outside: set[str],
    advised: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scale = {"conv_t": "teacher_w_scale", "main": "main_w_scale"}[weights]

    def broken(*arguments: Any, **options: Any) -> ModelProto:
        model = int8_from_float32(*arguments, **options)
        for weight in model.graph.initializer:
            if weight.name == scale:
                weight.CopyFrom(
                    numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(8.0), scale)
                )
        return model

    # The calibration keeps the honest function. It is imported here, or it would import the broken one and keep it.
    monkeypatch.setattr("edgead.export.precision.calibration.int8_from_float32", int8_from_float32)
    monkeypatch.setattr("edgead.export.precision.quantize.int8_from_float32", broken)
    with pytest.raises(VerificationError) as refusal:
        build_bundle(GraphRun(), tmp_path / "x", plan(folder, "int8"))
    assert list(tmp_path.iterdir()) == []
    table = refusal.value.table
    assert table[1].split() == ["measured", "teacher", "student", "allowed"]
    cells = [line.split()[-5:-2] for line in table[2:7]]
    marked = {
        name
        for row in cells
        for name, cell in zip(("measured", "teacher", "student"), row, strict=True)
        if cell.endswith("*")
    }
    assert marked == outside
    assert refusal.value.hint is not None
    assert f"build with {advised}" in refusal.value.hint
    # The halves are compared by the first measure that refused the whole.
    refused = next(line for line in table[2:7] if line.split()[-5].endswith("*"))
    titles = ("map error", "score error", "rank correlation", "decision flips", "AUROC change")
    assert [title for title in titles if title in refusal.value.hint] == [
        title for title in titles if title in refused
    ]


def test_a_refused_student_and_a_refused_half_lead_to_the_next_higher_precision(
    folder: Path, tmp_path: Path
) -> None:
    nothing: dict[str, Tolerance] = {"int8": NOTHING, "fp16": NOTHING}
    for candidate_precision, advised in (("int8-student", "--precision fp16"), ("fp16", "--precision fp32")):
        with pytest.raises(VerificationError) as refusal:
            build_bundle(GraphRun(), tmp_path / "x", plan(folder, candidate_precision, **nothing))
        assert advised in str(refusal.value.hint)
        assert refusal.value.table[1].split() == ["measured", "allowed"]


def overflowing() -> GraphRun:
    """A run with weights that float16 cannot hold, on a channel so faint that their results fit well."""
    model = toy_graph()
    weights = {weight.name: weight for weight in model.graph.initializer}
    faint: dict[str, tuple[Any, float]] = {
        "teacher_w": (np.s_[0], 1e-7),
        "teacher_b": (np.s_[0], 1e-7),
        "down_w": (np.s_[:, 0], 1e7),
    }
    for name, (channel, factor) in faint.items():
        values = numpy_helper.to_array(weights[name]).copy()
        values[channel] *= np.float32(factor)
        weights[name].CopyFrom(numpy_helper.from_array(values, name))
    return GraphRun(graph=model.SerializeToString())


def test_a_candidate_precision_that_does_not_convert_is_skipped_and_recorded(tmp_path: Path) -> None:
    bundle = build_bundle(overflowing(), tmp_path / "x", plan(tmp_path, "fp16", "fp32"))
    assert bundle.manifest.precision == "fp32"
    (tried,) = bundle.manifest.verification["fallback_order"]
    assert (tried["candidate_precision"], tried["holds"]) == ("fp16", False)
    assert "down_w" in tried["error"]
    with pytest.raises(PrecisionError) as refusal:
        build_bundle(overflowing(), tmp_path / "y", plan(tmp_path, "fp16"))
    assert "down_w" in refusal.value.what
    with pytest.raises(VerificationError) as none:
        build_bundle(overflowing(), tmp_path / "y", plan(tmp_path, "fp16", "fp16-fp32-tail"))
    assert "fp16, fp16-fp32-tail" in none.value.what
    assert not (tmp_path / "y").exists()


def labelled_run() -> GraphRun:
    """A run with labels that float32 separates perfectly, by the smallest gap between scores; one is unknown."""
    images = toy_images(300, seed=7)
    with OnnxRuntimeSession(GraphRun().graph) as session:
        scores = session.infer(images).anomaly_score
    middle = np.sort(scores)[100:200]
    below = middle[np.argmin(np.diff(middle))]
    labels: list[int | None] = [int(score > below) for score in scores]
    labels[int(np.argmax(scores))] = None
    return GraphRun(labelled=loaded(images, labels))


def test_the_change_of_auroc_is_the_same_as_with_scikit_learn(folder: Path, tmp_path: Path) -> None:
    run = labelled_run()
    assert run.labelled is not None
    bundle = build_bundle(run, tmp_path / "x", plan(folder, "int8", int8=ANYTHING))
    known = [i for i, sample in enumerate(run.labelled.samples) if sample.label is not None]
    labels = [run.labelled.samples[i].label for i in known]
    with open_session(bundle) as built:
        scores = built.infer(run.labelled.images[known]).anomaly_score
    found = bundle.manifest.verification["parts"][PART]
    expected = roc_auc_score(labels, scores)
    assert expected < 1.0, "INT8 swaps some images across the middle"
    assert found["auroc"] == pytest.approx(expected, abs=1e-12)
    assert found["auroc_change"] == pytest.approx(expected - 1.0, abs=1e-12)


@pytest.mark.parametrize("limit", ["auroc_loss", None])
def test_a_loss_of_auroc_alone_refuses(limit: str | None, folder: Path, tmp_path: Path) -> None:
    tolerance = ANYTHING if limit is None else replace(ANYTHING, **{limit: 0.0})
    wanted = plan(folder, "int8", int8=tolerance)
    if limit is None:
        build_bundle(labelled_run(), tmp_path / "x", wanted)
        return
    with pytest.raises(VerificationError) as refusal:
        build_bundle(labelled_run(), tmp_path / "x", wanted)
    marked = [line for line in refusal.value.table if "*" in line]
    assert "AUROC change" in marked[0]
    assert list(tmp_path.iterdir()) == []
    # Without labels the loss cannot be measured.
    bundle = build_bundle(GraphRun(), tmp_path / "x", wanted)
    assert bundle.manifest.verification["parts"][PART]["auroc"] is None
    assert bundle.manifest.verification["parts"][PART]["auroc_change"] is None


@pytest.mark.parametrize("label", [0, 1, None])
def test_labels_of_one_kind_give_no_auroc(label: int | None, folder: Path, tmp_path: Path) -> None:
    run = GraphRun(labelled=loaded(toy_images(4), [label] * 4))
    bundle = build_bundle(run, tmp_path / "x", plan(folder, "int8"))
    assert bundle.manifest.verification["parts"][PART]["auroc_change"] is None


class Rounded(OnnxRuntimeSession):
    """The same engine on another machine, where all results are a little higher."""

    def infer(self, batch: np.ndarray) -> Prediction:
        exact = super().infer(batch)
        return Prediction(exact.anomaly_map + np.float32(1e-5), exact.anomaly_score + np.float32(1e-5))


@pytest.mark.parametrize("candidate_precision", ["fp32", "int8"])
def test_a_device_that_rounds_otherwise_still_starts(
    candidate_precision: CandidatePrecision, folder: Path, tmp_path: Path
) -> None:
    # Of three held-out images one set the threshold, and all are golden.
    run = GraphRun()
    run.holdout_images = lambda: {PART: loaded(GOOD[:3])}  # type: ignore[method-assign]
    bundle = build_bundle(run, tmp_path / "x", plan(folder, candidate_precision))
    golden, threshold = bundle.golden(), bundle.manifest.thresholds[PART].value
    assert np.abs(golden.anomaly_score[:3] - threshold).min() <= 1e-6
    with Rounded(bundle.file("model.onnx")) as session:
        assert (session.infer(golden.images[:3]).anomaly_score > threshold).any()
        check_golden(session, bundle)


def types_of(model: ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    return {value.name: value.type.tensor_type.elem_type for value in values}


def made(
    folder: Path, candidate_precision: CandidatePrecision, half_beside_int8: bool = False
) -> tuple[ModelProto, ConvertedModel]:
    watched = np.concatenate([GOOD, synthetic_defects(GOOD)])
    graphs = PrecisionConverter(
        GraphRun().graph,
        Calibrating(cache=folder / "clipping_limits.json"),
        "toy",
        watched,
        lambda count: GraphRun().training_images(count).images,
        half_beside_int8,
    )
    converted = graphs.graph(candidate_precision)
    return onnx.load_from_string(converted.model), converted


CONVOLUTIONS = ("conv_t", "down", "main")


def test_the_sensitive_layers_are_half_and_the_others_int8(folder: Path) -> None:
    model, converted = made(folder, "int8-sensitive-fp16")
    onnx.checker.check_model(model, full_check=True)
    found = types_of(model)
    producer = {node.output[0]: node for node in model.graph.node}
    sensitive = converted.details["calibration"]["in_fp16"]
    assert 0 < len(set(sensitive) & set(CONVOLUTIONS)) < len(CONVOLUTIONS)
    for name in CONVOLUTIONS:
        sources = [producer[tensor].op_type for tensor in producer[name].input[:2] if tensor in producer]
        if name in sensitive:
            assert found[name] == TensorProto.FLOAT16, name
            assert "DequantizeLinear" not in sources, name
        else:
            assert found[name] == TensorProto.FLOAT, name
            assert sources == ["DequantizeLinear", "DequantizeLinear"], name
    assert found["anomaly_map"] == TensorProto.FLOAT


@pytest.mark.parametrize("candidate_precision", INT8)
def test_beside_int8_is_no_float32_if_half_is_asked_for(
    candidate_precision: CandidatePrecision, folder: Path
) -> None:
    model, converted = made(folder, candidate_precision, half_beside_int8=True)
    found = types_of(model)
    # The head takes float16 features and squares them in float32.
    for name in ("conv_t", "teacher", "down", "embedding", "main", "sum", "residual", "up", "student"):
        assert found[name] == TensorProto.FLOAT16, name
    producer = {node.output[0]: node for node in model.graph.node}
    int8 = {
        name
        for name in CONVOLUTIONS
        if producer.get(producer[name].input[0], producer[name]).op_type == "DequantizeLinear"
    }
    sensitive = set(converted.details["calibration"]["in_fp16"])
    student = {"down", "main"}
    assert int8 == (student if candidate_precision == "int8-student" else set(CONVOLUTIONS) - sensitive)
    # No cast stands between a pair and its convolution, where a builder could not fuse them.
    for name in int8:
        assert [producer[tensor].op_type for tensor in producer[name].input[:2]] == ["DequantizeLinear"] * 2
    assert [opset.version for opset in model.opset_import if opset.domain == ""] == [19]


def with_harm_of_one_layer(folder: Path) -> None:
    """Calibrate, and say that one layer does more harm than INT8 allows, and less than INT8 with less in float does."""
    made(folder, "int8")
    file = folder / "clipping_limits.json"
    harm = {"conv_t": 0.0, "down": 0.005**2, "main": 0.0, "sum": 0.0}
    file.write_text(json.dumps({**json.loads(file.read_text()), "harm": harm}))


def test_less_float_leaves_fewer_layers_in_float_for_their_harm(tmp_path: Path) -> None:
    with_harm_of_one_layer(tmp_path)
    in_float = {
        name: made(tmp_path, name)[1].details["calibration"]["in_float"]
        for name in ("int8", "int8-less-float")
    }
    assert in_float == {"int8": ["down"], "int8-less-float": []}
    reads = {node.output[0]: node.input[0] for node in made(tmp_path, "int8-less-float")[0].graph.node}
    assert reads["down"].endswith("_dq")


def test_less_float_may_use_half_of_the_tolerance(tmp_path: Path) -> None:
    with_harm_of_one_layer(tmp_path)

    def built(name: str, map_error: float) -> dict[str, Any]:
        int8 = replace(ANYTHING, map_error=map_error)
        wanted = plan(tmp_path, "int8-less-float", "int8", int8=int8)
        return build_bundle(GraphRun(), tmp_path / name, wanted).manifest.verification

    first = built("anything", 10.0)
    assert first["candidate_precision"] == "int8-less-float"
    error = first["parts"][PART]["map_error_max"]
    assert built("twice", 2.1 * error)["candidate_precision"] == "int8-less-float"
    # INT8 errs less here, and is within the tolerance in any case.
    assert built("less", 1.9 * error)["candidate_precision"] == "int8"


def test_less_float_is_refused_where_int8_leaves_no_layer_in_float_for_its_harm(folder: Path) -> None:
    assert made(folder, "int8")[1].details["calibration"]["in_float"] == []
    with pytest.raises(PrecisionError):
        made(folder, "int8-less-float")


def test_half_beside_int8_decides_as_float32_beside_int8(folder: Path) -> None:
    images = toy_images(10, seed=9)
    found = []
    for half in (False, True):
        with OnnxRuntimeSession(made(folder, "int8", half)[1].model) as session:
            found.append(session.infer(images).anomaly_map)
    with OnnxRuntimeSession(GraphRun().graph) as session:
        exact = session.infer(images).anomaly_map
    # Float16 has 11 bits and INT8 has 8, so float16 beside INT8 changes less than INT8 does. It still moves values at
    # the edge of a quantisation step to the other side.
    between, of_int8 = (np.sqrt(np.mean((a - found[0]) ** 2)) for a in (found[1], exact))
    assert 0.0 < between < of_int8


def test_fewer_int8_layers_are_nearer_to_float32(folder: Path) -> None:
    images = toy_images(10, seed=9)
    with OnnxRuntimeSession(GraphRun().graph) as session:
        exact = session.infer(images).anomaly_map.astype(np.float64)

    def error(candidate_precision: CandidatePrecision) -> float:
        with OnnxRuntimeSession(made(folder, candidate_precision)[1].model) as session:
            return float(((session.infer(images).anomaly_map - exact) ** 2).mean())

    assert 0.0 < error("fp16") < error("int8-sensitive-fp16") < error("int8") / 2


def test_the_tail_is_float32_and_the_layers_before_it_are_float16(folder: Path) -> None:
    found = types_of(made(folder, "fp16-fp32-tail")[0])
    # The features are `teacher` and `student`. Their last convolutions and the image stay float32.
    for name in ("normalised", "conv_t", "teacher", "up", "student", "anomaly_map"):
        assert found[name] == TensorProto.FLOAT, name
    for name in ("image", "down", "embedding", "main", "sum", "residual"):
        assert found[name] == TensorProto.FLOAT16, name
    without = types_of(made(folder, "fp16")[0])
    for name in ("conv_t", "teacher", "up", "student"):
        assert without[name] == TensorProto.FLOAT16, name
