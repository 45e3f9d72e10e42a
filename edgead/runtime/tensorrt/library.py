"""TensorRT and TensorRT for RTX as one library: the only file that imports either.

Both have nearly one interface, so there is one path to build and one to run. What differs, between the two and from
8.6 to 11, is a property of `Library` here, and nobody else asks for a version. Attributes that only some versions
have were looked up in the bindings of 8.6.1 and in NVIDIA's sources of 10.0, 10.3, 10.9, 10.13, 10.16, 11.0 and 11.1.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args

from edgead.errors import BackendError
from edgead.runtime.tensorrt.engine_record import version_numbers

TensorRTBackend = Literal["tensorrt", "tensorrt-rtx"]
TENSORRT_BACKENDS: tuple[TensorRTBackend, ...] = get_args(TensorRTBackend)

NAMES: dict[TensorRTBackend, str] = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT for RTX"}

OLDEST = (8, 6)
"""Older ones lack version and hardware compatibility, the optimisation level and uint8 inputs."""

_HINTS: dict[TensorRTBackend, str] = {
    "tensorrt": "it comes with JetPack (make the environment with --system-site-packages), from NVIDIA's package index "
    "or in NVIDIA's TensorRT container",
    "tensorrt-rtx": "pip install 'edgead[tensorrt-rtx]'",
}
# CUDA has one number, 35, for a driver that is too old and for none at all, and 100 for no GPU.
_GPU_TROUBLE = (
    (
        r"CUDA driver version is insufficient|\berror:? 35\b",
        "no NVIDIA driver, or one too old: install or update it",
    ),
    (r"no CUDA-capable device|\b(cudaE|e)rror:? 100\b", "no NVIDIA GPU is visible to this process"),
)


@dataclass(frozen=True, slots=True)
class Library:
    """A loaded library.

    backend: which of the two. module: the vendor's. version_text: as the module says it, `version` as numbers.
    logger: the one of this process, to be given to every builder, runtime and parser.
    """

    backend: TensorRTBackend
    module: Any
    version: tuple[int, ...]
    version_text: str
    logger: Any

    @property
    def name(self) -> str:
        """What a reader knows the library by, with its version."""
        return f"{NAMES[self.backend]} {self.version_text}"

    @property
    def for_rtx(self) -> bool:
        """It builds for a list of GPUs without one at hand, knows no plugins and keeps no timings."""
        return self.backend == "tensorrt-rtx"

    @property
    def strongly_typed(self) -> bool:
        """Precision comes from the tensors of the graph; before 10, the builder wants flags that allow it."""
        return self.for_rtx or self.version >= (10,)

    @property
    def reports_progress(self) -> bool:
        """The builder takes an IProgressMonitor."""
        return self.for_rtx or self.version >= (10,)

    @property
    def names_nodes(self) -> bool:
        """An error of the parser has the name and the operator of the node, not its number alone."""
        return self.for_rtx or self.version >= (10,)

    @property
    def same_compute_capability(self) -> bool:
        """It has the hardware compatibility level of that name."""
        return self.version >= (10, 9) and not self.for_rtx

    def targets(self) -> tuple[str, ...]:
        """Compute capabilities, as "8.6", that it builds for without such a GPU; none for TensorRT."""
        if not self.for_rtx:
            return ()
        numbers = (int(name[2:]) for name in self.module.ComputeCapability.__members__ if name[:2] == "SM")
        return tuple(f"{number // 10}.{number % 10}" for number in sorted(numbers))

    def target(self, compute_capability: str) -> Any:
        """The library's value for a compute capability; BackendError, with those it knows, for another."""
        if compute_capability not in self.targets():
            raise BackendError(
                f"{self.name} does not build for compute capability {compute_capability}: "
                f"choose of {', '.join(self.targets())}"
            )
        return self.module.ComputeCapability.__members__[f"SM{compute_capability.replace('.', '')}"]

    def said(self) -> str:
        """One line of what it has complained of since the last call, bounded, with the trouble named if known."""
        complaints = self.logger.take()
        for pattern, trouble in _GPU_TROUBLE:
            if re.search(pattern, complaints):
                return trouble
        return complaints[:400] or "it gave no reason"


