"""What the training loop, the exporter and the evaluation know of a method: this class, and no method's name.

A method is a frozen teacher, a student that is trained on images of good parts alone, a loss, and the head that turns
the disagreement of the two into an anomaly map. Everything that depends on the frozen side only is given by
`teacher_features`, so that the loop can compute it once for a fixed training set. What differs in training, from the
optimiser to the number of epochs, the method says too, in hyperparameters for each preset. A method of several
networks, each of which learns from the one before, is trained in stages.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ConstantLR, LRScheduler, OneCycleLR

from edgead.data.pseudo_anomalies.draem import pseudo_anomalies
from edgead.data.pseudo_anomalies.textures import ProceduralTextures, Textures
from edgead.errors import InputError
from edgead.imaging.preprocess import ModelSize
from edgead.models.components.teacher import create_teacher
from edgead.types import BoolArray, Fusion, HeadSpec, UInt8Array

# How the parts lie in their images: always the same way, or any way.
Alignment = Literal["aligned", "unaligned"]
ALIGNMENTS: tuple[Alignment, ...] = get_args(Alignment)

# `edge` is the default; `paper` trains and scores as the method was published.
Preset = Literal["edge", "paper"]
PRESETS: tuple[Preset, ...] = get_args(Preset)

# The variant that a method has unless it names others.
STANDARD_VARIANT = "standard"

Schedule = Literal["one-cycle", "constant"]

# Of the pseudo-anomalies in held-out images.
_HELD_OUT_SEED = 0

# Adam with betas (0.5, 0.999), as Reverse Distillation has it (section 4.1); stochastic gradient descent with momentum
# 0.9 and weight decay 1e-4, as STFPM has it (section 6.2).
Optimizer = Literal["adam", "sgd"]


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """How a method is trained and scored where the user does not say otherwise.

    loss: one of the method's. sigma: of the head's smoothing, in pixels. learning_rate: the peak of `one-cycle`, or all
    there is of `constant`. optimizer: of a method that does not override it. stages: the share of the epochs that each
    stage has.
    """

    loss: str
    sigma: float
    epochs: int
    batch_size: int
    learning_rate: float
    schedule: Schedule
    optimizer: Optimizer = field(default="adam", kw_only=True)
    stages: tuple[float, ...] = field(default=(1.0,), kw_only=True)


@dataclass(frozen=True, slots=True)
class MethodConfig:
    """What one method is made for.

    size: of the images. loss, variant: two of the method's. alignment: how the parts lie. textures: of
    pseudo-anomalies.
    """

    size: ModelSize
    loss: str
    alignment: Alignment = "unaligned"
    preset: Preset = "edge"
    textures: Textures = field(default_factory=ProceduralTextures)
    variant: str = STANDARD_VARIANT


class DistillationMethod(nn.Module, ABC):
    """Teacher, student, loss and head of one method.

    A subclass names its losses, presets and fusion, calls `__init__`, adds its trainable modules and implements
    `student_features` and `loss`. What else it does in another way, it overrides.

    losses, variants: names to choose from. presets: hyperparameters for each preset. fusion: how the head joins the
    scales.
    uses_textures: whether it trains on pseudo-anomalies. Raises InputError for a loss or a variant that is not among
    them.
    """

    losses: ClassVar[tuple[str, ...]]
    variants: ClassVar[tuple[str, ...]] = (STANDARD_VARIANT,)
    presets: ClassVar[Mapping[Preset, Hyperparameters]]
    fusion: ClassVar[Fusion]
    uses_textures: ClassVar[bool] = False

    def __init__(self, teacher: nn.Module, config: MethodConfig) -> None:
        super().__init__()
        self.check_choices(config.loss, config.variant)
        self.teacher = teacher
        self.textures = config.textures
        self.stage = 0
        self.loss_kind = config.loss
        self.hyperparameters = self.presets[config.preset]
        size = config.size
        self.head = HeadSpec(size.height_px, size.width_px, self.fusion, self.hyperparameters.sigma)

    @classmethod
    def check_choices(cls, loss: str, variant: str) -> None:
        """Raise InputError, with the choices, for a loss or a variant that the method does not have."""
        if loss not in cls.losses:
            raise InputError(f"unknown loss {loss!r}: give --loss {' or '.join(cls.losses)}")
        if variant not in cls.variants:
            raise InputError(f"unknown variant {variant!r}: give --variant {' or '.join(cls.variants)}")

    @classmethod
    def create_teacher(cls, name: str, weights: str) -> nn.Module:
        """Make the frozen side, with its weights: `random` where they are loaded later."""
        return create_teacher(name, weights)

    @torch.no_grad()
    def teacher_features(self, images: Tensor) -> list[Tensor]:
        """Features of the frozen side: (N, H, W, 3) uint8 RGB to tensors (N, C_k, H_k, W_k)."""
        features: list[Tensor] = self.teacher(images)
        return features

    @abstractmethod
    def student_features(self, images: Tensor, teacher_features: list[Tensor]) -> list[Tensor]:
        """What the student gives for a batch, as `loss` and `head_features` take it.

        images: (N, H, W, 3) uint8 RGB. teacher_features: those of the same images.
        """

    @abstractmethod
    def loss(self, teacher_features: list[Tensor], student_features: list[Tensor]) -> Tensor:
        """The training loss of a batch: a scalar, the mean over its images."""

    def head_features(
        self, teacher_features: list[Tensor], student_features: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """What the head takes: K pairs of one shape, whose cosine map is the method's map of that scale.

        A method with more than one student or teacher joins them here, and lets the student's side alone depend on its
        student, because precision is chosen by side.
        """
        return teacher_features, student_features

    def features(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Both sides for a batch (N, H, W, 3) uint8 RGB: what the head takes, and what is exported."""
        teacher = self.teacher(images)
        return self.head_features(teacher, self.student_features(images, teacher))

    def forward(self, images: Tensor, teacher_features: list[Tensor]) -> Tensor:
        """The loss of a batch; one call, so that data-parallel wrappers see it.

        In training mode it may draw random numbers, from torch's generator, which the loop sets for each epoch. In
        evaluation mode the same images have the same loss each time.
        """
        return self.loss(teacher_features, self.student_features(images, teacher_features))

    def disturbed(self, images: UInt8Array, rng: np.random.Generator) -> tuple[UInt8Array, BoolArray] | None:
        """Good images with something wrong on them, as training shows them, and where.

        images: (N, H, W, 3) uint8 RGB. Returns such images and masks (N, H, W), True where a pixel differs:
        pseudo-anomalies where the method uses textures; None for a method that sees good images alone.
        """
        return pseudo_anomalies(images, self.textures, rng) if self.uses_textures else None

    def disturbed_batch(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """A batch as `disturbed` gives it, drawn from torch's generator in training mode, else the same each time.

        images: (N, H, W, 3) uint8 RGB. Returns such images and masks (N, H, W) bool, on the same device.
        """
        seed = int(torch.randint(2**62, ())) if self.training else _HELD_OUT_SEED
        found = self.disturbed(images.cpu().numpy(), np.random.default_rng(seed))
        assert found is not None, "a method that trains on disturbed images says so"
        disturbed, masks = (torch.from_numpy(array).to(images.device) for array in found)
        return disturbed, masks

    def enter_stage(self, stage: int) -> None:
        """Begin a stage, or go on with it: from here on `loss`, `trained` and `optimizer` are those of this stage.

        stage: from 0. A method of several stages lets gradients into what the stage trains, and into nothing else.
        """
        self.stage = stage

    def finish_stage(self, batches: Iterable[tuple[Tensor, list[Tensor]]]) -> None:
        """End a stage: keep in buffers what the next one or the map needs to know of the good images as a whole.

        batches: images (N, H, W, 3) uint8 RGB and their teacher features, every training image once. The method is
        in evaluation mode, and no gradients are kept.
        """

    def optimizer(self, learning_rate: float) -> torch.optim.Optimizer:
        """What trains the student, in as many groups of parameters as it has learning rates; each stage has its own."""
        if self.hyperparameters.optimizer == "sgd":
            return torch.optim.SGD(self.trained(), lr=learning_rate, momentum=0.9, weight_decay=1e-4)
        return torch.optim.Adam(self.trained(), lr=learning_rate, betas=(0.5, 0.999))

    def scheduler(self, optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
        """The learning rate over all steps of a stage, as the hyperparameters say; each group keeps its own peak.

        `one-cycle` is PyTorch's, which moves momentum, of Adam the first beta, between 0.95 and 0.85 as well.
        """
        if self.hyperparameters.schedule == "constant":
            return ConstantLR(optimizer, factor=1.0)
        peaks = [group["lr"] for group in optimizer.param_groups]
        return OneCycleLR(optimizer, max_lr=peaks, total_steps=steps)

    def trained(self) -> list[nn.Parameter]:
        """The parameters that the stage under way changes."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]
