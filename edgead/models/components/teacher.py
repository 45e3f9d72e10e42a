"""The teacher: a frozen, ImageNet-pretrained network of timm that gives features at strides 4, 8 and 16.

Without weights and not frozen, the same layers are the student of the methods whose student is an untrained copy of the
teacher.

Each teacher is fed with its own mean and standard deviation. Where its weights come from is the user's word, see
`edgead.models.components.teacher_weights`; `random` is for tests of everything but accuracy.
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
    """The layers of a timm network up to a stride, with random weights, fed with images as they are.

    name: timm's, with or without a tag for the weights (`resnet18`, `resnet18.tv_in1k`); `architecture` is the part
    before the tag. `channels` has one entry per stride. trimmed: whether the layers that no feature needs are cut off;
    it changes the names of the tensors. Raises TeacherError for a name that timm does not know or a network without
    feature maps at these strides.
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
        """Features of images.

        images: (N, H, W, 3) RGB from 0 to 255, uint8 as a rule. Returns one (N, C_k, H / s_k, W / s_k) float tensor per
        stride s_k. The cast comes first, because TensorRT lets a uint8 input feed nothing else, and the normalisation
        last, because ONNX Runtime broadcasts over a last axis of 3 slowly.
        """
        pixels = images.to(self.mean.dtype).permute(0, 3, 1, 2)
        features: list[Tensor] = self.layers((pixels - self.mean) / self.std)
        return features


class Teacher(Backbone):
    """A frozen backbone, always in evaluation mode."""

    def __init__(self, name: str, strides: tuple[int, ...] = STRIDES) -> None:
        super().__init__(name, strides)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Teacher:
        """Stay in evaluation mode: the statistics of a frozen network do not move."""
        return super().train(False)


def create_teacher(name: str, weights: str, strides: tuple[int, ...] = STRIDES) -> Teacher:
    """Make a teacher with weights.

    name: of a timm network. weights: `package`, `hub`, `random` or the path of a file (safetensors, or a PyTorch file
    of plain tensors). Raises TeacherError when the name is unknown, or the weights are not at hand or do not fit.
    """
    teacher = Teacher(name, strides)
    if weights != "random":
        load_weights(teacher.layers, name, weights)
    return teacher


def _features_only(name: str, strides: tuple[int, ...], trimmed: bool) -> Any:
    """The network of timm that gives features at these strides, in evaluation mode."""
    if name not in timm.list_models() and name not in timm.list_pretrained():
        raise TeacherError(
            f"unknown teacher {name!r}: give a network that timm knows, for example {DEFAULT_TEACHER}, resnet18 or "
            "wide_resnet50_2"
        )
    refusal = TeacherError(
        f"teacher {name!r} has no feature maps at strides {', '.join(map(str, strides[:-1]))} and {strides[-1]}: "
        f"take a convolutional network, for example {DEFAULT_TEACHER}"
    )
    try:
        reductions = timm.create_model(name, pretrained=False, features_only=True).feature_info.reduction()
        indices = tuple(reductions.index(stride) for stride in strides)
        way = {"feature_cls": "getter"} if trimmed else {}
        layers = timm.create_model(
            name, pretrained=False, features_only=True, out_indices=indices, **way
        ).eval()
        # Asked, because some give their channels last, and some take images of one size only.
        with torch.no_grad():
            shapes = [tuple(x.shape[1:]) for x in layers(torch.zeros(1, 3, PROBE_PX, PROBE_PX))]
    except Exception as error:  # what a network without feature maps raises differs from one to the next
        raise refusal from error
    expected = zip(layers.feature_info.channels(), strides, strict=True)
    if shapes != [(channels, PROBE_PX // stride, PROBE_PX // stride) for channels, stride in expected]:
        raise refusal
    return layers


def _colour(values: tuple[float, float, float]) -> Tensor:
    """Timm's mean or standard deviation, given for pixels from 0 to 1, for pixels from 0 to 255."""
    return torch.tensor(values, dtype=torch.float32)[:, None, None] * 255.0
