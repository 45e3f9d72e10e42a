"""What a user asks of a build, checked before any work: recipe, precisions to try, calibration, false-alarm budget."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edgead.engine.lower import Calibrating, Rung, rungs_of
from edgead.engine.recipe import Recipe, find_recipe
from edgead.threshold import threshold_from_normal_scores


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked request for a build.

    recipe_name, recipe: of the target. rungs: precisions to try in turn; the first that decides as the model is kept.
    calibrating: of INT8. false_alarm_rate, confidence: of the threshold, see `edgead.threshold`; InputError for one
    that is not between 0 and 1.
    """

    recipe_name: str = "cpu"
    recipe: Recipe = field(default_factory=lambda: find_recipe(None, None)[1])
    rungs: tuple[Rung, ...] = ("fp32",)
    calibrating: Calibrating = field(default_factory=Calibrating)
    false_alarm_rate: float = 0.01
    confidence: float = 0.95

    def __post_init__(self) -> None:
        # A bad rate is refused now, not after minutes of exporting.
        threshold_from_normal_scores([0.0], self.false_alarm_rate, self.confidence)

    @classmethod
    def parse(
        cls,
        backend: str | None,
        recipe: str | None,
        precision: str,
        quantize: str,
        calibrate_on: str,
        algorithm: str,
        cache: Path | None,
        false_alarm_rate: float,
        confidence: float,
    ) -> Plan:
        """Take what a user typed; InputError, with the choices, for what is unknown."""
        name, found = find_recipe(backend, recipe)
        return cls(
            name,
            found,
            rungs_of(precision, quantize, found.ladder),
            Calibrating.parse(calibrate_on, algorithm, cache),
            false_alarm_rate,
            confidence,
        )
