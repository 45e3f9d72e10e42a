"""The candidate precisions of a build, tried in turn until one decides as the float32 graph.

Each candidate is built, gets thresholds of its own, and is compared with the reference on the validation images of each
part. The first one within its tolerance on every part is kept. If no candidate is, nothing is written.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgead.engine.candidate import Candidate, open_candidate
from edgead.engine.fidelity import Budget, Comparison, Limits, described, judgement, require_each
from edgead.engine.plan import Plan
from edgead.engine.precision_converter import Lowered, LowerPrecisions
from edgead.engine.validation_images import Judges
from edgead.engine.write import Built, answers
from edgead.errors import PrecisionError, VerificationError
from edgead.imaging.preprocess import ModelSize
from edgead.runtime.agreement import compare_sessions
from edgead.runtime.base import Session
from edgead.runtime.onnxruntime import OnnxRuntimeSession
from edgead.scoring.threshold import Threshold

_log = logging.getLogger(__name__)

_MEND = (
    "build with --precision auto or a higher one, or int8 with another --calibrate-on or --algorithm or with "
    "--quantize student"
)


@dataclass(frozen=True, slots=True)
class _Reference:
    """The float32 graph that candidates are compared with: its session, and thresholds and AUROCs by part."""

    session: Session
    thresholds: Mapping[str, Threshold]
    aurocs: Mapping[str, float | None]


def first_within_tolerance(
    exact: Built,
    judges: Mapping[str, Judges],
    graphs: LowerPrecisions,
    plan: Plan,
    size: ModelSize,
    directory: Path,
) -> Built:
    """Try the candidate precisions of a plan in turn, and return the first that decides as the float32 graph.

    If the plan has several candidates, one that the graph cannot be converted to is skipped, and the result records it.

    Args:
        exact: The float32 graph, verified, on ONNX Runtime.
        judges: Validation images by part.
        graphs: Converter that makes the graph of a candidate precision from this float32 graph.
        plan: Candidate precisions, and the target that each is built for.
        size: Size of the images that the model takes.
        directory: Directory for engines; it must exist until the result is installed.

    Returns:
        The candidate that was kept.

    Raises:
        VerificationError: If no candidate is within its tolerance.
        PrecisionError: If the graph cannot be converted to the only candidate, or the calibration is stale.
        BackendError: If a candidate cannot be compiled or run.
        DataError: If there are too few images to calibrate on.
    """
    only = len(plan.rungs) == 1
    tried: list[dict[str, Any]] = []
    with OnnxRuntimeSession(exact.model, size=size) as session:
        aurocs = {part: of_part.auroc(session) for part, of_part in judges.items()}
        reference = _Reference(session, exact.thresholds, aurocs)
        for rung in plan.rungs:
            if rung == "fp32" and plan.recipe.backend == "onnxruntime":
                return exact if only else _recorded(exact, rung, tried)
            _log.info("building %s for %s", rung, plan.recipe_name)
            try:
                lowered = graphs.graph(rung)
            except PrecisionError as error:
                if only:
                    raise
                tried.append({"rung": rung, "holds": False, "error": str(error)})
                continue
            with open_candidate(lowered, plan, size, directory) as candidate:
                _log.info("setting the threshold again, and checking that %s decides as fp32", rung)
                budget = plan.recipe.budgets.of(lowered.precision)
                built, compared = _judged(candidate, lowered, reference, judges, budget)
            if only:
                require_each(compared, _MEND)
                return built
            tried.append(_result(rung, compared))
            if tried[-1]["holds"]:
                return _recorded(built, rung, tried)
    raise VerificationError(
        f"none of {', '.join(plan.rungs)} decides as the model within the budgets of target {plan.recipe_name!r}; "
        "nothing was written: train again, or give a --target FILE.toml with other budgets"
    )


def _judged(
    candidate: Candidate,
    lowered: Lowered,
    reference: _Reference,
    judges: Mapping[str, Judges],
    budget: Budget,
) -> tuple[Built, dict[str, tuple[Comparison, Limits]]]:
    """Compare one candidate with the reference.

    Returns:
        What the bundle of the candidate would hold, and for each part the differences and the limits for them.
    """
    session = candidate.session
    thresholds = {part: of_part.threshold(session) for part, of_part in judges.items()}
    compared = {}
    for part, of_part in judges.items():
        level, other_level = reference.thresholds[part].value, thresholds[part].value
        reference_auroc = reference.aurocs[part]
        compared[part] = (
            Comparison(
                compare_sessions(reference.session, session, of_part.all, level, other_threshold=other_level),
                reference_auroc,
                None if reference_auroc is None else of_part.auroc(session),
            ),
            budget.limits(len(of_part.all)),
        )
    verification = {
        "reference": "onnxruntime fp32",
        "parts": {
            part: {
                "reference_threshold": reference.thresholds[part].value,
                **judgement(*compared[part]),
                "judges": of_part.hashes(),
            }
            for part, of_part in judges.items()
        },
        **lowered.details,
    }
    files = dict(candidate.files)
    if lowered.cache is not None:
        files["calibration.json"] = lowered.cache.encode()
    built = Built(
        lowered.model,
        lowered.precision,
        thresholds,
        verification,
        answers(session, judges),
        files,
        candidate.verified,
    )
    return built, compared


def _result(rung: str, compared: Mapping[str, tuple[Comparison, Limits]]) -> dict[str, Any]:
    """Summarise the comparison of one candidate for the bundle, and log it if the candidate is not kept."""
    over = [part for part, (comparison, limits) in compared.items() if not comparison.holds(limits)]
    if over:
        where = f" for {over[0]}" if len(compared) > 1 else ""
        _log.info("%s is over budget%s: %s", rung, where, described(*compared[over[0]]))
    measures = {part: comparison.measures() for part, (comparison, _) in compared.items()}
    return {"rung": rung, "holds": not over, "parts": measures}


def _recorded(built: Built, rung: str, tried: list[dict[str, Any]]) -> Built:
    """Add the result of each candidate precision to what the bundle records."""
    return replace(built, verification={**built.verification, "rung": rung, "ladder": tried})
