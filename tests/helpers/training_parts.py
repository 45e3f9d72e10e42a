"""What the tests of training share: a few synthetic images, a tiny teacher, small methods."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from edgead.files.progress import TrainingState, state_of
from edgead.models import method_class
from edgead.models.base import PRESETS, DistillationMethod, MethodConfig, Preset
from edgead.models.components.head import cosine_map
from edgead.models.components.teacher import Teacher
from edgead.models.hyperparameters import Hyperparameters
from edgead.models.rd import LOSSES
from edgead.training.config import TrainConfig

# timm's own network for tests: three scales of 24, 32 and 48 channels, some 0.08 M parameters.
TINY_TEACHER = "test_efficientnet"
SIZE_PX = 64


def write_images(root: Path, count: int = 8, size_px: int = SIZE_PX) -> Path:
    """Write `count` images of good parts, discs of slightly varied place and shade, into a folder; return it."""
    root.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(good_parts(count, size_px)):
        assert cv2.imwrite(str(root / f"{number:03d}.png"), image)
    return root


def good_parts(count: int, size_px: int = SIZE_PX) -> np.ndarray:
    """(count, size_px, size_px, 3) uint8."""
    rng = np.random.default_rng(11)
    rows, columns = np.mgrid[:size_px, :size_px] / size_px - 0.5
    images = np.empty((count, size_px, size_px, 3), np.uint8)
    for image in images:
        y, x = rng.uniform(-0.04, 0.04, 2)
        distance = np.hypot(rows - y, columns - x)
        ring = np.where((distance < 0.36) & (distance > 0.14), rng.uniform(150, 180), 60.0)
        image[:] = np.clip(ring[..., None] + rng.normal(0, 1, (*ring.shape, 3)), 0, 255)
    return images


def tiny_config(data: Path, **changes: object) -> TrainConfig:
    """A configuration that trains in about a second."""
    values: dict[str, object] = {
        "data": (str(data),),
        "teacher": TINY_TEACHER,
        "teacher_weights": "random",
        "size": str(SIZE_PX),
        "epochs": 3,
        "batch_size": 4,
        "hold_out": "0.1",
        "fusion": method_class(str(changes.get("method", "rd"))).fusion,
        **changes,
    }
    return TrainConfig(**values)  # type: ignore[arg-type]


def cpu() -> Fabric:
    """One process on the CPU."""
    return Fabric(accelerator="cpu", devices=1)


@contextmanager
def watched(function: Callable[[TrainingState], object] | None) -> Iterator[None]:
    """Call a function with every state that a training logs."""

    class Watch(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            state = state_of(record)
            if function is not None and isinstance(state, TrainingState):
                function(state)

    logger, handler = logging.getLogger("edgead"), Watch()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def same_tensors(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether two state dicts are bitwise equal."""
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


class Template(DistillationMethod):
    """The least method that works: one learnt feature vector per position, the same for every image.

    What a reverse-distillation student learns in a hundred epochs of many parts, this one learns in some steps of one
    part that always lies in the same place.
    """

    losses = LOSSES
    fusion = "add"
    presets: ClassVar[dict[Preset, Hyperparameters]] = {
        "edge": Hyperparameters(LOSSES[0], 1.0, 100, 16, 5e-3, "one-cycle"),
        "paper": Hyperparameters(LOSSES[0], 0.0, 3, 4, 0.01, "constant"),
    }

    def __init__(self, teacher: Teacher, setting: MethodConfig) -> None:
        super().__init__(teacher, setting)
        size = setting.size
        shapes = [
            (1, channels, size.height_px // stride, size.width_px // stride)
            for channels, stride in zip(teacher.channels, (4, 8, 16), strict=True)
        ]
        self.templates = nn.ParameterList(0.01 * torch.randn(shape) for shape in shapes)

    def student_features(self, images: Tensor, teacher_features: list[Tensor]) -> list[Tensor]:
        return [template.expand(len(images), -1, -1, -1) for template in self.templates]

    def loss(self, teacher_features: list[Tensor], student_features: list[Tensor]) -> Tensor:
        pairs = zip(teacher_features, student_features, strict=True)
        return torch.stack([cosine_map(t, s).mean() for t, s in pairs]).sum()


class Staged(Template):
    """Two stages: the templates, then a scale for each, while the templates stay.

    At the end of each stage it notes how many images it was given, and the sums of their pixels and features.
    """

    presets: ClassVar[dict[Preset, Hyperparameters]] = {
        preset: Hyperparameters(LOSSES[0], 1.0, 4, 4, 0.05, "one-cycle", stages=(0.5, 0.5))
        for preset in PRESETS
    }

    def __init__(self, teacher: Teacher, setting: MethodConfig) -> None:
        super().__init__(teacher, setting)
        self.scales = nn.ParameterList(torch.zeros(1, channels, 1, 1) for channels in teacher.channels)
        self.register_buffer("noted", torch.zeros(2, 3, dtype=torch.float64))
        self.enter_stage(0)

    def enter_stage(self, stage: int) -> None:
        super().enter_stage(stage)
        self.templates.requires_grad_(stage == 0)
        self.scales.requires_grad_(stage == 1)

    def finish_stage(self, batches: Iterable[tuple[Tensor, list[Tensor]]]) -> None:
        assert not self.training
        for images, features in batches:
            self.noted[self.stage, 0] += len(images)
            self.noted[self.stage, 1] += images.double().sum()
            self.noted[self.stage, 2] += sum(x.double().sum() for x in features)

    def student_features(self, images: Tensor, teacher_features: list[Tensor]) -> list[Tensor]:
        templates = super().student_features(images, teacher_features)
        return [(1.0 + scale) * x for scale, x in zip(self.scales, templates, strict=True)]


class Disturbed(Template):
    """A method that says it trains on pseudo-anomalies."""

    uses_textures = True


class Constant(Template):
    """A method that gives the same map for every image: its student is zero, whatever it is trained on."""

    def student_features(self, images: Tensor, teacher_features: list[Tensor]) -> list[Tensor]:
        return [0.0 * x for x in super().student_features(images, teacher_features)]
