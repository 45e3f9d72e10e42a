"""Every method around a network of a few thousand weights, as if it were trained."""

from __future__ import annotations

import torch
from torch import nn

from edgead.imaging.preprocess import ModelSize
from edgead.models import METHODS, create_method, hyperparameters_of
from edgead.models.base import STANDARD_VARIANT, Alignment, DistillationMethod

# timm's networks for tests. A slim student takes no squeeze-and-excitation, which the EfficientNet among them has.
TINY = {name: "test_resnet" if name == "stfpm-slim" else "test_efficientnet" for name in METHODS}
TINY_SIZE = ModelSize(64, 96)


def made(
    name: str,
    teacher: str,
    size: ModelSize = TINY_SIZE,
    preset: str = "edge",
    weights: str = "random",
    alignment: Alignment = "unaligned",
) -> DistillationMethod:
    """name: of a method, and of a variant behind a colon."""
    torch.manual_seed(3)
    name, _, variant = name.partition(":")
    method = create_method(
        name,
        METHODS[name].create_teacher(teacher, weights),
        size,
        hyperparameters_of(name, preset).loss,
        alignment,
        preset=preset,  # type: ignore[arg-type]
        variant=variant or STANDARD_VARIANT,
    )
    # Statistics that are not the identity, as training leaves them, but a pretrained network keeps its own.
    for key, part in method.named_children():
        for module in part.modules() if key != "teacher" or weights == "random" else ():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, std=0.1)
                nn.init.uniform_(module.running_var, 0.5, 2.0)
    return method
