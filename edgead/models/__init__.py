"""The methods by name, one file each."""

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
    Hyperparameters,
    MethodConfig,
    Preset,
)
from edgead.models.imported import (
    ImportedFeaturePyramidMatching,
    ImportedProductDistillation,
    ImportedReverseDistillation,
)
from edgead.models.rd import ReverseDistillation
from edgead.models.rd_plus import RevisitedReverseDistillation
from edgead.models.rstpm import ReconstructedPyramidMatching
from edgead.models.rstpm_plus import DiscriminatedPyramidMatching
from edgead.models.stfpm import FeaturePyramidMatching
from edgead.models.stfpm_ensemble import FeaturePyramidEnsemble
from edgead.models.stfpm_slim import SlimFeaturePyramidMatching
from edgead.models.uninformed_students import UninformedStudents

METHODS: dict[str, type[DistillationMethod]] = {
    "rd": ReverseDistillation,
    "rd++": RevisitedReverseDistillation,
    "stfpm": FeaturePyramidMatching,
    "stfpm-slim": SlimFeaturePyramidMatching,
    "stfpm-ensemble": FeaturePyramidEnsemble,
    "rstpm": ReconstructedPyramidMatching,
    "rstpm+": DiscriminatedPyramidMatching,
    "uninformed-students": UninformedStudents,
}

# What `edgead import` makes of another library's models, and nobody trains here.
IMPORTED: dict[str, type[DistillationMethod]] = {
    "rd-anomalib": ImportedReverseDistillation,
    "rd-anomalib-multiply": ImportedProductDistillation,
    "stfpm-anomalib": ImportedFeaturePyramidMatching,
}


def method_class(name: str) -> type[DistillationMethod]:
    """The method of a name in METHODS or IMPORTED. Raises InputError for another."""
    if (method := METHODS.get(name, IMPORTED.get(name))) is None:
        raise InputError(f"unknown method {name!r}: give --method {' or '.join(METHODS)}")
    return method


def hyperparameters_of(name: str, preset: str) -> Hyperparameters:
    """How a method is trained by a preset. Raises InputError for a name of either that is unknown or is not trained."""
    if preset not in PRESETS:
        raise InputError(f"unknown preset {preset!r}: give --preset {' or '.join(PRESETS)}")
    if name in IMPORTED:
        raise InputError(
            f"method {name!r} is what edgead import gives: to train, give --method {' or '.join(METHODS)}"
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
    """Make an untrained method around a teacher.

    name: a key of METHODS or IMPORTED. teacher: what the method's `create_teacher` gave. loss: one that the method
    knows. alignment: how the parts lie. textures: of pseudo-anomalies, drawn ones where none are given. variant: one
    that the method knows. Raises InputError for an unknown method, loss or variant.
    """
    config = MethodConfig(size, loss, alignment, preset, textures or ProceduralTextures(), variant)
    return method_class(name)(teacher, config)
