"""The teacher: a frozen, ImageNet-pretrained network of timm with features at strides 4, 8 and 16.

In some methods the student is an untrained copy of the teacher. It has the same layers, without weights and not frozen.

Each teacher normalises images with its own mean and standard deviation. The user chooses the source of its weights, see
`edgead.models.components.teacher_weights`; `random` is for tests that do not measure accuracy.
"""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import Tensor, nn

from edgead.errors import TeacherError
from edgead.models.components.teacher_weights import architecture, load_weights

DEFAULT_TEACHER = "tf_efficientnet_lite0"
STRIDES = (4, 8, 16)
PROBE_PX = 64


class Backbone(nn.Module):
    """Layers of a timm network up to a stride, with random weights; it takes images as they are.

    Args:
        name: Name in timm, with or without a tag for the weights (`resnet18`, `resnet18.tv_in1k`).
        strides: Strides of the features, ascending.
        trimmed: Whether to cut off the layers that no feature needs. This changes the names of the tensors.

    Attributes:
        name: As given.
        architecture: Name without the tag.
        layers: Network of timm.
        channels: Number of channels at each stride.
        mean: Mean of the pixels, (3, 1, 1), for pixels from 0 to 255.
        std: Standard deviation of the pixels, (3, 1, 1), for pixels from 0 to 255.

    Raises:
        TeacherError: Timm does not know the name, or the network has no feature maps at these strides.
    """

    channels: tuple[int, ...]
    mean: Tensor
    std: Tensor

    def __init__(self, name: str, strides: tuple[int, ...] = STRIDES, trimmed: bool = False) -> None:
        super().__init__()
        self.name = name
        self.architecture = architecture(name)
        layers = _features_only(name, strides, trimmed)
        self.layers: nn.Module = layers
        self.channels = tuple(layers.feature_info.channels())
        self.register_buffer("mean", _colour(layers.pretrained_cfg["mean"]), persistent=False)
        self.register_buffer("std", _colour(layers.pretrained_cfg["std"]), persistent=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the features of images.

        Args:
            images: (N, H, W, 3) RGB from 0 to 255, usually uint8.

        Returns:
            One float tensor (N, C_k, H / s_k, W / s_k) for each stride s_k.
        """
        features: list[Tensor] = self.layers(self.normalised(images))
        return features

    def normalised(self, images: Tensor) -> Tensor:
        """Normalise images with the mean and the standard deviation of the network.

        The cast comes first, because TensorRT accepts nothing else after a uint8 input. The normalisation comes after
        the transposition, because ONNX Runtime is slow at broadcasting over a last axis of 3.

        Args:
            images: (N, H, W, 3) RGB from 0 to 255, usually uint8.

        Returns:
            (N, 3, H, W) float.
        """
        pixels = images.to(self.mean.dtype).permute(0, 3, 1, 2)
        return (pixels - self.mean) / self.std


class Teacher(Backbone):
    """Frozen backbone, always in evaluation mode.

    Args:
        name: Name in timm, see Backbone.
        strides: Strides of the features, ascending.

    Raises:
        TeacherError: See Backbone.
    """

    def __init__(self, name: str, strides: tuple[int, ...] = STRIDES) -> None:
        super().__init__(name, strides)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Teacher:
        """Stay in evaluation mode, so that the statistics of the frozen network do not change.

        Args:
            mode: Ignored.

        Returns:
            The teacher.
        """
        return super().train(False)


def create_teacher(name: str, weights: str, strides: tuple[int, ...] = STRIDES) -> Teacher:
    """Create a teacher with weights.

    Args:
        name: Name of a timm network.
        weights: `package`, `hub`, `random` or the path of a file (safetensors, or a PyTorch file of plain tensors).
        strides: Strides of the features, ascending.

    Returns:
        Frozen teacher in evaluation mode.

    Raises:
        TeacherError: The name is unknown, or the weights are not available or do not fit.
    """
    teacher = Teacher(name, strides)
    if weights != "random":
        load_weights(teacher.layers, name, weights)
    return teacher


def _features_only(name: str, strides: tuple[int, ...], trimmed: bool) -> Any:
    """Create the timm network with features at these strides, in evaluation mode."""
    if name not in timm.list_models() and name not in timm.list_pretrained():
        raise TeacherError(
            f"unknown teacher {name!r}",
            hint=f"give a network that timm knows, for example {DEFAULT_TEACHER}, resnet18 or wide_resnet50_2",
        )
    refusal = TeacherError(
        f"teacher {name!r} has no feature maps at strides {', '.join(map(str, strides[:-1]))} and {strides[-1]}",
        hint=f"give a convolutional network, for example {DEFAULT_TEACHER}",
    )
    try:
        reductions = timm.create_model(name, pretrained=False, features_only=True).feature_info.reduction()
        indices = tuple(reductions.index(stride) for stride in strides)
        way = {"feature_cls": "getter"} if trimmed else {}
        layers = timm.create_model(
            name, pretrained=False, features_only=True, out_indices=indices, **way
        ).eval()
        # A trial run, because some networks return channels last, and some accept only one image size.
        with torch.no_grad():
            shapes = [tuple(x.shape[1:]) for x in layers(torch.zeros(1, 3, PROBE_PX, PROBE_PX))]
    except Exception as error:  # networks without feature maps raise different errors
        raise refusal from error
    expected = zip(layers.feature_info.channels(), strides, strict=True)
    if shapes != [(channels, PROBE_PX // stride, PROBE_PX // stride) for channels, stride in expected]:
        raise refusal
    return layers


def _colour(values: tuple[float, float, float]) -> Tensor:
    """Convert timm's mean or standard deviation from pixels in 0 to 1 to pixels in 0 to 255: (3, 1, 1)."""
    return torch.tensor(values, dtype=torch.float32)[:, None, None] * 255.0
