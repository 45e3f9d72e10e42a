"""Settings of an engine in a target, and names of choices, checked before a build that may take an hour.

This module imports no library of a vendor, so a target can be read on a machine without a compiler.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeVar

from edgead.errors import InputError
from edgead.runtime.tensorrt.engine_record import HARDWARE_COMPATIBILITIES

Name = TypeVar("Name", bound=str)

MAX_BATCH = 4096
MAX_WORKSPACE_MIB = 2**20


@dataclass(frozen=True, slots=True)
class BatchProfile:
    """Numbers of images that an engine takes in one batch.

    Attributes:
        min: Smallest number of images.
        opt: Number of images that the engine is tuned for.
        max: Largest number of images.

    Raises:
        InputError: If the numbers are not integers with 1 <= min <= opt <= max <= `MAX_BATCH`.
    """

    min: int = 1
    opt: int = 1
    max: int = 1

    def __post_init__(self) -> None:
        if (
            not all(type(value) is int for value in (self.min, self.opt, self.max))
            or not 1 <= self.min <= self.opt <= self.max <= MAX_BATCH
        ):
            raise InputError(
                f"batch is min {self.min}, opt {self.opt}, max {self.max}",
                hint=f"give whole numbers with 1 <= min <= opt <= max <= {MAX_BATCH}",
            )


@dataclass(frozen=True, slots=True)
class TensorRTSettings:
    """Settings of the compiler of an engine.

    TensorRT for RTX has no version compatibility and no hardware compatibility; it builds for a list of compute
    capabilities instead. TensorRT does not.

    Attributes:
        workspace_mib: Memory that a layer may use for its computation, in MiB.
        optimization_level: 0 builds fastest, 5 searches longest. 3 is NVIDIA's default.
        version_compatible: Whether later TensorRT versions of the same major version can run the engine. The engine
            then contains NVIDIA's runtime, and the library of its plugin if it has one.
        hardware_compatibility: "none"; "ampere+" for all GPUs with compute capability 8.0 or higher;
            "same-compute-capability" for all GPUs with the compute capability of the GPU that builds.
        compute_capabilities: Compute capabilities to build for, such as "8.6"; empty for this machine's GPU.

    Raises:
        InputError: If a value is not valid. The message names the field.
    """

    workspace_mib: int = 1024
    optimization_level: int = 3
    version_compatible: bool = False
    hardware_compatibility: str = "none"
    compute_capabilities: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if type(self.workspace_mib) is not int or not 1 <= self.workspace_mib <= MAX_WORKSPACE_MIB:
            raise InputError(
                f"workspace_mib is {self.workspace_mib!r}",
                hint=f"give MiB, a whole number from 1 to {MAX_WORKSPACE_MIB}",
            )
        if type(self.optimization_level) is not int or not 0 <= self.optimization_level <= 5:
            raise InputError(
                f"optimization_level is {self.optimization_level!r}", hint="give a whole number from 0 to 5"
            )
        if type(self.version_compatible) is not bool:
            raise InputError(f"version_compatible is {self.version_compatible!r}", hint="give true or false")
        if self.hardware_compatibility not in HARDWARE_COMPATIBILITIES:
            raise InputError(
                f"hardware_compatibility is {self.hardware_compatibility!r}",
                hint=f"choose one of {', '.join(HARDWARE_COMPATIBILITIES)}",
            )
        if type(self.compute_capabilities) is not tuple or not all(
            isinstance(value, str) and re.fullmatch(r"\d{1,2}\.\d", value, re.ASCII)
            for value in self.compute_capabilities
        ):
            raise InputError(
                f"compute_capabilities is {self.compute_capabilities!r}",
                hint='give a list such as "8.6", "8.9"',
            )
        if len(set(self.compute_capabilities)) != len(self.compute_capabilities):
            raise InputError(
                f"compute_capabilities is {self.compute_capabilities!r}", hint="give each of them once"
            )


def known_name(option: str, value: str, known: tuple[Name, ...]) -> Name:
    """Return the known name that equals the value of an option.

    Args:
        option: Name of the option, for the message.
        value: Value of the option.
        known: Known names.

    Raises:
        InputError: If the value is no known name.
    """
    for name in known:
        if name == value:
            return name
    raise InputError(f"unknown {option} {value!r}", hint=f"choose one of {', '.join(known)}")
