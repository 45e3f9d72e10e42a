"""What a target may choose of an engine, checked before an hour of building is spent on it.

Knows the standard library alone, so that a target is read where no compiler is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgead.errors import InputError
from edgead.runtime.tensorrt.engine_record import HARDWARE_COMPATIBILITIES

MAX_BATCH = 4096
MAX_WORKSPACE_MIB = 2**20


@dataclass(frozen=True, slots=True)
class BatchProfile:
    """How many images an engine takes at once: at least `min`, at most `max`, and it is tuned for `opt`.

    Raises InputError unless 1 <= min <= opt <= max <= `MAX_BATCH`.
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
                f"batch min {self.min}, opt {self.opt}, max {self.max}: "
                f"give whole numbers with 1 <= min <= opt <= max <= {MAX_BATCH}"
            )


@dataclass(frozen=True, slots=True)
class TensorRTSettings:
    """How an engine is compiled.

    workspace_mib: memory that a layer may take for its work, in MiB. optimization_level: 0 builds fastest, 5 searches
    longest; 3 is NVIDIA's default. version_compatible: later TensorRTs of the same major version can run it, for it
    carries NVIDIA's runtime, and the library of its plugin where it has one. hardware_compatibility: "none"; "ampere+"
    for all GPUs from compute capability 8.0 on; "same-compute-capability" for all models of the GPU built on.
    compute_capabilities: those to build for, as "8.6"; empty for this machine's GPU. Only TensorRT for RTX builds for a
    list, and only TensorRT has the two kinds of compatibility.

    Raises InputError, naming the field, for a value that is none of these.
    """

    workspace_mib: int = 1024
    optimization_level: int = 3
    version_compatible: bool = False
    hardware_compatibility: str = "none"
    compute_capabilities: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if type(self.workspace_mib) is not int or not 1 <= self.workspace_mib <= MAX_WORKSPACE_MIB:
            raise InputError(
                f"workspace_mib is {self.workspace_mib!r}: give MiB, a whole number from 1 to {MAX_WORKSPACE_MIB}"
            )
        if type(self.optimization_level) is not int or not 0 <= self.optimization_level <= 5:
            raise InputError(f"optimization_level is {self.optimization_level!r}: give 0 to 5")
        if type(self.version_compatible) is not bool:
            raise InputError(f"version_compatible is {self.version_compatible!r}: give true or false")
        if self.hardware_compatibility not in HARDWARE_COMPATIBILITIES:
            raise InputError(
                f"hardware_compatibility is {self.hardware_compatibility!r}: "
                f"choose one of {', '.join(HARDWARE_COMPATIBILITIES)}"
            )
        if type(self.compute_capabilities) is not tuple or not all(
            isinstance(value, str) and re.fullmatch(r"\d{1,2}\.\d", value, re.ASCII)
            for value in self.compute_capabilities
        ):
            raise InputError(
                f'compute_capabilities is {self.compute_capabilities!r}: give a list such as "8.6", "8.9"'
            )
        if len(set(self.compute_capabilities)) != len(self.compute_capabilities):
            raise InputError(f"compute_capabilities is {self.compute_capabilities!r}: give each once")
