"""What a user asks of a build, checked before any work: target, precisions to try, calibration, false-alarm budget."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgead.engine.precision_converter import Calibrating, CandidatePrecision, candidate_precisions_of
from edgead.engine.target import Target, find_target
from edgead.errors import InputError
from edgead.files.arguments import PlanOptions, checked_options
from edgead.plugin.loader import plugin_file
from edgead.runtime.tensorrt.engine_record import Head
from edgead.scoring.threshold import threshold_from_normal_scores

if TYPE_CHECKING:
    from typing_extensions import Unpack

_OF_INT8 = ("calibrate_on", "algorithm", "quantize", "cache")

HEADS = ("auto", "plugin", "standard")


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked request for a build.

    Attributes:
        target_name: Name of the target.
        target: The target.
        candidate_precisions: Candidate precisions to try in turn; the first that decides as the model is kept.
        calibrating: How INT8 is calibrated.
        false_alarm_rate: Share of good parts that may be called defective, see `edgead.scoring.threshold`.
        confidence: Confidence that this share is kept.
        head: One of `HEADS`: how the anomaly map of an engine is computed, see `engine_head`.

    Raises:
        InputError: If the rate or the confidence is not between 0 and 1, or the head is not available.
    """

    target_name: str = "cpu"
    target: Target = field(default_factory=lambda: find_target(None, None)[1])
    candidate_precisions: tuple[CandidatePrecision, ...] = ("fp32",)
    calibrating: Calibrating = field(default_factory=Calibrating)
    false_alarm_rate: float = 0.01
    confidence: float = 0.95
    head: str = "auto"

    def __post_init__(self) -> None:
        # A bad rate or head is refused now, not after minutes of exporting.
        threshold_from_normal_scores([0.0], self.false_alarm_rate, self.confidence)
        self.engine_head()

    def engine_head(self) -> Head:
        """Choose the head of an engine of this plan that is built here and now.

        `plugin` asks for the CUDA kernels, which TensorRT takes as a plugin, and a version-compatible engine carries
        inside; TensorRT for RTX takes no plugin, so they are launched behind the engine. `auto` is the plugin if
        'edgead plugin build' was run, and `standard` otherwise; for TensorRT for RTX and for a version-compatible
        engine it is `standard`, until measured there.

        Returns:
            `plugin`, `kernels` or `standard`.

        Raises:
            InputError: If the head is unknown, the target's backend does not have it, or the plugin is not compiled.
        """
        target = self.target
        if self.head not in HEADS:
            raise InputError(f"unknown --head {self.head[:80]!r}: choose one of {', '.join(HEADS)}")
        asked = self.head == "plugin"
        if target.tensorrt is None:
            if asked:
                raise InputError(
                    f"--head plugin is for engines, and target {self.target_name!r} is for {target.backend}: "
                    "leave it out, or give --backend tensorrt or tensorrt-rtx"
                )
            return "standard"
        if target.backend == "tensorrt-rtx":
            return "kernels" if asked else "standard"
        library = plugin_file()
        if asked and not library.is_file():
            raise InputError(
                f"--head plugin needs {library}, which is not there: compile it with 'edgead plugin build'"
            )
        if asked:
            return "plugin"
        # An engine that carries its plugin was never opened on a GPU, so it is for those who ask.
        chosen = self.head == "auto" and library.is_file() and not target.tensorrt.version_compatible
        return "plugin" if chosen else "standard"

    @classmethod
    def parse(cls, **options: Unpack[PlanOptions]) -> Plan:
        """Check what a user asks for.

        Args:
            **options: Options of `edgead.files.arguments.PlanOptions`. None means that an option is not given.

        Returns:
            The plan.

        Raises:
            InputError: If a name is unknown (the message has the choices), options contradict each other, or an option
                of INT8 is given and no candidate precision is INT8.
        """
        given = checked_options(PlanOptions, options)
        target = os.fspath(given["target"]) if "target" in given else None
        name, chosen = find_target(given.get("backend"), target)
        precision = given.get("precision", "fp32")
        candidate_precisions = candidate_precisions_of(
            precision, given.get("quantize", "all"), chosen.fallback_order
        )
        unused = [f"--{option.replace('_', '-')}" for option in _OF_INT8 if option in given]
        if unused and not any(
            candidate_precision.startswith("int8") for candidate_precision in candidate_precisions
        ):
            raise InputError(
                f"{' and '.join(unused)} goes with int8, and --precision {precision} for target {name!r} tries "
                f"{' and '.join(candidate_precisions)} only: leave it out, or give --precision int8"
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


def _chosen(given: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Take the options of these names that are given."""
    return {name: given[name] for name in names if name in given}
