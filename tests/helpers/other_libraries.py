"""Models of other libraries for the tests of importing: their tensors by their names, and what their networks compute.

The names and shapes are in imported_names.txt. The networks are written here once more, as functions of those tensors,
from their published code; nothing of edgead is used.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

NAMES = Path(__file__).parent / "imported_names.txt"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

State = dict[str, Tensor]


def shapes_of(title: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the section `title` of imported_names.txt."""
    section = NAMES.read_text().split(f"[{title}]\n")[1].split("[")[0]
    pairs = (line.split() for line in section.splitlines())
    return {name: () if shape == "-" else tuple(map(int, shape.split("x"))) for name, shape in pairs}


def random_state(title: str, seed: int = 0) -> State:
    """Tensors of these names and shapes that keep features of an ordinary size, and no two alike."""
    rng = torch.Generator().manual_seed(seed)
    state: State = {}
    for name, shape in shapes_of(title).items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(3)
        elif len(shape) == 4:
            fan = shape[1] * shape[2] * shape[3]
            state[name] = torch.randn(shape, generator=rng) * (1.5 / fan) ** 0.5
        elif name.endswith(("running_var", "weight")):
            state[name] = 0.5 + torch.rand(shape, generator=rng)
        else:
            state[name] = 0.1 * torch.randn(shape, generator=rng)
    return state


def pixels(images: Tensor) -> Tensor:
    """(N, H, W, 3) uint8 RGB as both libraries feed it: 0 to 1, ImageNet's mean and standard deviation."""
    scaled = images.permute(0, 3, 1, 2).float() / 255
    return (scaled - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def norm(x: Tensor, state: State, name: str) -> Tensor:
    parts = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, *parts)


def block(x: Tensor, state: State, name: str, shortcut: str) -> Tensor:
    """A basic block of a ResNet, or of its mirror image where the first convolution is a transposed 2x2 one."""
    first = state[f"{name}.conv1.weight"]
    resized = f"{name}.{shortcut}.0.weight" in state
    if first.shape[2] == 2:
        out = F.conv_transpose2d(x, first, stride=2)
    else:
        out = F.conv2d(x, first, stride=2 if resized else 1, padding=1)
    out = F.relu(norm(out, state, f"{name}.bn1"))
    out = norm(F.conv2d(out, state[f"{name}.conv2.weight"], padding=1), state, f"{name}.bn2")
    if resized:
        weight = state[f"{name}.{shortcut}.0.weight"]
        widen = F.conv_transpose2d if weight.shape[2] == 2 else F.conv2d
        x = norm(widen(x, weight, stride=2), state, f"{name}.{shortcut}.1")
    return F.relu(out + x)


def resnet18(x: Tensor, state: State, name: str) -> list[Tensor]:
    """Features at strides 4, 8 and 16."""
    x = F.conv2d(x, state[f"{name}conv1.weight"], stride=2, padding=3)
    x = F.max_pool2d(F.relu(norm(x, state, f"{name}bn1")), 3, stride=2, padding=1)
    features = []
    for layer in ("layer1", "layer2", "layer3"):
        for number in (0, 1):
            x = block(x, state, f"{name}{layer}.{number}", "downsample")
        features.append(x)
    return features


def student_of_rd(features: list[Tensor], state: State, bottleneck: str, decoder: str) -> list[Tensor]:
    """The embedding and the decoder of a ResNet18 that anomalib and RD4AD share: features at strides 4, 8 and 16."""

    def halve(x: Tensor, number: int) -> Tensor:
        x = F.conv2d(x, state[f"{bottleneck}conv{number}.weight"], stride=2, padding=1)
        return F.relu(norm(x, state, f"{bottleneck}bn{number}"))

    x = torch.cat([halve(halve(features[0], 1), 2), halve(features[1], 3), features[2]], 1)
    for number in (0, 1):
        x = block(x, state, f"{bottleneck}bn_layer.{number}", "downsample")
    rebuilt = []
    for layer in ("layer1", "layer2", "layer3"):
        for number in (0, 1):
            x = block(x, state, f"{decoder}{layer}.{number}", "upsample")
        rebuilt.append(x)
    return rebuilt[::-1]


def enlarged_maps(
    teacher: list[Tensor], student: list[Tensor], size: tuple[int, int], align_corners: bool
) -> Tensor:
    """Cosine maps of three scales, enlarged: (3, N, 1, H, W)."""
    return torch.stack(
        [
            F.interpolate(
                1 - F.cosine_similarity(t, s)[:, None], size, mode="bilinear", align_corners=align_corners
            )
            for t, s in zip(teacher, student, strict=True)
        ]
    )
