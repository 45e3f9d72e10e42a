"""Tries the candidate precisions of a build in turn, and keeps one that makes the decisions of the float32 graph.

Each candidate is built, gets its own thresholds, and is compared with the reference on the validation images of each
part. Of the candidates that are within their tolerance on every part, the fastest is kept: the one with the shortest
median time on the device of this machine, or, without one, the first in the fallback order. If no candidate is within
its tolerance, nothing is written.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from edgead.engine.candidate import Candidate, open_candidate
from edgead.engine.fidelity import judgement
from edgead.engine.next_try import refused_candidate
from edgead.engine.plan import Plan
from edgead.engine.precision_converter import CandidatePrecision, ConvertedModel, PrecisionConverter
from edgead.engine.reference import Judged, Reference
from edgead.engine.refusal import described, refusal
from edgead.engine.validation_images import ValidationImages
from edgead.engine.write import Built, answers
from edgead.errors import EdgeadError, GraphRefusedError, PrecisionError, VerificationError
from edgead.imaging.preprocess import ModelSize
from edgead.runtime.onnxruntime import OnnxRuntimeSession
from edgead.runtime.timing import inference_times_ms

WARM_UP = 10
TIMED_RUNS = 100

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Measured:
    """A candidate: its build, its comparison with the reference, and its median time (None if not timed)."""

    built: Built
    judged: Judged
    p50_ms: float | None = None


@dataclass(frozen=True, slots=True)
class _Kept:
    """The fastest candidate so far."""

    built: Built
    candidate_precision: CandidatePrecision
    p50_ms: float


def fastest_within_tolerance(
    exact: Built,
    validation_images: Mapping[str, ValidationImages],
    graphs: PrecisionConverter,
    plan: Plan,
    size: ModelSize,
    directory: Path,
    began_s: float,
) -> Built:
    """Try the candidate precisions of a plan in turn, and return the fastest that decides as the float32 graph.

    If the candidates run on a device of this machine, all of them are built, and those within their tolerance are
    timed. Otherwise the fallback order stands for the speed: the first candidate within its tolerance is returned.

    If the plan has several candidates, one that the graph cannot be converted to, or that the compiler refuses, is
    skipped and recorded.

    Args:
        exact: Verified float32 graph on ONNX Runtime.
        validation_images: Validation images by part.
        graphs: Converter of this float32 graph.
        plan: Plan with the candidate precisions and the target.
        size: Size of the images that the model takes, in pixels.
        directory: Directory for engines. It must exist until the result is installed.
        began_s: `time.monotonic()` at the start of the build, from which the time of a next try is estimated.

    Returns:
        The candidate that was kept.

    Raises:
        VerificationError: If no candidate is within its tolerance.
        PrecisionError: If the graph cannot be converted to the only candidate, or the calibration is stale.
        GraphRefusedError: If the compiler refuses the only candidate, or all of them.
        BackendError: If this machine cannot compile or run a candidate.
        DataError: If there are too few images to calibrate on.
    """
    if all(_is_exact(candidate_precision, plan) for candidate_precision in plan.candidate_precisions):
        return exact
    with OnnxRuntimeSession(exact.model, size=size) as session:
        reference = Reference(session, exact.thresholds, validation_images, graphs.multiplied_scales)

        def measure(candidate_precision: CandidatePrecision) -> _Measured:
            folder = directory / candidate_precision
            folder.mkdir()
            return _measured(graphs, candidate_precision, reference, plan, size, folder)

        if len(plan.candidate_precisions) > 1:
            return _fastest(exact, plan, measure)
        (only,) = plan.candidate_precisions
        calibration_s = _calibration_seconds(graphs) if only.startswith("int8") else 0.0
        measured = measure(only)
        if measured.judged.holds:
            return measured.built
        seconds = time.monotonic() - began_s - calibration_s
        raise refused_candidate(only, measured.judged.compared, graphs, reference, plan, size, seconds)


def _calibration_seconds(graphs: PrecisionConverter) -> float:
    """Calibrate, or read the calibration, and return the time that it took in seconds."""
    began_s = time.monotonic()
    # A property, which is computed once.
    _ = graphs.calibration
    return time.monotonic() - began_s


def _is_exact(candidate_precision: CandidatePrecision, plan: Plan) -> bool:
    """Whether the float32 graph on ONNX Runtime is this candidate."""
    return candidate_precision == "fp32" and plan.target.backend == "onnxruntime"


def _fastest(exact: Built, plan: Plan, measure: Callable[[CandidatePrecision], _Measured]) -> Built:
    """Measure the candidates of a plan in turn and return the fastest, see `fastest_within_tolerance`."""
    tried: list[dict[str, Any]] = []
    refusals: list[GraphRefusedError] = []
    outside: list[VerificationError] = []
    kept: _Kept | None = None
    for candidate_precision in plan.candidate_precisions:
        if _is_exact(candidate_precision, plan):
            return _recorded(exact, candidate_precision, tried)
        try:
            measured = measure(candidate_precision)
        except (PrecisionError, GraphRefusedError) as error:
            tried.append(_not_built(candidate_precision, error))
            refusals += [error] if isinstance(error, GraphRefusedError) else []
            continue
        tried.append(_result(candidate_precision, measured))
        if not measured.judged.holds:
            outside.append(refusal(measured.judged.compared, candidate_precision, ""))
            continue
        if measured.p50_ms is None:
            return _recorded(measured.built, candidate_precision, tried)
        if kept is None or measured.p50_ms < kept.p50_ms:
            kept = _Kept(measured.built, candidate_precision, measured.p50_ms)
    if kept is None:
        raise _none_kept(plan, refusals, outside)
    return _recorded(kept.built, kept.candidate_precision, tried)


def _none_kept(
    plan: Plan, refusals: Sequence[GraphRefusedError], outside: Sequence[VerificationError]
) -> EdgeadError:
    """Make the error of a build without a result, with the tables of the candidates outside their tolerance."""
    names = ", ".join(plan.candidate_precisions)
    if len(refusals) == len(plan.candidate_precisions):
        last = refusals[-1]
        return GraphRefusedError(
            f"none of {names} can be compiled, the last one because {last.what}", hint=last.hint
        )
    return VerificationError(
        f"none of {names} decides as the model within the tolerances of target "
        f"{plan.target_name!r}, so nothing was written",
        hint="train again, or give a --target FILE.toml with other tolerances",
        table=[line for error in outside for line in error.table],
    )


def _measured(
    graphs: PrecisionConverter,
    candidate_precision: CandidatePrecision,
    reference: Reference,
    plan: Plan,
    size: ModelSize,
    folder: Path,
) -> _Measured:
    """Build one candidate, compare it with the reference, and time it if it holds and runs here as on the device."""
    _log.info("building %s for %s", candidate_precision, plan.target_name)
    converted = graphs.graph(candidate_precision)
    with open_candidate(converted, plan, size, folder) as candidate:
        _log.info("comparing the decisions of %s and fp32", candidate_precision)
        tolerance = plan.target.tolerances.of(converted.precision)
        if candidate_precision == "int8-less-float":
            # Its expected error is small. Where it errs by much more, as sums that overflow do, speed is no reason.
            tolerance = tolerance.halved()
        judged = reference.judge(candidate.session, tolerance)
        measured = _Measured(_built(candidate, converted, reference, judged), judged)
        if not (candidate.timed and judged.holds and len(plan.candidate_precisions) > 1):
            return measured
        images = next(iter(reference.validation_images.values())).good
        # Repeated to fill the batch.
        batch = np.resize(images, (plan.target.batch.opt, *images.shape[1:]))
        taken_ms = median(inference_times_ms(candidate.session, batch, warm_up=WARM_UP, runs=TIMED_RUNS))
    _log.info("%s takes %.3f ms for %d images (median)", candidate_precision, taken_ms, plan.target.batch.opt)
    return replace(measured, p50_ms=taken_ms)


def _built(candidate: Candidate, converted: ConvertedModel, reference: Reference, judged: Judged) -> Built:
    """Describe a candidate that was compared with the reference."""
    verification = {
        "reference": "onnxruntime fp32",
        "parts": {
            part: {
                "reference_threshold": reference.thresholds[part].value,
                **judgement(*judged.compared[part]),
                **of_part.record(judged.scores[part]),
            }
            for part, of_part in reference.validation_images.items()
        },
        **converted.details,
    }
    files = dict(candidate.files)
    if converted.cache is not None:
        files["calibration.json"] = converted.cache.encode()
    return Built(
        converted.model,
        converted.precision,
        judged.thresholds,
        verification,
        answers(candidate.session, reference.validation_images),
        files,
        candidate.verified,
    )


def _not_built(candidate_precision: str, error: PrecisionError | GraphRefusedError) -> dict[str, Any]:
    """Summarise for the bundle why a candidate was not built, and log it."""
    _log.info("%s is skipped: %s", candidate_precision, error.what)
    return {"candidate_precision": candidate_precision, "holds": False, "error": str(error)}


def _result(candidate_precision: str, measured: _Measured) -> dict[str, Any]:
    """Summarise the comparison of one candidate for the bundle, and log it if the candidate is out of tolerance."""
    compared = measured.judged.compared
    over = [part for part, (comparison, limits) in compared.items() if not comparison.holds(limits)]
    if over:
        where = f" for {over[0]}" if len(compared) > 1 else ""
        _log.info("%s is out of tolerance%s: %s", candidate_precision, where, described(*compared[over[0]]))
    measures = {part: comparison.measures() for part, (comparison, _) in compared.items()}
    timed = {} if measured.p50_ms is None else {"p50_ms": measured.p50_ms}
    return {"candidate_precision": candidate_precision, "holds": not over, **timed, "parts": measures}


def _recorded(built: Built, candidate_precision: str, tried: list[dict[str, Any]]) -> Built:
    """Add the result of each candidate precision to the record of a build."""
    return replace(
        built,
        verification={
            **built.verification,
            "candidate_precision": candidate_precision,
            "fallback_order": tried,
        },
    )
