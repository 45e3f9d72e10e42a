"""Explains the refusal of a candidate precision: which half does the harm, and what to try next.

Only a refusal pays for the measurements here: the teacher and the student are quantised alone, and both graphs are
compared with the reference, on OpenVINO if it is the library of the target, and else on ONNX Runtime.
"""

from __future__ import annotations

import logging

from edgead.engine.candidate import open_graph
from edgead.engine.plan import Plan
from edgead.engine.precision_converter import CandidatePrecision, ConvertedModel, PrecisionConverter
from edgead.engine.reference import Compared, Judged, Reference
from edgead.engine.refusal import described_measure, refusal
from edgead.errors import VerificationError
from edgead.imaging.preprocess import ModelSize
from edgead.text import duration

_log = logging.getLogger(__name__)


def refused_candidate(
    candidate_precision: CandidatePrecision,
    compared: Compared,
    graphs: PrecisionConverter,
    reference: Reference,
    plan: Plan,
    size: ModelSize,
    seconds: float,
) -> VerificationError:
    """Make the error for the only candidate of a plan, which is outside its tolerance.

    Args:
        candidate_precision: The candidate.
        compared: Its differences from the reference, by part.
        graphs: Converter of the float32 graph.
        reference: The float32 graph.
        plan: Plan with the target.
        size: Size of the images that the model takes, in pixels.
        seconds: Time of the build so far without the calibration, which the next build of the same bundle reads.

    Returns:
        The error, with the table and the next thing to try.

    Raises:
        BackendError: If a graph with one quantised half cannot be run.
    """
    time = f"about {duration(seconds)}"
    if candidate_precision != "int8":
        return refusal(compared, candidate_precision, _without_halves(candidate_precision, time))
    _log.info("measuring the teacher and the student alone in INT8")

    def judged(converted: ConvertedModel) -> Judged:
        with open_graph(converted, plan.target.backend, size) as session:
            return reference.judge(session, plan.target.tolerances.of(converted.precision))

    halves = {"teacher": judged(graphs.teacher_in_int8()), "student": judged(graphs.graph("int8-student"))}
    part, measure = _refused_measure(compared)
    harm = {name: half.compared[part][0].harm(measure) for name, half in halves.items()}
    first, second = sorted(halves, key=lambda name: -harm[name])
    alone = {name: described_measure(half.compared[part][0], measure) for name, half in halves.items()}
    hint = f"the {first} does more harm ({alone[first]} alone, the {second} {alone[second]}); " + (
        f"build with --quantize student, which is within the tolerance and takes {time}"
        if halves["student"].holds
        else f"build with --precision fp16, which takes {time}; --quantize student is outside the tolerance too"
    )
    return refusal(
        compared, candidate_precision, hint, {name: half.compared for name, half in halves.items()}
    )


def _without_halves(candidate_precision: CandidatePrecision, time: str) -> str:
    """Return the hint for a candidate of which no half is measured."""
    if candidate_precision == "fp32":
        return "train again, or give a --target FILE.toml with other tolerances"
    return f"build with --precision {'fp16' if 'int8' in candidate_precision else 'fp32'}, which takes {time}"


def _refused_measure(compared: Compared) -> tuple[str, str]:
    """Return the first part and measure outside the tolerance."""
    return next(
        (part, over[0])
        for part, (comparison, limits) in compared.items()
        if (over := comparison.over(limits))
    )
