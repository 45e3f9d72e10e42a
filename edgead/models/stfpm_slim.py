"""STFPM with a slim student: the same features from fewer filters.

Polidori, "Leveraging Student-Teacher learning framework", Politecnico di Milano 2022, solution 2 (section 4.3). A
student with less capacity learns only features of good parts, so it fails where a part has a defect. The number of
channels is fixed where a block adds its input to its output and where features are compared. Some of the filters
between are removed. The source does not say how many remain; here a quarter remains in every block.

student  the teacher's architecture, each residual block with a quarter of the filters inside
         teacher, loss, map and training are as in STFPM
"""

from __future__ import annotations

from torch import nn

from edgead.errors import TeacherError
from edgead.models.base import MethodConfig
from edgead.models.components.teacher import DEFAULT_TEACHER, Teacher
from edgead.models.stfpm import FeaturePyramidMatching

# One in four filters inside a block is kept, and at least eight.
SLIMMING = 4
MIN_FILTERS = 8

# Layers of timm's blocks, from the first layer with fewer filters to the last layer that reads them: basic block and
# bottleneck of a ResNet, and inverted residual of EfficientNet-Lite and MobileNetV2.
_BLOCKS = {
    "BasicBlock": ("conv1", "bn1", "conv2"),
    "Bottleneck": ("conv1", "bn1", "conv2", "bn2", "conv3"),
    "InvertedResidual": ("conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl"),
}


class SlimFeaturePyramidMatching(FeaturePyramidMatching):
    """STFPM with a quarter of the filters inside each block of the student.

    Args:
        teacher: Teacher with features at strides 4, 8 and 16.
        config: Configuration of the method.

    Raises:
        TeacherError: The teacher has no blocks that can be slimmed.
    """

    def __init__(self, teacher: Teacher, config: MethodConfig) -> None:
        super().__init__(teacher, config)
        blocks = [block for block in self.student.modules() if type(block).__name__ in _BLOCKS]
        if not blocks or any(_joins_all_channels(block) for block in blocks):
            raise TeacherError(
                f"no slim student for teacher {teacher.name!r}",
                hint="give a plain ResNet, EfficientNet-Lite or MobileNetV2, for example "
                f"{DEFAULT_TEACHER}, or --method stfpm",
            )
        for block in blocks:
            _slim(block)


def _joins_all_channels(block: nn.Module) -> bool:
    """Whether the block contains squeeze-and-excitation, which has layers that would have to be cut too."""
    return not isinstance(getattr(block, "se", None), nn.Identity | None)


def _slim(block: nn.Module) -> None:
    """Cut the filters between the first and the last convolution of a block."""
    first, *between, last = (getattr(block, name) for name in _BLOCKS[type(block).__name__])
    kept = max(MIN_FILTERS, first.out_channels // SLIMMING)
    _cut(first, first.in_channels, kept)
    for layer in between:
        _cut(layer, kept, kept)
    _cut(last, kept, last.out_channels)


def _cut(layer: nn.Module, inputs: int, outputs: int) -> None:
    """Keep the first weights of a convolution or a batch normalisation."""
    if isinstance(layer, nn.BatchNorm2d):
        layer.num_features = outputs
        for name in ("running_mean", "running_var"):
            layer.register_buffer(name, getattr(layer, name)[:outputs].clone())
        layer.bias = nn.Parameter(layer.bias.detach()[:outputs].clone())
        layer.weight = nn.Parameter(layer.weight.detach()[:outputs].clone())
        return
    assert isinstance(layer, nn.Conv2d)
    depthwise = layer.groups > 1
    weight = layer.weight.detach()[:outputs]
    layer.weight = nn.Parameter((weight if depthwise else weight[:, :inputs]).clone())
    layer.in_channels, layer.out_channels = inputs, outputs
    if depthwise:
        layer.groups = outputs
