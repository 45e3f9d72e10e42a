"""Base class of the methods: training loop, exporter and evaluation use it and know no method by name.

A method consists of a frozen teacher, a student that is trained on images of good parts only, a loss, and a head that
turns the difference between teacher and student into an anomaly map. `teacher_features` returns everything that depends
on the frozen side only, so the loop can compute it once for a fixed training set. The method also defines its training,
from the optimiser to the number of epochs, as hyperparameters for each preset. If a method has several networks and
each learns from the previous one, it is trained in stages.
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
from edgead.models.hyperparameters import Hyperparameters
from edgead.types import BoolArray, Fusion, HeadSpec, UInt8Array

# How the parts lie in their images: always in the same position, or in any position.
Alignment = Literal["aligned", "unaligned"]
ALIGNMENTS: tuple[Alignment, ...] = get_args(Alignment)

# `edge` is the default; `paper` trains and scores as the method was published.
Preset = Literal["edge", "paper"]
PRESETS: tuple[Preset, ...] = get_args(Preset)

# Every method has this variant.
STANDARD_VARIANT = "standard"


@dataclass(frozen=True, slots=True)
class MethodConfig:
    """Configuration of one method.

    Attributes:
        size: Size of the images.
        loss: One of the losses of the method.
        alignment: How the parts lie in their images.
        preset: Hyperparameters to use.
        textures: Textures of pseudo-anomalies.
        variant: One of the variants of the method.
    """

    size: ModelSize
    loss: str
    alignment: Alignment = "unaligned"
    preset: Preset = "edge"
    textures: Textures = field(default_factory=ProceduralTextures)
    variant: str = STANDARD_VARIANT


class DistillationMethod(nn.Module, ABC):
    """Teacher, student, loss and head of one method.

    A subclass defines its losses, presets and fusion, calls `__init__`, adds its trainable modules and implements
    `student_features` and `loss`. It overrides other methods only where it differs.

    Args:
        teacher: Teacher that `create_teacher` returned.
        config: Configuration of the method.

    Attributes:
        losses: Choices of the loss.
        variants: Choices of the variant.
        presets: Hyperparameters for each preset.
        fusion: How the head joins the scales, unless a run chooses another one of `fusions`.
        uses_textures: Whether the method trains on pseudo-anomalies.
        parts: Number of parts, which the training sets.
        closed_form: Whether it is a `ClosedFormMethod`, computed in one pass without gradients.

    Raises:
        InputError: The method does not have the loss or the variant of `config`.
    """

    losses: ClassVar[tuple[str, ...]]
    variants: ClassVar[tuple[str, ...]] = (STANDARD_VARIANT,)
    presets: ClassVar[Mapping[Preset, Hyperparameters]]
    fusion: ClassVar[Fusion]
    fusions: ClassVar[tuple[Fusion, ...]] = ()
    uses_textures: ClassVar[bool] = False
    closed_form: ClassVar[bool] = False

    def __init__(self, teacher: nn.Module, config: MethodConfig) -> None:
        super().__init__()
        self.check_choices(config.loss, config.variant)
        self.teacher = teacher
        self.textures = config.textures
        self.stage = 0
        self.parts = 1
        self.loss_kind = config.loss
        self.hyperparameters = self.presets[config.preset]
        size = config.size
        self.head = HeadSpec(size.height_px, size.width_px, self.fusion, self.hyperparameters.sigma)

    @classmethod
    def check_choices(cls, loss: str, variant: str) -> None:
        """Check that the method has a loss and a variant.

        Args:
            loss: Name of a loss.
            variant: Name of a variant.

        Raises:
            InputError: The method does not have the loss or the variant; the hint lists the choices.
        """
        if loss not in cls.losses:
            raise InputError(f"unknown loss {loss!r}", hint=f"give --loss {' or '.join(cls.losses)}")
        if variant not in cls.variants:
            choices = " or ".join(cls.variants)
            raise InputError(f"unknown variant {variant!r}", hint=f"give --variant {choices}")

    @classmethod
    def create_teacher(cls, name: str, weights: str) -> nn.Module:
        """Create the frozen side with its weights.

        Args:
            name: Name of the teacher in timm.
            weights: `package`, `hub`, the path of a file, or `random` if the weights are loaded later.

        Returns:
            Frozen teacher in evaluation mode.

        Raises:
            TeacherError: The teacher is unknown, or its weights are not available or do not fit.
        """
        return create_teacher(name, weights)

    @torch.no_grad()
    def teacher_features(self, images: Tensor) -> list[Tensor]:
        """Compute the features of the frozen side.

        Args:
            images: (N, H, W, 3) uint8 RGB.

        Returns:
            Tensors (N, C_k, H_k, W_k), without gradients.
        """
        return self.teacher(images)  # type: ignore[no-any-return]

    @abstractmethod
    def student_features(self, images: Tensor, teacher_features: list[Tensor]) -> list[Tensor]:
        """Compute the features of the student for a batch.

        Args:
            images: (N, H, W, 3) uint8 RGB.
            teacher_features: Features that `teacher_features` returned for the same images.

        Returns:
            Features as `loss` and `head_features` take them.
        """

    @abstractmethod
    def loss(self, teacher_features: list[Tensor], student_features: list[Tensor]) -> Tensor:
        """Compute the training loss of a batch.

        Args:
            teacher_features: Features of the frozen side.
            student_features: Features of the student for the same images.

        Returns:
            Scalar, the mean over the images.
        """

    def head_features(
        self, teacher_features: list[Tensor], student_features: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Compute the inputs of the head: K pairs of tensors with equal shapes.

        The cosine map of each pair is the map of the method at that scale. A method with several students or teachers
        joins them here. Only the student side may depend on a student, because precision is chosen by side.

        Args:
            teacher_features: Features of the frozen side.
            student_features: Features of the student for the same images.

        Returns:
            Teacher side and student side, K tensors (N, C_k, H_k, W_k) each.
        """
        return teacher_features, student_features

    def features(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Compute both sides of a batch, as the head takes them and as they are exported.

        Args:
            images: (N, H, W, 3) uint8 RGB.

        Returns:
            Teacher side and student side, see `head_features`.
        """
        teacher = self.teacher(images)
        return self.head_features(teacher, self.student_features(images, teacher))

    def forward(self, images: Tensor, teacher_features: list[Tensor]) -> Tensor:
        """Compute the loss of a batch in one call, so that data-parallel wrappers see it.

        In training mode the method may draw random numbers from torch's generator, which the loop sets for each epoch.
        In evaluation mode the same images have the same loss each time.

        Args:
            images: (N, H, W, 3) uint8 RGB.
            teacher_features: Features that `teacher_features` returned for the same images.

        Returns:
            Scalar loss.
        """
        return self.loss(teacher_features, self.student_features(images, teacher_features))

    def disturbed(self, images: UInt8Array, rng: np.random.Generator) -> tuple[UInt8Array, BoolArray] | None:
        """Disturb good images as training does: with pseudo-anomalies if the method uses textures.

        Args:
            images: (N, H, W, 3) uint8 RGB.
            rng: Source of random numbers.

        Returns:
            Disturbed images and masks (N, H, W), True where a pixel differs; None if the method sees good images only.
        """
        return pseudo_anomalies(images, self.textures, rng) if self.uses_textures else None

    def disturbed_batch(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Disturb a batch, at random from torch's generator in training mode, else the same way each time.

        Args:
            images: (N, H, W, 3) uint8 RGB.

        Returns:
            Disturbed images and masks (N, H, W) bool, on the device of the images.
        """
        seed = int(torch.randint(2**62, ())) if self.training else 0
        found = self.disturbed(images.cpu().numpy(), np.random.default_rng(seed))
        assert found is not None, "a method that trains on disturbed images says so"
        disturbed, masks = (torch.from_numpy(array).to(images.device) for array in found)
        return disturbed, masks

    def enter_stage(self, stage: int) -> None:
        """Begin or resume a stage. From here on `loss`, `trained` and `optimizer` belong to this stage.

        A method with several stages enables gradients only for the parameters that the stage trains.

        Args:
            stage: Number of the stage, from 0.
        """
        self.stage = stage

    def begin_stage(self, batches: Iterable[tuple[Tensor, list[Tensor]]]) -> None:
        """Store the statistics of all good images that the loss of the stage needs. See `finish_stage`."""

    def finish_stage(self, batches: Iterable[tuple[Tensor, list[Tensor]]]) -> None:
        """End a stage: store the statistics of all good images that the next stage or the map needs in buffers.

        The method is in evaluation mode, and no gradients are kept.

        Args:
            batches: Images (N, H, W, 3) uint8 RGB and their teacher features, every training image once.
        """

    def optimizer(self, learning_rate: float) -> torch.optim.Optimizer:
        """Create the optimiser of the stage under way.

        Args:
            learning_rate: Learning rate of the student. A method may give other parameters a group with another rate.

        Returns:
            Optimiser with one group of parameters for each learning rate.
        """
        if self.hyperparameters.optimizer == "sgd":
            return torch.optim.SGD(self.trained(), lr=learning_rate, momentum=0.9, weight_decay=1e-4)
        return torch.optim.Adam(self.trained(), lr=learning_rate, betas=(0.5, 0.999))

    def scheduler(self, optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
        """Create the schedule of the learning rate from the hyperparameters; each group keeps its own peak.

        `one-cycle` is PyTorch's OneCycleLR. It also moves the momentum (the first beta of Adam) between 0.95 and 0.85.

        Args:
            optimizer: Optimiser of the stage.
            steps: Number of steps of the stage.

        Returns:
            Scheduler, stepped once after each step.
        """
        if self.hyperparameters.schedule == "constant":
            return ConstantLR(optimizer, factor=1.0)
        peaks = [group["lr"] for group in optimizer.param_groups]
        return OneCycleLR(optimizer, max_lr=peaks, total_steps=steps)

    def trained(self) -> list[nn.Parameter]:
        """Return the parameters that the stage under way trains."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]
