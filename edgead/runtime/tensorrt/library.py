"""TensorRT and TensorRT for RTX as one library: the only file that imports either.

Both have nearly the same interface, so there is one path to build and one to run. The differences between the two, and
between the versions 8.6 to 11, are properties of `Library`; no other module checks a version. Attributes that only some
versions have were looked up in the bindings of 8.6.1 and in NVIDIA's sources of 10.0, 10.3, 10.9, 10.13, 10.16, 11.0
and 11.1.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args

from edgead.errors import BackendError, GraphRefusedError
from edgead.runtime.tensorrt.engine_record import version_numbers
from edgead.types import TensorSpec

TensorRTBackend = Literal["tensorrt", "tensorrt-rtx"]
TENSORRT_BACKENDS: tuple[TensorRTBackend, ...] = get_args(TensorRTBackend)

NAMES: dict[TensorRTBackend, str] = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT for RTX"}

OLDEST = (8, 6)
"""Oldest TensorRT version; older ones lack version and hardware compatibility, optimisation level and uint8 inputs."""

_HINTS: dict[TensorRTBackend, str] = {
    "tensorrt": "it comes with JetPack (make the environment with --system-site-packages), from NVIDIA's package index "
    "or in NVIDIA's TensorRT container",
    "tensorrt-rtx": "pip install 'edgead[tensorrt-rtx]'",
}
_DTYPES = {"UINT8": "uint8", "FLOAT": "float32", "HALF": "float16"}
# CUDA's error 35 means that the driver is too old or missing, error 100 that there is no GPU.
_GPU_TROUBLE = (
    (
        r"CUDA driver version is insufficient|\berror:? 35\b",
        "no NVIDIA driver, or one too old: install or update it",
    ),
    (
        r"no kernel image is available|\b(cudaE|e)rror:? 209\b",
        "it has no code for this NVIDIA GPU: install another version",
    ),
    (r"no CUDA-capable device|\b(cudaE|e)rror:? 100\b", "no NVIDIA GPU is visible to this process"),
)
_FULL_DISK = re.compile("No space left on device|Disk quota exceeded")


@dataclass(frozen=True, slots=True)
class Library:
    """A loaded library.

    Attributes:
        backend: Backend of the library: tensorrt or tensorrt-rtx.
        module: Python module of the vendor.
        version: Major, minor and patch number.
        version_text: Version as the module reports it.
        logger: Logger of this process, for every builder, runtime and parser.
    """

    backend: TensorRTBackend
    module: Any
    version: tuple[int, ...]
    version_text: str
    logger: Any

    @property
    def name(self) -> str:
        """Name and version of the library, for messages."""
        return f"{NAMES[self.backend]} {self.version_text}"

    @property
    def for_rtx(self) -> bool:
        """Whether this is TensorRT for RTX: it builds for GPUs that are absent, without plugins and timing cache."""
        return self.backend == "tensorrt-rtx"

    @property
    def strongly_typed(self) -> bool:
        """Whether the tensors of the graph set the precision; before 10, builder flags must allow a precision."""
        return self.for_rtx or self.version >= (10,)

    @property
    def reports_progress(self) -> bool:
        """Whether the builder takes an IProgressMonitor."""
        return self.for_rtx or self.version >= (10,)

    @property
    def names_nodes(self) -> bool:
        """Whether an error of the parser has the name and the operator of the node, and not only its number."""
        return self.for_rtx or self.version >= (10,)

    @property
    def same_compute_capability(self) -> bool:
        """Whether the library has the hardware compatibility level "same-compute-capability"."""
        return self.version >= (10, 9) and not self.for_rtx

    def targets(self) -> tuple[str, ...]:
        """List the compute capabilities that the library builds for without such a GPU.

        Returns:
            Compute capabilities such as "8.6", in ascending order; empty for TensorRT.
        """
        if not self.for_rtx:
            return ()
        numbers = (int(name[2:]) for name in self.module.ComputeCapability.__members__ if name[:2] == "SM")
        return tuple(f"{number // 10}.{number % 10}" for number in sorted(numbers))

    def target(self, compute_capability: str) -> Any:
        """Return the library's value for a compute capability.

        Args:
            compute_capability: Compute capability, such as "8.6".

        Returns:
            Member of the module's enum ComputeCapability.

        Raises:
            BackendError: If the library does not build for it; the hint lists the supported ones.
        """
        if compute_capability not in self.targets():
            raise BackendError(
                f"{self.name} does not build for compute capability {compute_capability}",
                hint=f"choose one of {', '.join(self.targets())}",
            )
        return self.module.ComputeCapability.__members__[f"SM{compute_capability.replace('.', '')}"]

    def tensors(self, engine: Any) -> tuple[list[TensorSpec], list[TensorSpec]]:
        """List the inputs and outputs of a deserialised engine.

        Args:
            engine: Engine of the module.

        Returns:
            Inputs in the order of the engine, and outputs by name. The number of images is None: it is free in every
            graph, even if the engine was built for one number only.
        """
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        specs = {}
        for name in names:
            dtype = engine.get_tensor_dtype(name).name
            shape = (None, *(int(length) for length in tuple(engine.get_tensor_shape(name))[1:]))
            specs[name] = TensorSpec(name, _DTYPES.get(dtype, dtype), shape)
        inputs = [
            specs[name] for name in names if engine.get_tensor_mode(name) == self.module.TensorIOMode.INPUT
        ]
        return inputs, [specs[name] for name in sorted(specs) if specs[name] not in inputs]

    def said(self) -> str:
        """Return the complaints of the library since the last call.

        Returns:
            One line of at most 400 characters: the cause if it is known, else the library's own errors or warnings.
        """
        complaints = self.logger.take()
        for pattern, trouble in _GPU_TROUBLE:
            if re.search(pattern, complaints):
                return trouble
        return complaints[:400] or "it gave no reason"

    def failure(self, what: str, hint: str) -> BackendError:
        """Make the error of a compiler that failed on a graph, with the complaints of the library since the last call.

        Args:
            what: Description of the failure, without the name of the library.
            hint: Description of the fix, if this graph is the cause.

        Returns:
            BackendError if the machine is the cause (driver, GPU, disk), because then every other graph fails too, and
            GraphRefusedError otherwise.
        """
        said = self.said()
        machine = said in {trouble for _, trouble in _GPU_TROUBLE} or _FULL_DISK.search(said)
        kind = BackendError if machine else GraphRefusedError
        return kind(
            f"{self.name} {what} ({said})", hint="check the GPU with 'edgead doctor'" if machine else hint
        )


@cache
def load_library(backend: TensorRTBackend) -> Library:
    """Import a library.

    There is one `Library` for each process, because the vendor's library keeps its first logger and ignores others.

    Args:
        backend: Backend of the library: tensorrt or tensorrt-rtx.

    Returns:
        The loaded library.

    Raises:
        BackendError: If the library is not installed, cannot be loaded, or is too old.
    """
    try:
        if backend == "tensorrt":
            import tensorrt as module
        else:
            import tensorrt_rtx as module
        version_text = str(module.__version__)
        logger = _logger(module)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        # These are the errors of a library without its dependencies, and of the PyPI package without the libraries.
        raise BackendError(
            f"{NAMES[backend]} cannot be imported ({_line(error)})", hint=_HINTS[backend]
        ) from error
    version = version_numbers(version_text)
    if backend == "tensorrt" and version < OLDEST:
        raise BackendError(
            f"TensorRT {version_text} is too old", hint=f"install 8.6 or newer; {_HINTS[backend]}"
        )
    return Library(backend, module, version, version_text, logger)


def check_engine(library: Library, engine: bytes, name: str, rebuild: str) -> None:
    """Ask TensorRT for RTX whether it can open an engine; TensorRT has no such check and fails later.

    The library reads only the header. A file that is cut behind it passes here, and fails by its length and hash in
    the manifest.

    Source: NVIDIA, "TensorRT-RTX documentation", Engine Compatibility, Compatibility Checks.

    Args:
        library: Library that shall open the engine.
        engine: Content of the engine file.
        name: Name of the file, for messages.
        rebuild: Command line that rebuilds the engine.

    Raises:
        BackendError: If the library cannot open the engine; the message has the reasons.
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
            ("VERSION_MISMATCH", "it was built by another version"),
            ("UNSUPPORTED_CC", "it was not built for this GPU"),
            ("OLD_CUDA_DRIVER", "the NVIDIA driver is too old"),
            ("OLD_CUDA_RUNTIME", "the CUDA runtime is too old"),
            ("INSUFFICIENT_GPU_MEMORY", "the GPU has too little memory"),
        )
        if found & int(trt.EngineInvalidityDiagnostics.__members__[member])
    ]
    said = library.said()
    raise BackendError(
        f"{library.name} cannot open {name} ({', '.join(reasons) or said})",
        hint=f"rebuild it with {rebuild}" if reasons else None,
    )


