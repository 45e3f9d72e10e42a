"""`--precision auto` keeps the first candidate precision that decides as the model and records the others.

If no candidate precision does, nothing is written. The graph of the run is a hand-made toy, so that every build is
quick; everything else is real.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper
from sklearn.metrics import roc_auc_score

from edgead.bundle import Bundle, open_bundle
from edgead.engine.build import build_bundle
from edgead.engine.fidelity import Tolerance
from edgead.engine.precision_converter import (
    CandidatePrecision,
    ConvertedModel,
    PrecisionConverter,
)
from edgead.errors import PrecisionError, VerificationError
from edgead.export.precision.quantize import int8_from_float32
from edgead.runtime import open_session
from edgead.runtime.golden_check import check_golden
from edgead.runtime.onnxruntime import OnnxRuntimeSession
from edgead.types import Prediction
from tests.helpers.graph_run import ANYTHING, GOOD, INT8, NOTHING, ORDER, TARGET, GraphRun, loaded, plan
from tests.helpers.toy_graph import toy_graph, toy_images
from tests.helpers.toy_run import PART

pytestmark = pytest.mark.usefixtures("graph_runs_export")


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
