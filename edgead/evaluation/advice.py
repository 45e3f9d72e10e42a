"""Advice of a report: what to do when the figures are good and the model is not ready for a line yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgead.evaluation.evaluate import Evaluation
from edgead.scoring.threshold import Threshold
from edgead.text import shell_line

WEAK_MAPS_GAP = 0.05
"""Maps are weak if their AUROC is below the image AUROC by more than this.

Nearly all pixels are good and easy, so a map that marks the defect has a pixel AUROC near or above the image AUROC.
"""

FEW_IMAGES = 20
"""A threshold without a promised rate needs this many images of good parts behind it."""

_WEAK_MAPS = (
    "the model finds a defective image better than the area of the defect. Use the decisions, and do not rely on "
    "regions and heat maps yet. Compare heat maps and masks of found defects below. If the background or the edge of "
    "the part is bright, show less of it, or keep the part in one position. If the bright area is much larger than the "
    "defect, train with a larger --size. If the mask is beside the defect, correct the mask. edgead compare measures "
    "the other methods on the same images."
)


@dataclass(frozen=True, slots=True)
class Advice:
    """One weakness and its remedy.

    Attributes:
        title: The weakness.
        text: The reason, and what to do.
        commands: Lines to type.
    """

    title: str
    text: str
    commands: tuple[str, ...] = ()


def advice(evaluation: Evaluation, setter: Sequence[str] | None) -> list[Advice]:
    """Find the weaknesses of an evaluation that a person can do something about.

    Args:
        evaluation: Metrics.
        setter: Arguments of the `edgead threshold` command of the model, without a rule; None if the model is no
            bundle.

    Returns:
        The weaknesses, the threshold first.
    """
    found = []
    threshold = evaluation.threshold
    if threshold is not None and threshold.set_by_highest:
        found.append(_few_held_out(threshold, setter))
    elif threshold is not None and threshold.false_alarm_rate is None and threshold.n_normal < FEW_IMAGES:
        found.append(_few_behind(threshold, setter))
    image, pixel = evaluation.image_auroc, evaluation.pixel_auroc
    if image is not None and pixel is not None and image - pixel > WEAK_MAPS_GAP:
        found.append(
            Advice(
                "The maps are weak",
                f"Pixel AUROC {pixel:.3f} is far below image AUROC {image:.3f}: {_WEAK_MAPS}",
            )
        )
    return found


def _few_held_out(threshold: Threshold, setter: Sequence[str] | None) -> Advice:
    """Advice for a threshold that is the highest of few scores."""
    n, needed = threshold.n_normal, threshold.n_needed
    assert needed is not None
    source = "the score of the only" if n == 1 else f"the highest score of {n}"
    text = f"It is {source} {'image' if n == 1 else 'images'} of good parts. "
    text += "One unusual or wrongly sorted image among them moves it."
    if (warning := threshold.warning()) is not None:
        text += f" {warning[0].upper()}{warning[1:]}."
    more = f"{needed - n} or more" if n < needed else "more"
    text += f" Collect images of {more} good parts that the model was not trained on"
    if setter is None:
        return Advice(
            "One image alone set the threshold",
            f"{text}, build a bundle with edgead build, and set its threshold with edgead threshold.",
        )
    return Advice(
        "One image alone set the threshold",
        f"{text}, and set the threshold from them. With images of defects, choose the recall instead.",
        (
            shell_line([*setter, "--good", "new-good", "--join"]),
            shell_line([*setter, "--good", "new-good", "--defects", "defects", "--recall", "0.95"]),
        ),
    )


def _few_behind(threshold: Threshold, setter: Sequence[str] | None) -> Advice:
    """Advice for a threshold that was typed, or chosen on few images."""
    n = threshold.n_normal
    source = f"It was chosen on {n} of them" if n else "It was typed"
    return Advice(
        "Few images of good parts stand behind the threshold",
        f"{source} and promises no false-alarm rate, so only the counts below speak for it. Collect images of good "
        "parts that the model was not trained on, and set the threshold from them.",
        () if setter is None else (shell_line([*setter, "--good", "new-good"]),),
    )
