"""The content of run.json, the record of a training run. `edgead.training.run` reads and writes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from edgead.models.base import Alignment
from edgead.scoring.cross_fitting import check_ratios
from edgead.scoring.threshold import Threshold
from edgead.training.config import TrainConfig

State = Literal["training", "finished", "collapsed"]


@dataclass(frozen=True, slots=True)
class PartRecord:
    """The entry of one part in run.json.

    Attributes:
        train_images: Number of training images.
        holdout: Paths of the good images that set the threshold, relative to the dataset. They are held out, or, with
            ratios, cross-fitted.
        threshold: Threshold of the torch model on these images; None before the training is finished.
        ratios: Ratio of the cross-fitted score and the score of the final model for each of these images, see
            `edgead.scoring.cross_fitting`; empty if they are held out, and before the training is finished.
        files: Hash of each good image, see `edgead.training.update.file_hashes`, by its path relative to the dataset;
            empty if they are not known.
        image_px: Height and width of all good images; None if they differ.

    Raises:
        InputError: There are ratios, but not one for each image, or a ratio is out of range.
    """

    train_images: int
    holdout: tuple[str, ...]
    threshold: Threshold | None = None
    ratios: tuple[float, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    image_px: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.ratios:
            check_ratios(self.ratios, len(self.holdout))


@dataclass(frozen=True, slots=True)
class RunRecord:
    """The content of run.json.

    Attributes:
        config: Configuration of the training.
        state: "training", "finished" or "collapsed".
        parts: Entries of the parts, by name, in the order of the configuration.
        alignment: Alignment of the parts, given by the user or determined from the images.
        scale_weights: Weights of the head's scales, see `edgead.training.scale_weights`; empty for weights of 1, and
            before the training is finished.
        summary: Figures of a finished training.
        begun: Number of epochs of the finished training that this one extends; 0 for a training from the start.
    """

    config: TrainConfig
    state: State
    parts: Mapping[str, PartRecord]
    alignment: Alignment
    scale_weights: tuple[float, ...]
    summary: Mapping[str, Any]
    begun: int = 0
