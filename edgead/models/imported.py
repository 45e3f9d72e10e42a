"""Models that another library trained: the methods as implemented there, and the names of their tensors.

anomalib's Reverse Distillation differs from the authors' code in the embedding: it has basic blocks of a ResNet18 or
bottlenecks of a ResNet50, whatever the backbone is. anomalib's STFPM enlarges the maps with unaligned corners. RD4AD is
the code of the authors, and `edgead.models.rd` has the same student. Tensors that no table below lists are rejected, so
a model is imported completely or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from torch import Tensor

from edgead.errors import InputError
from edgead.models.base import DistillationMethod, MethodConfig
from edgead.models.components.blocks import initialise
from edgead.models.components.rd_student import mirrored_embedding
from edgead.models.components.teacher import Teacher
from edgead.models.components.teacher_weights import is_plain
from edgead.models.hyperparameters import Hyperparameters
from edgead.models.rd import ReverseDistillation
from edgead.models.stfpm import FeaturePyramidMatching

# `get_bottleneck_layer` of anomalib: name in timm -> (blocks of the embedding, width of its 3x3 convolutions).
_EMBEDDINGS: dict[str, tuple[int, float | None]] = {
    "resnet18": (2, None),
    "resnet34": (2, None),
    "resnet50": (3, 1 / 4),
    "wide_resnet50_2": (3, 1 / 4),
}
MIRRORED_BACKBONES = tuple(_EMBEDDINGS)


class ImportedReverseDistillation(ReverseDistillation):
    """anomalib's ReverseDistillation with `anomaly_map_mode="add"`, for the ResNets of MIRRORED_BACKBONES.

    Args:
        teacher: ResNet teacher.
        config: Configuration of the method.
    """

    presets = MappingProxyType(
        dict.fromkeys(("edge", "paper"), Hyperparameters("flattened", 4.0, 200, 32, 5e-3, "constant"))
    )

    def __init__(self, teacher: Teacher, config: MethodConfig) -> None:
        super().__init__(teacher, config)
        embedding = mirrored_embedding(teacher.channels[2], *_EMBEDDINGS[teacher.architecture])
        initialise(embedding)
        self.bottleneck.embedding = embedding


class ImportedProductDistillation(ImportedReverseDistillation):
    """anomalib's ReverseDistillation with `anomaly_map_mode="multiply"`."""

    fusion = "multiply"


class ImportedFeaturePyramidMatching(FeaturePyramidMatching):
    """anomalib's Stfpm: the map is not smoothed, and corners are not aligned.

    Args:
        teacher: Teacher of any architecture.
        config: Configuration of the method.
    """

    presets = MappingProxyType(
        dict.fromkeys(
            ("edge", "paper"), Hyperparameters("per-position", 0.0, 100, 32, 0.4, "constant", optimizer="sgd")
        )
    )

    def __init__(self, teacher: Teacher, config: MethodConfig) -> None:
        super().__init__(teacher, config)
        self.head = replace(self.head, align_corners=False)


@dataclass(frozen=True, slots=True)
class Names:
    """Names of the tensors of a method in one library.

    Attributes:
        ours: Beginning of a name in the library -> beginning of our name.
        unused: Beginnings of names of tensors that do not affect any result of the model.
        carries_teacher: Whether the checkpoint contains the tensors of the teacher.
        differences: Remaining differences between the results of the library and ours.
    """

    ours: Mapping[str, str]
    unused: tuple[str, ...]
    carries_teacher: bool
    differences: tuple[str, ...]


_RESIZING = "an image larger than the model's is shrunk by averaging areas, not by a bilinear filter"
_BORDER = (
    "smoothing mirrors the map at the edge of its outer pixels, not at their centres, "
    "so a border of 16 pixels differs"
)

# Hint for a checkpoint with other tensors than the model.
_ANOTHER_MODEL = "give the complete checkpoint of one model that edgead import supports"


