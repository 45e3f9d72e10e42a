"""The methods by name, one file each."""

from __future__ import annotations

from torch import nn

from edgead.errors import InputError
from edgead.models.base import PRESETS, DistillationMethod, Pose, Preset, Recipe, Setting
from edgead.models.rd import ReverseDistillation
from edgead.models.rd_plus import RevisitedReverseDistillation
from edgead.models.rstpm import (
    AddedAttention,
    DirectReconstruction,
    MultipliedAttention,
    NoAttention,
    ReconstructedPyramidMatching,
)
from edgead.models.stfpm import FeaturePyramidMatching
from edgead.models.stfpm_ensemble import FeaturePyramidEnsemble
from edgead.models.stfpm_slim import SlimFeaturePyramidMatching
from edgead.preprocess import ModelSize

METHODS: dict[str, type[DistillationMethod]] = {
    "rd": ReverseDistillation,
    "rd++": RevisitedReverseDistillation,
    "stfpm": FeaturePyramidMatching,
    "stfpm-slim": SlimFeaturePyramidMatching,
    "stfpm-ensemble": FeaturePyramidEnsemble,
    "rstpm": ReconstructedPyramidMatching,
    "rstpm-multiplied": MultipliedAttention,
    "rstpm-added": AddedAttention,
    "rstpm-none": NoAttention,
    "rstpm-direct": DirectReconstruction,
}


def method_class(name: str) -> type[DistillationMethod]:
    """The method of a name in METHODS. Raises InputError for another."""
    if name not in METHODS:
        raise InputError(f"unknown method {name!r}: give --method {' or '.join(METHODS)}")
    return METHODS[name]


def recipe_of(name: str, preset: str) -> Recipe:
    """How a method is trained by a preset. Raises InputError for an unknown name of either."""
    if preset not in PRESETS:
        raise InputError(f"unknown preset {preset!r}: give --preset {' or '.join(PRESETS)}")
    return method_class(name).recipes[preset]


def create_method(
    name: str, teacher: nn.Module, size: ModelSize, loss: str, pose: Pose = "free", preset: Preset = "edge"
) -> DistillationMethod:
    """Make an untrained method around a teacher.

    name: a key of METHODS. teacher: what the method's `create_teacher` gave. loss: one that the method knows. pose: how
    the parts lie. Raises InputError for an unknown method or loss.
    """
    return method_class(name)(teacher, Setting(size, loss, pose, preset))
