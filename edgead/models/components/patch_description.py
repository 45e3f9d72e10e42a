"""Patch description networks (PDN) of EfficientAD: they describe the patch of 33 pixels around each position.

Batzner, Heckler & König, "EfficientAD: Accurate Visual Anomaly Detection at Millisecond-Level Latencies", WACV 2024,
table 6: a 4x4 convolution, average pooling, a 4x4 convolution, average pooling, a 3x3 and a 4x4 convolution, with
rectifiers between them. There is one output position for 4 pixels in each direction, and patches are centred on the
first pixel of their cell. The convolutions are padded as in published code for the distillation, so that the border of
an image is described too.

Weights of such a network that was distilled on ImageNet are published with the widths (128, 256, 256) and 384 outputs.
In files the convolutions have the names `0`, `3`, `6` and `8`, or `conv1` to `conv4`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from edgead.errors import TeacherError
from edgead.models.components.blocks import initialise
from edgead.models.components.teacher_weights import file_state, fill_layers

PUBLISHED_TEACHER = "pdn_small"

# Names of the convolutions in a network, and their other names in files.
_LAYERS = {"conv1": "0", "conv2": "3", "conv3": "6", "conv4": "8"}


@dataclass(frozen=True, slots=True)
class DescriptionSpec:
    """Size of a patch description network.

    Attributes:
        widths: Number of channels after the first three convolutions.
        descriptor: Number of output channels.
    """

    widths: tuple[int, int, int]
    descriptor: int


PUBLISHED_SPEC = DescriptionSpec((128, 256, 256), 384)


def description_network(spec: DescriptionSpec) -> nn.Sequential:
    """Create an untrained patch description network.

    Args:
        spec: Size of the network.

    Returns:
        Module from (N, 3, H, W) to (N, descriptor, H / 4, W / 4); H and W are multiples of 4.
    """
    one, two, three = spec.widths
    network = nn.Sequential(
        nn.Conv2d(3, one, 4, padding=3),
        nn.ReLU(inplace=True),
        nn.AvgPool2d(2, 2, padding=1),
        nn.Conv2d(one, two, 4, padding=3),
        nn.ReLU(inplace=True),
        nn.AvgPool2d(2, 2, padding=1),
        nn.Conv2d(two, three, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(three, spec.descriptor, 4),
    )
    initialise(network)
    return network


def imagenet_pixels(images: Tensor) -> Tensor:
    """Convert images to the input of the networks: pixels with ImageNet's mean and standard deviation.

    Args:
        images: (N, H, W, 3) RGB from 0 to 255, usually uint8.

    Returns:
        (N, 3, H, W) float32.
    """
    pixels = images.float().permute(0, 3, 1, 2)
    mean, std = (
        255.0 * pixels.new_tensor(values)[:, None, None]
        for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    )
    return (pixels - mean) / std


class PublishedTeacher(nn.Module):
    """Frozen patch description network of the published size, always in evaluation mode.

    Args:
        weights: Path of a file (safetensors, or a PyTorch file of plain tensors), or `random`.

    Attributes:
        name: Name for `--teacher`.
        channels: Number of channels of a descriptor.

    Raises:
        TeacherError: There is no such file, or its tensors do not fit.
    """

    def __init__(self, weights: str) -> None:
        super().__init__()
        self.name = PUBLISHED_TEACHER
        self.channels = (PUBLISHED_SPEC.descriptor,)
        self.layers = description_network(PUBLISHED_SPEC)
        if weights in ("package", "hub"):
            raise TeacherError(
                f"the weights of teacher {self.name!r} are in no package and on no model hub",
                hint="give --teacher-weights FILE, or another --teacher, from which such a network is distilled",
            )
        if weights != "random":
            _load(self.layers, weights)
        self.requires_grad_(False)
        self.eval()

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the descriptors, and their means for larger patches.

        Args:
            images: (N, H, W, 3) RGB from 0 to 255, usually uint8.

        Returns:
            Three tensors (N, 384, H / s, W / s) for the strides s of 4, 8 and 16.
        """
        found = [self.layers(imagenet_pixels(images))]
        for _ in range(2):
            found.append(nn.functional.avg_pool2d(found[-1], 2))
        return found

    def train(self, mode: bool = True) -> PublishedTeacher:
        """Stay in evaluation mode. See Teacher.train."""
        return super().train(False)


def _load(layers: nn.Sequential, weights: str) -> None:
    """Load the tensors of a file, under either of the published names."""
    state = {}
    for key, tensor in file_state(Path(weights)).items():
        layer, _, kind = str(key).partition(".")
        state[f"{_LAYERS.get(layer, layer)}.{kind}"] = tensor
    given = {key: state.pop(key, None) for key in layers.state_dict()}
    fill_layers(layers, given, sorted(state), PUBLISHED_TEACHER, weights)