def _logger(module: Any) -> Any:
    """Create a logger that stores errors and warnings and prints nothing; its class derives from the module's."""
    base: Any = module.ILogger

    class Logger(base):  # type: ignore[misc]
        """A logger that the library calls from its own threads; appending to a deque needs no lock."""

        def __init__(self) -> None:
            base.__init__(self)
            self.errors: deque[str] = deque(maxlen=20)
            self.warnings: deque[str] = deque(maxlen=20)
            self.heard: Callable[[str], object] = lambda line: None
            self.verbose: Callable[[str], object] = lambda message: None

        def log(self, severity: Any, message: str) -> None:
            if severity == base.VERBOSE:
                self.verbose(message)
                return
            line = _line(message)
            if severity in (base.INTERNAL_ERROR, base.ERROR):
                self.errors.append(line)
                self.heard(line)
            elif severity == base.WARNING:
                # 8.6 reports a missing driver in a warning, and fails without an error.
                self.warnings.append(line)

        def take(self) -> str:
            said = "; ".join(dict.fromkeys(self.errors or self.warnings))
            self.errors.clear()
            self.warnings.clear()
            return said

    return Logger()


def _line(said: object) -> str:
    """Return the text of an object in one line of at most 300 characters."""
    return " ".join(str(said).split())[:300]