@cache
def load_library(backend: TensorRTBackend) -> Library:
    """Import a library; BackendError, with the hint, when it is not there, cannot be loaded or is too old.

    One for each process, because the library keeps the first logger that it is given and ignores all others.
    """
    try:
        if backend == "tensorrt":
            import tensorrt as module
        else:
            import tensorrt_rtx as module
        version_text = str(module.__version__)
        logger = _logger(module)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        # A library that misses another one, or the registry's package without libraries, fails in all these ways.
        raise BackendError(
            f"{NAMES[backend]} cannot be imported ({_line(error)}): {_HINTS[backend]}"
        ) from error
    version = version_numbers(version_text)
    if backend == "tensorrt" and version < OLDEST:
        raise BackendError(
            f"TensorRT {version_text} is too old: edgead takes 8.6 or newer; {_HINTS[backend]}"
        )
    return Library(backend, module, version, version_text, logger)


def check_engine(library: Library, engine: bytes, name: str, rebuild: str) -> None:
    """Refuse what the library says it cannot open, before it is opened: BackendError with the reasons.

    engine: content of the file; its header is all that is looked at, so a file that is cut later passes: its length
    and hash in the manifest tell. name: of the file. rebuild: the command line that builds it anew. TensorRT for RTX
    alone can tell; what TensorRT cannot open fails when it is opened.

    Source: NVIDIA, "TensorRT-RTX documentation", Engine Compatibility, Compatibility Checks.
    """
    if not library.for_rtx:
        return
    trt = library.module
    library.said()
    validity, found = trt.Runtime(library.logger).get_engine_validity(engine)
    if validity != trt.EngineValidity.INVALID:
        return
    reasons = [
        reason
        for member, reason in (
            ("MALFORMED_ENGINE", "it is no engine of this library, or of another version"),
            ("VERSION_MISMATCH", "it is of another version"),
            ("UNSUPPORTED_CC", "it was not built for this GPU"),
            ("OLD_CUDA_DRIVER", "the NVIDIA driver is too old"),
            ("OLD_CUDA_RUNTIME", "the CUDA runtime is too old"),
            ("INSUFFICIENT_GPU_MEMORY", "the GPU has too little memory"),
        )
        if found & int(trt.EngineInvalidityDiagnostics.__members__[member])
    ]
    said = library.said()
    raise BackendError(
        f"{library.name} cannot open {name} ({', '.join(reasons) or said}): rebuild it with {rebuild}"
        if reasons
        else f"{library.name} cannot open {name}: {said}"
    )


def _logger(module: Any) -> Any:
    """A logger that keeps complaints and passes nothing on, of a class made for this module's base."""
    base: Any = module.ILogger

    class Logger(base):  # type: ignore[misc]
        """Called from the library's own threads; appending to a deque needs no lock."""

        def __init__(self) -> None:
            base.__init__(self)
            self.errors: deque[str] = deque(maxlen=20)
            self.warnings: deque[str] = deque(maxlen=20)
            self.heard: Callable[[str], object] = lambda line: None

        def log(self, severity: Any, message: str) -> None:
            line = _line(message)
            if severity in (base.INTERNAL_ERROR, base.ERROR):
                self.errors.append(line)
                self.heard(line)
            elif severity == base.WARNING:
                # 8.6 says in a warning that there is no driver, and fails without an error.
                self.warnings.append(line)

        def take(self) -> str:
            said = "; ".join(dict.fromkeys(self.errors or self.warnings))
            self.errors.clear()
            self.warnings.clear()
            return said

    return Logger()


def _line(said: object) -> str:
    return " ".join(str(said).split())[:300]
