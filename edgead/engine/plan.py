"""Checked options of a build: target, precisions to try, calibration and false-alarm rate."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from edgead.engine.fidelity import PRECISIONS
from edgead.engine.precision_converter import (
    CANDIDATE_PRECISIONS,
    Calibrating,
    CandidatePrecision,
)
from edgead.engine.settings import known_name
from edgead.engine.target import Target, find_target
from edgead.errors import InputError
from edgead.files.arguments import PlanOptions, checked_options
from edgead.plugin.loader import plugin_file
from edgead.runtime.tensorrt.engine_record import Head
from edgead.scoring.threshold import threshold_from_normal_scores
from edgead.types import Quantize

if TYPE_CHECKING:
    from typing_extensions import Unpack

_log = logging.getLogger(__name__)

_OF_INT8 = ("calibrate_on", "algorithm", "quantize", "cache")

HEADS = ("auto", "plugin", "standard")


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked request for a build.

    Attributes:
        target_name: Name of the target.
        target: The target.
        candidate_precisions: Candidate precisions to try in turn. The first that decides as the model is kept.
        calibrating: How INT8 is calibrated.
        false_alarm_rate: Share of good parts that may be called defective, see `edgead.scoring.threshold`; None for
            the rate of the run or the bundle.
        confidence: Confidence that this share is not exceeded, from 0 to 1; None for the confidence of the bundle, and
            0.95 for a run.
        head: Head of an engine, which computes the anomaly map: one of `HEADS`, see `engine_head`.

    Raises:
        InputError: If the rate or the confidence is not between 0 and 1, the backend does not support a candidate
            precision, or the head is not available.
    """

    target_name: str = "cpu"
    target: Target = field(default_factory=lambda: find_target(None, None)[1])
    candidate_precisions: tuple[CandidatePrecision, ...] = ("fp32",)
    calibrating: Calibrating = field(default_factory=Calibrating)
    false_alarm_rate: float | None = None
    confidence: float | None = None
    head: str = "auto"

    def __post_init__(self) -> None:
        # Checked now, so that a wrong rate or head is rejected before minutes of exporting.
        threshold_from_normal_scores([0.0], *self.rate_and_confidence())
        asked = " and ".join(self.candidate_precisions)
        self.target.check_precisions(
            self.candidate_precisions, f"{asked} is asked for target {self.target_name!r}"
        )
        self.engine_head()

    def rate_and_confidence(self, rate: float = 0.01, confidence: float = 0.95) -> tuple[float, float]:
        """Return the false-alarm rate and the confidence of a threshold.

        Args:
            rate: False-alarm rate of the run or the bundle, used if the plan has none.
            confidence: Confidence of the bundle, used if the plan has none.
        """
        return (
            rate if self.false_alarm_rate is None else self.false_alarm_rate,
            confidence if self.confidence is None else self.confidence,
        )

    def engine_head(self) -> Head:
        """Choose the head of an engine that this machine builds now.

        `plugin` selects the CUDA kernels. TensorRT loads them as a plugin, and a version-compatible engine contains the
        plugin. TensorRT for RTX loads no plugin, so the kernels run after the engine. `auto` selects the plugin if
        'edgead plugin build' has compiled it, and `standard` otherwise. For TensorRT for RTX and for a
        version-compatible engine, `auto` is `standard`, because the kernels have not been measured there.

        Returns:
            `plugin`, `kernels` or `standard`.

        Raises:
            InputError: If the head is unknown, the backend does not support it, or the plugin is not compiled.
        """
        target = self.target
        if self.head not in HEADS:
            raise InputError(f"unknown --head {self.head[:80]!r}", hint=f"choose one of {', '.join(HEADS)}")
        asked = self.head == "plugin"
        if target.tensorrt is None:
            if asked:
                raise InputError(
                    f"--head plugin is for engines, and target {self.target_name!r} is for {target.backend}",
                    hint="leave it out, or give --backend tensorrt or tensorrt-rtx",
                )
            return "standard"
        if target.backend == "tensorrt-rtx":
            return "kernels" if asked else "standard"
        library = plugin_file()
        if asked and not library.is_file():
            raise InputError(
                f"--head plugin needs {library}, which does not exist",
                hint="compile it with 'edgead plugin build'",
            )
        if asked:
            return "plugin"
        # An engine that contains its plugin was never opened on a GPU, so it is only built on request.
        chosen = self.head == "auto" and library.is_file() and not target.tensorrt.version_compatible
        return "plugin" if chosen else "standard"

    @classmethod
    def parse(cls, **options: Unpack[PlanOptions]) -> Plan:
        """Make a plan from the options of a user.

        Args:
            **options: Options of `edgead.files.arguments.PlanOptions`. None means that an option is not given.

        Returns:
            The plan.

        Raises:
            InputError: If a name is unknown, options contradict each other, or an option of INT8 is given and no
                candidate precision is INT8.
        """
        given = checked_options(PlanOptions, options)
        target = os.fspath(given["target"]) if "target" in given else None
        name, chosen = find_target(given.get("backend"), target)
        precision = given.get("precision", "fp32")
        candidate_precisions = _candidate_precisions(precision, given.get("quantize", "all"), name, chosen)
        unused = [f"--{option.replace('_', '-')}" for option in _OF_INT8 if option in given]
        if unused and not any(
            candidate_precision.startswith("int8") for candidate_precision in candidate_precisions
        ):
            raise InputError(
                f"{' and '.join(unused)} goes with int8, and --precision {precision} for target {name!r} tries "
                f"{' and '.join(candidate_precisions)} only",
                hint="leave it out, or give --precision int8",
            )
        cache = Path(given["cache"]) if "cache" in given else None
        calibrating = Calibrating.parse(**_chosen(given, "calibrate_on", "algorithm"), cache=cache)
        return cls(
            name,
            chosen,
            candidate_precisions,
            calibrating,
            **_chosen(given, "false_alarm_rate", "confidence", "head"),
        )


def _candidate_precisions(
    precision: str, quantize: str, target_name: str, target: Target
) -> tuple[CandidatePrecision, ...]:
    """Find the candidate precisions to try in turn; log it if `auto` has no choice.

    Args:
        precision: Value of `--precision`: one of `PRECISIONS`, or `auto` for the whole fallback order.
        quantize: Value of `--quantize`: `all`, or `student` for INT8 in the student only.
        target_name: Name of the target.
        target: The target.

    Returns:
        The candidate precisions.

    Raises:
        InputError: If a name is unknown, or `student` is given with another precision than INT8.
    """
    choice = known_name("--precision", precision, (*PRECISIONS, "auto"))
    if known_name("--quantize", quantize, get_args(Quantize)) == "student":
        if choice != "int8":
            raise InputError(
                f"--quantize student does not go with --precision {precision}", hint="give --precision int8"
            )
        return ("int8-student",)
    if choice != "auto":
        return (known_name("--precision", choice, CANDIDATE_PRECISIONS),)
    order = target.fallback_order
    if len(order) == 1:
        on_cpu = target.backend == "onnxruntime" and order == ("fp32",)
        why = ", because no lower precision is faster on ONNX Runtime's CPU (--target intel has INT8)"
        _log.info(
            "--precision auto has nothing to try: target %s has one candidate, %s%s",
            target_name,
            order[0],
            why if on_cpu else "",
        )
    return order


def _chosen(given: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Select the options with these names that are given."""
    return {name: given[name] for name in names if name in given}
