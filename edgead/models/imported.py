"""Models that another library trained: the methods as that library has them, and its names of the tensors.

anomalib's Reverse Distillation differs from the authors' in the embedding, which has basic blocks of a ResNet18 or
bottlenecks of a ResNet50 whatever the backbone. Its STFPM enlarges the maps with unaligned corners. RD4AD is the
authors' own code, and its student is that of `edgead.models.rd`. What none of the tables below names is refused, so
that a model is taken over whole or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from torch import Tensor

from edgead.errors import InputError
from edgead.models.base import DistillationMethod, Hyperparameters, MethodConfig
from edgead.models.components.blocks import initialise
from edgead.models.components.teacher import Teacher
from edgead.models.components.teacher_weights import is_plain
from edgead.models.rd import ReverseDistillation, mirrored_embedding
from edgead.models.stfpm import FeaturePyramidMatching

# `get_bottleneck_layer` of anomalib: timm's name -> (blocks of the embedding, width of its 3x3 convolutions).
_EMBEDDINGS: dict[str, tuple[int, float | None]] = {
    "resnet18": (2, None),
    "resnet34": (2, None),
    "resnet50": (3, 1 / 4),
    "wide_resnet50_2": (3, 1 / 4),
}
MIRRORED_BACKBONES = tuple(_EMBEDDINGS)


class ImportedReverseDistillation(ReverseDistillation):
    """anomalib's ReverseDistillation with `anomaly_map_mode="add"`, for the ResNets of MIRRORED_BACKBONES."""

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
    """anomalib's Stfpm: not smoothed, and corners not aligned."""

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
    """How one source names the tensors of a method.

    ours: beginning of a name there -> here. unused: beginnings of names that no result of that model depends on.
    carries_teacher: whether the teacher's tensors are among them. differences: in what the numbers differ all the same.
    """

    ours: Mapping[str, str]
    unused: tuple[str, ...]
    carries_teacher: bool
    differences: tuple[str, ...]


_RESIZING = "an image larger than the model's is shrunk by averaging areas, not by a bilinear filter"
_BORDER = (
    "the map is smoothed as if mirrored about the edge of its outer pixels, not their centres: 16 pixels deep"
)


def _student(bottleneck: str, decoder: str) -> dict[str, str]:
    """The student of RD4AD, which anomalib took over name by name."""
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


# conv4 and bn4 of the bottleneck are made and never called, in both. What an anomalib checkpoint holds beside its
# `model` is thresholds, ranges of scores and metrics.
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
    """Load every tensor of a method, of its student alone where the teacher's are not among them.

    tensors: by the source's names. Raises InputError, naming the tensor, for one that is missing, unknown, of another
    shape or not of finite real numbers.
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
                f"the checkpoint has a tensor {theirs!r} that this model does not have: it is of another model"
            )
        if not is_plain(tensor) or tensor.shape != wanted[name].shape:
            raise InputError(
                f"tensor {theirs!r} of the checkpoint is {_shape(tensor)}, not {_shape(wanted[name])}: it is of "
                "another model"
            )
        if not bool(tensor.isfinite().all()):
            raise InputError(
                f"tensor {theirs!r} of the checkpoint has values that are not finite: train it again"
            )
        given[name] = tensor
    if missing := sorted(wanted.keys() - given.keys()):
        raise InputError(
            f"the checkpoint has no tensor for {missing[0]!r}: it is of another model, or not whole"
        )
    method.load_state_dict(given, strict=False)


def _our_name(theirs: str, names: Names) -> str | None:
    for beginning, ours in names.ours.items():
        if theirs.startswith(beginning):
            name = ours + theirs.removeprefix(beginning)
            if name.startswith(("bottleneck.", "decoder.")):
                # A shortcut is a downsampling in the embedding and an upsampling in the decoder.
                name = name.replace(".downsample.", ".shortcut.").replace(".upsample.", ".shortcut.")
            return name
    return None


def _shape(tensor: object) -> str:
    if not isinstance(tensor, Tensor):
        return "no tensor"
    kind = "" if is_plain(tensor) else f" of {tensor.dtype} in {tensor.layout}"
    return ("x".join(map(str, tensor.shape)) or "a number") + kind
