"""Explains the refusal of a candidate precision: which half does the harm, and what to try next.

Only a refusal pays for the measurements here: the teacher and the student are quantised alone, and both graphs are
compared with the reference on ONNX Runtime.
"""

from __future__ import annotations

import logging

from edgead.engine.plan import Plan
from edgead.engine.precision_converter import CandidatePrecision, ConvertedModel, PrecisionConverter
from edgead.engine.reference import Compared, Judged, Reference
from edgead.engine.refusal import refusal
from edgead.errors import VerificationError
from edgead.imaging.preprocess import ModelSize
from edgead.runtime.onnxruntime import OnnxRuntimeSession
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
        BackendError: If ONNX Runtime cannot run a graph with one quantised half.
    """
    time = f"about {duration(seconds)}"
    if candidate_precision != "int8":
        return refusal(compared, candidate_precision, _without_halves(candidate_precision, time))
    _log.info("measuring the teacher and the student alone in INT8")

    def judged(converted: ConvertedModel) -> Judged:
        with OnnxRuntimeSession(converted.model, size=size) as session:
            return reference.judge(session, plan.target.tolerances.of(converted.precision))

    teacher, student = judged(graphs.teacher_in_int8()), judged(graphs.graph("int8-student"))
    first, second = ("teacher", "student") if _error(teacher) >= _error(student) else ("student", "teacher")
    harm = {"teacher": _error(teacher), "student": _error(student)}
    hint = (
        f"the {first} does more harm (map error {harm[first]:.3g} alone, the {second} {harm[second]:.3g}); "
        + (
            f"build with --quantize student, which is within the tolerance and takes {time}"
            if student.holds
            else f"build with --precision fp16, which takes {time}; --quantize student is outside the tolerance too"
        )
    )
    return refusal(
        compared, candidate_precision, hint, {"teacher": teacher.compared, "student": student.compared}
    )


def _without_halves(candidate_precision: CandidatePrecision, time: str) -> str:
    """Return the hint for a candidate of which no half is measured."""
    if candidate_precision == "fp32":
        return "train again, or give a --target FILE.toml with other tolerances"
    return f"build with --precision {'fp16' if 'int8' in candidate_precision else 'fp32'}, which takes {time}"


def _error(judged: Judged) -> float:
    """Return the largest map error over all parts."""
    return max(comparison.fidelity.map_error_max for comparison, _ in judged.compared.values())
