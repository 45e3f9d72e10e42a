"""What a user asks of a build, checked before any work: recipe, precisions to try, calibration, false-alarm budget."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edgead.engine.precision_converter import Calibrating, Rung, rungs_of
from edgead.engine.target import Recipe, find_recipe
from edgead.errors import InputError
from edgead.plugin.loader import plugin_file
from edgead.runtime.tensorrt.engine_record import Head
from edgead.scoring.threshold import threshold_from_normal_scores

HEADS = ("auto", "plugin", "standard")


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked request for a build.

    recipe_name, recipe: of the target. rungs: precisions to try in turn; the first that decides as the model is kept.
    calibrating: of INT8. false_alarm_rate, confidence: of the threshold, see `edgead.scoring.threshold`; InputError for
    one that is not between 0 and 1. head: of `HEADS`, what computes the anomaly map of an engine; InputError for one
    that cannot be had, see `engine_head`.
    """

    recipe_name: str = "cpu"
    recipe: Recipe = field(default_factory=lambda: find_recipe(None, None)[1])
    rungs: tuple[Rung, ...] = ("fp32",)
    calibrating: Calibrating = field(default_factory=Calibrating)
    false_alarm_rate: float = 0.01
    confidence: float = 0.95
    head: str = "auto"

    def __post_init__(self) -> None:
        # A bad rate or head is refused now, not after minutes of exporting.
        threshold_from_normal_scores([0.0], self.false_alarm_rate, self.confidence)
        self.engine_head()

    def engine_head(self) -> Head:
        """What an engine of this plan gets, built here and now: `plugin`, `kernels` or `standard`.

        `plugin` asks for the CUDA kernels, which TensorRT takes as a plugin, and a version-compatible engine carries
        inside; for TensorRT for RTX, which takes none, they are launched behind the engine. `auto` is the plugin where
        'edgead plugin build' was run, and `standard` else; for TensorRT for RTX and for a version-compatible engine it
        is `standard`, until measured there.
        InputError for a head that is unknown or that the target's backend does not have, and for a plugin that was not
        compiled.
        """
        recipe = self.recipe
        if self.head not in HEADS:
            raise InputError(f"unknown --head {self.head[:80]!r}: choose one of {', '.join(HEADS)}")
        asked = self.head == "plugin"
        if recipe.tensorrt is None:
            if asked:
                raise InputError(
                    f"--head plugin is for engines, and target {self.recipe_name!r} is for {recipe.backend}: "
                    "leave it out, or give --backend tensorrt or tensorrt-rtx"
                )
            return "standard"
        if recipe.backend == "tensorrt-rtx":
            return "kernels" if asked else "standard"
        library = plugin_file()
        if asked and not library.is_file():
            raise InputError(
                f"--head plugin needs {library}, which is not there: compile it with 'edgead plugin build'"
            )
        if asked:
            return "plugin"
        # An engine that carries its plugin was never opened on a GPU, so it is for those who ask.
        chosen = self.head == "auto" and library.is_file() and not recipe.tensorrt.version_compatible
        return "plugin" if chosen else "standard"

    @classmethod
    def parse(
        cls,
        *,
        backend: str | None,
        target: str | None,
        precision: str,
        quantize: str,
        calibrate_on: str,
        algorithm: str,
        cache: Path | None,
        false_alarm_rate: float,
        confidence: float,
        head: str = "auto",
    ) -> Plan:
        """Take what a user typed; InputError, with the choices, for what is unknown."""
        name, found = find_recipe(backend, target)
        return cls(
            name,
            found,
            rungs_of(precision, quantize, found.fallback_order),
            Calibrating.parse(calibrate_on, algorithm, cache),
            false_alarm_rate,
            confidence,
            head,
        )