def _student(bottleneck: str, decoder: str) -> dict[str, str]:
    """Names of the student of RD4AD; anomalib uses the same names with other prefixes."""
    return {
        f"{bottleneck}conv1.": "bottleneck.from_stride_4.0.0.",
        f"{bottleneck}bn1.": "bottleneck.from_stride_4.0.1.",
        f"{bottleneck}conv2.": "bottleneck.from_stride_4.1.0.",
        f"{bottleneck}bn2.": "bottleneck.from_stride_4.1.1.",
        f"{bottleneck}conv3.": "bottleneck.from_stride_8.0.",
        f"{bottleneck}bn3.": "bottleneck.from_stride_8.1.",
        f"{bottleneck}bn_layer.": "bottleneck.embedding.",
        f"{decoder}layer1.": "decoder.stages.0.",
        f"{decoder}layer2.": "decoder.stages.1.",
        f"{decoder}layer3.": "decoder.stages.2.",
    }


# Both libraries create conv4 and bn4 of the bottleneck and never call them. Beside `model` an anomalib checkpoint
# contains thresholds, minima and maxima of scores, and metrics.
ANOMALIB_RD = Names(
    {
        "model.encoder.feature_extractor.": "teacher.layers.",
        **_student("model.bottleneck.", "model.decoder."),
    },
    ("model.bottleneck.conv4.", "model.bottleneck.bn4.", "post_processor.", "evaluator."),
    carries_teacher=True,
    differences=(_RESIZING, _BORDER),
)
ANOMALIB_STFPM = Names(
    {
        "model.teacher_model.feature_extractor.": "teacher.layers.",
        "model.student_model.feature_extractor.": "student.layers.model.",
    },
    ("post_processor.", "evaluator."),
    carries_teacher=True,
    differences=(_RESIZING,),
)
RD4AD = Names(
    _student("bn.", "decoder."), ("bn.conv4.", "bn.bn4."), carries_teacher=False, differences=(_RESIZING,)
)


def load_imported(method: DistillationMethod, tensors: Mapping[str, Tensor], names: Names) -> None:
    """Load every tensor of a method, or of its student only if the checkpoint does not contain the teacher.

    Args:
        method: Method to load the tensors into.
        tensors: Tensors by the names of the library.
        names: Names of the library.

    Raises:
        InputError: A tensor is missing, unknown, of another shape or not of finite real numbers. The message has its
            name.
    """
    wanted = {
        name: tensor
        for name, tensor in method.state_dict().items()
        if names.carries_teacher or not name.startswith("teacher.")
    }
    given: dict[str, Tensor] = {}
    for theirs, tensor in tensors.items():
        if theirs.startswith(names.unused):
            continue
        name = _our_name(theirs, names)
        if name not in wanted:
            raise InputError(
                f"the checkpoint has a tensor {theirs!r} that this model does not have", hint=_ANOTHER_MODEL
            )
        if not is_plain(tensor) or tensor.shape != wanted[name].shape:
            raise InputError(
                f"tensor {theirs!r} of the checkpoint is {_shape(tensor)}, not {_shape(wanted[name])}",
                hint=_ANOTHER_MODEL,
            )
        if not bool(tensor.isfinite().all()):
            raise InputError(
                f"tensor {theirs!r} of the checkpoint has values that are not finite",
                hint="train the model again",
            )
        given[name] = tensor
    if missing := sorted(wanted.keys() - given.keys()):
        raise InputError(
            f"the checkpoint has no tensor for {missing[0]!r}",
            hint=_ANOTHER_MODEL,
        )
    method.load_state_dict(given, strict=False)


def _our_name(theirs: str, names: Names) -> str | None:
    """Our name of a tensor; None if there is none."""
    for beginning, ours in names.ours.items():
        if theirs.startswith(beginning):
            name = ours + theirs.removeprefix(beginning)
            if name.startswith(("bottleneck.", "decoder.")):
                # The libraries call a shortcut `downsample` in the embedding and `upsample` in the decoder.
                name = name.replace(".downsample.", ".shortcut.").replace(".upsample.", ".shortcut.")
            return name
    return None


def _shape(tensor: object) -> str:
    """Shape of a tensor for a message; also dtype and layout if the tensor is not plain."""
    if not isinstance(tensor, Tensor):
        return "no tensor"
    kind = "" if is_plain(tensor) else f" of {tensor.dtype} in {tensor.layout}"
    return ("x".join(map(str, tensor.shape)) or "a number") + kind
