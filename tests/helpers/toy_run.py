"""A run with a toy method in the place of a trained one, for tests of the build."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgead.data import LoadedImages, Sample
from edgead.imaging.preprocess import ModelSize
from edgead.imaging.view import WHOLE, View
from edgead.training.session import TorchSession
from edgead.types import Fusion, HeadSpec
from tests.helpers.toy_method import ToyMethod

SIZE = ModelSize(64, 96)
PART = "toy"


@dataclass
class ToyRun:
    """What `build_bundle` asks of a run. reference_seed: weights other than the exported make it fail."""

    count: int = 12
    training_count: int = 20
    reference_seed: int = 0
    method_name: str = "toy"
    teacher_name: str = "toy_teacher"
    size: ModelSize = SIZE
    bit_depth: int | None = None
    view: View = WHOLE
    false_alarm_rate: float = 0.01
    labelled: LoadedImages | None = None
    # Ratios of cross-fitted scores; then the model was trained on the images that set the threshold.
    ratios: tuple[float, ...] = ()
    fusion: Fusion = "add"

    @property
    def summary(self) -> dict[str, Any]:
        return {"epochs": 3, "loss": 0.25}

    def load_model(self, seed: int = 0) -> Any:
        return ToyMethod(HeadSpec(SIZE.height_px, SIZE.width_px, self.fusion), seed).eval()

    def session(self) -> TorchSession:
        return TorchSession(self.load_model(self.reference_seed))

    def holdout_images(self) -> dict[str, LoadedImages]:
        return {PART: make_images(self.count, seed=5)}

    @property
    def score_ratios(self) -> dict[str, tuple[float, ...]]:
        return {PART: self.ratios} if self.ratios else {}

    def labelled_images(self) -> dict[str, LoadedImages]:
        return {} if self.labelled is None else {PART: self.labelled}

    def training_images(self, count: int) -> LoadedImages:
        if self.ratios:
            return make_images(self.count, seed=5)
        return make_images(min(count, self.training_count), seed=6)


def make_images(count: int, seed: int) -> LoadedImages:
    images = np.random.default_rng(seed).integers(0, 256, (count, SIZE.height_px, SIZE.width_px, 3), np.uint8)
    return LoadedImages(images, tuple(Sample(Path(f"{i}.png"), 0) for i in range(count)), ())
