"""Registry of the methods: their names and classes. Each method is one file."""

from __future__ import annotations

from torch import nn

from edgead.data.pseudo_anomalies.textures import ProceduralTextures, Textures
from edgead.errors import InputError
from edgead.imaging.preprocess import ModelSize
from edgead.models.base import (
    PRESETS,
    STANDARD_VARIANT,
    Alignment,
    DistillationMethod,
    MethodConfig,
    Preset,
)
from edgead.models.efficientad import EfficientAd
from edgead.models.hyperparameters import Hyperparameters
from edgead.models.imported import (
    ImportedFeaturePyramidMatching,
    ImportedProductDistillation,
    ImportedReverseDistillation,
)
from edgead.models.linear import LinearReconstruction
from edgead.models.rd import ReverseDistillation
from edgead.models.rd_plus import RevisitedReverseDistillation
from edgead.models.rstpm import ReconstructedPyramidMatching
from edgead.models.rstpm_plus import DiscriminatedPyramidMatching
from edgead.models.stfpm import FeaturePyramidMatching
from edgead.models.stfpm_ensemble import FeaturePyramidEnsemble
from edgead.models.stfpm_shared import SharedFeaturePyramidMatching
from edgead.models.stfpm_slim import SlimFeaturePyramidMatching
from edgead.models.uninformed_students import UninformedStudents

METHODS: dict[str, type[DistillationMethod]] = {
    "rd": ReverseDistillation,
    "rd++": RevisitedReverseDistillation,
    "stfpm": FeaturePyramidMatching,
    "stfpm-slim": SlimFeaturePyramidMatching,
    "stfpm-shared": SharedFeaturePyramidMatching,
    "stfpm-ensemble": FeaturePyramidEnsemble,
    "rstpm": ReconstructedPyramidMatching,
    "rstpm+": DiscriminatedPyramidMatching,
    "uninformed-students": UninformedStudents,
    "efficientad": EfficientAd,
    "linear": LinearReconstruction,
}

# Methods of models that `edgead import` reads. They cannot be trained.
IMPORTED: dict[str, type[DistillationMethod]] = {
    "rd-anomalib": ImportedReverseDistillation,
    "rd-anomalib-multiply": ImportedProductDistillation,
    "stfpm-anomalib": ImportedFeaturePyramidMatching,
}


def method_class(name: str) -> type[DistillationMethod]:
    """Look up the class of a method.

    Args:
        name: Key of METHODS or IMPORTED.

    Returns:
        Class of the method.

    Raises:
        InputError: The name is unknown.
    """
    if (method := METHODS.get(name, IMPORTED.get(name))) is None:
        raise InputError(f"unknown method {name!r}", hint=f"give --method {' or '.join(METHODS)}")
    return method


def check_fusion(name: str, fusion: str) -> None:
    """Check that a method can join its scales in a way.

    Args:
        name: Key of METHODS or IMPORTED.
        fusion: "add" or "multiply".

    Raises:
        InputError: The method is unknown, or always joins its scales in the other way.
    """
    method = method_class(name)
    choices = method.fusions or (method.fusion,)
    if fusion not in choices:
        several = f"give --fusion {' or '.join(choices)}"
        raise InputError(
            f"--fusion {fusion}, but {name} has {' and '.join(choices)}",
            hint=several if len(choices) > 1 else "leave out --fusion",
        )


def hyperparameters_of(name: str, preset: str) -> Hyperparameters:
    """Look up the hyperparameters of a method for a preset.

    Args:
        name: Key of METHODS.
        preset: One of PRESETS.

    Returns:
        Hyperparameters of the method.

    Raises:
        InputError: The method or the preset is unknown, or the method is imported and cannot be trained.
    """
    if preset not in PRESETS:
        raise InputError(f"unknown preset {preset!r}", hint=f"give --preset {' or '.join(PRESETS)}")
    if name in IMPORTED:
        raise InputError(
            f"method {name!r} is for imported models and cannot be trained",
            hint=f"give --method {' or '.join(METHODS)}",
        )
    return method_class(name).presets[preset]


def create_method(
    name: str,
    teacher: nn.Module,
    size: ModelSize,
    loss: str,
    alignment: Alignment = "unaligned",
    preset: Preset = "edge",
    textures: Textures | None = None,
    variant: str = STANDARD_VARIANT,
) -> DistillationMethod:
    """Create an untrained method around a teacher.

    Args:
        name: Key of METHODS or IMPORTED.
        teacher: Teacher that `create_teacher` of the method returned.
        size: Size of the images.
        loss: One of the losses of the method.
        alignment: How the parts lie in their images.
        preset: Hyperparameters to use.
        textures: Textures of pseudo-anomalies; procedural textures if None.
        variant: One of the variants of the method.

    Returns:
        The method with a random student.

    Raises:
        InputError: The method does not exist or does not have the loss or the variant.
    """
    config = MethodConfig(size, loss, alignment, preset, textures or ProceduralTextures(), variant)
    return method_class(name)(teacher, config)
