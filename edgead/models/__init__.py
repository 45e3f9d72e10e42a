"""The methods by name, one file each."""

from __future__ import annotations

from collections.abc import Callable

from edgead.errors import InputError
from edgead.models.base import DistillationMethod, Pose
from edgead.models.rd import ReverseDistillation
from edgead.models.teacher import Teacher
from edgead.preprocess import ModelSize

METHODS: dict[str, Callable[[Teacher, ModelSize, str, Pose], DistillationMethod]] = {
    "rd": ReverseDistillation
}


def create_method(
    name: str, teacher: Teacher, size: ModelSize, loss: str, pose: Pose = "free"
) -> DistillationMethod:
    """Make an untrained method around a teacher.

    name: a key of METHODS. loss: one that the method knows. pose: how the parts lie. Raises InputError for an
    unknown method or loss.
    """
    if name not in METHODS:
        raise InputError(f"unknown method {name!r}: give --method {' or '.join(METHODS)}")
    return METHODS[name](teacher, size, loss, pose)
