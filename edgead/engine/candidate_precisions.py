"""Tries the candidate precisions of a build in turn until one makes the decisions of the float32 graph.

Each candidate is built, gets its own thresholds, and is compared with the reference on the validation images of each
part. The first candidate that is within its tolerance on every part is kept. If there is none, nothing is written.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgead.engine.candidate import Candidate, open_candidate
from edgead.engine.fidelity import (
    FidelityReport,
    Tolerance,
    ToleranceLimits,
    described,
    judgement,
    require_each,
)
from edgead.engine.plan import Plan
from edgead.engine.precision_converter import ConvertedModel, PrecisionConverter
from edgead.engine.validation_images import ValidationImages
from edgead.engine.write import Built, answers
from edgead.errors import PrecisionError, VerificationError
from edgead.imaging.preprocess import ModelSize
from edgead.runtime.agreement import compare_sessions
from edgead.runtime.base import Session
from edgead.runtime.onnxruntime import OnnxRuntimeSession
from edgead.scoring.threshold import Threshold

_log = logging.getLogger(__name__)

_HINT = (
    "build with --precision auto or a higher one, or int8 with another --calibrate-on or --algorithm or with "
    "--quantize student"
)


@dataclass(frozen=True, slots=True)
class _Reference:
    """Float32 graph that candidates are compared with: its session, and thresholds and AUROCs by part."""

    session: Session
    thresholds: Mapping[str, Threshold]
    aurocs: Mapping[str, float | None]


def first_within_tolerance(
    exact: Built,
    validation_images: Mapping[str, ValidationImages],
    graphs: PrecisionConverter,
    plan: Plan,
    size: ModelSize,
    directory: Path,
) -> Built:
    """Try the candidate precisions of a plan in turn, and return the first that decides as the float32 graph.

    If the plan has several candidates and the graph cannot be converted to one, that one is skipped and recorded.

    Args:
        exact: Verified float32 graph on ONNX Runtime.
        validation_images: Validation images by part.
        graphs: Converter of this float32 graph.
        plan: Plan with the candidate precisions and the target.
        size: Size of the images that the model takes, in pixels.
        directory: Directory for engines. It must exist until the result is installed.

    Returns:
        The candidate that was kept.

    Raises:
        VerificationError: If no candidate is within its tolerance.
        PrecisionError: If the graph cannot be converted to the only candidate, or the calibration is stale.
        BackendError: If a candidate cannot be compiled or run.
        DataError: If there are too few images to calibrate on.
    """
    only = len(plan.candidate_precisions) == 1
    tried: list[dict[str, Any]] = []
    with OnnxRuntimeSession(exact.model, size=size) as session:
        aurocs = {part: of_part.auroc(session) for part, of_part in validation_images.items()}
        reference = _Reference(session, exact.thresholds, aurocs)
        for candidate_precision in plan.candidate_precisions:
            if candidate_precision == "fp32" and plan.target.backend == "onnxruntime":
                return exact if only else _recorded(exact, candidate_precision, tried)
            _log.info("building %s for %s", candidate_precision, plan.target_name)
            try:
                converted = graphs.graph(candidate_precision)
            except PrecisionError as error:
                if only:
                    raise
                tried.append(_not_converted(candidate_precision, error))
                continue
            with open_candidate(converted, plan, size, directory) as candidate:
                _log.info("comparing the decisions of %s and fp32", candidate_precision)
                tolerance = plan.target.tolerances.of(converted.precision)
                built, compared = _judged(candidate, converted, reference, validation_images, tolerance)
            if only:
                require_each(compared, _HINT)
                return built
            tried.append(_result(candidate_precision, compared))
            if tried[-1]["holds"]:
                return _recorded(built, candidate_precision, tried)
    raise VerificationError(
        f"none of {', '.join(plan.candidate_precisions)} decides as the model within the tolerances of target "
        f"{plan.target_name!r}, so nothing was written",
        hint="train again, or give a --target FILE.toml with other tolerances",
    )


def _judged(
    candidate: Candidate,
    converted: ConvertedModel,
    reference: _Reference,
    validation_images: Mapping[str, ValidationImages],
    tolerance: Tolerance,
) -> tuple[Built, dict[str, tuple[FidelityReport, ToleranceLimits]]]:
    """Compare one candidate with the reference.

    Returns:
        The build that the bundle of the candidate would hold, and the differences and their limits by part.
    """
    session = candidate.session
    thresholds = {part: of_part.threshold(session) for part, of_part in validation_images.items()}
    compared = {}
    for part, of_part in validation_images.items():
        level, other_level = reference.thresholds[part].value, thresholds[part].value
        reference_auroc = reference.aurocs[part]
        compared[part] = (
            FidelityReport(
                compare_sessions(reference.session, session, of_part.all, level, other_threshold=other_level),
                reference_auroc,
                None if reference_auroc is None else of_part.auroc(session),
            ),
            tolerance.limits(len(of_part.all)),
        )
    verification = {
        "reference": "onnxruntime fp32",
        "parts": {
            part: {
                "reference_threshold": reference.thresholds[part].value,
                **judgement(*compared[part]),
                "validation_images": of_part.hashes(),
            }
            for part, of_part in validation_images.items()
        },
        **converted.details,
    }
    files = dict(candidate.files)
    if converted.cache is not None:
        files["calibration.json"] = converted.cache.encode()
    built = Built(
        converted.model,
        converted.precision,
        thresholds,
        verification,
        answers(session, validation_images),
        files,
        candidate.verified,
    )
    return built, compared


def _not_converted(candidate_precision: str, error: PrecisionError) -> dict[str, Any]:
    """Summarise for the bundle that the graph cannot be converted to a candidate precision."""
    return {"candidate_precision": candidate_precision, "holds": False, "error": str(error)}


def _result(
    candidate_precision: str, compared: Mapping[str, tuple[FidelityReport, ToleranceLimits]]
) -> dict[str, Any]:
    """Summarise the comparison of one candidate for the bundle, and log it if the candidate is not kept."""
    over = [part for part, (comparison, limits) in compared.items() if not comparison.holds(limits)]
    if over:
        where = f" for {over[0]}" if len(compared) > 1 else ""
        _log.info("%s is out of tolerance%s: %s", candidate_precision, where, described(*compared[over[0]]))
    measures = {part: comparison.measures() for part, (comparison, _) in compared.items()}
    return {"candidate_precision": candidate_precision, "holds": not over, "parts": measures}


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
