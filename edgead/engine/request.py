"""The request for an engine, and the task of the process that compiles it.

`edgead.engine.tensorrt_build` writes an `EngineTask` as JSON to the standard input of `edgead.engine.tensorrt_worker`,
which reads it strictly. This module imports no library of a vendor.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgead.engine.settings import BatchProfile, TensorRTSettings
from edgead.runtime.tensorrt.engine_record import Head
from edgead.runtime.tensorrt.feature_record import FeatureRecord
from edgead.runtime.tensorrt.library import TensorRTBackend

MORE_MEMORY = "close other programs, because the system may have run out of memory"


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """Request for an engine.

    Attributes:
        backend: Library that compiles and runs the engine.
        precision: Precision of the graph. It is only recorded.
        target: Name of the target. It is only recorded.
        batch: Numbers of images that the engine takes.
        settings: Settings of the compiler.
        gpu: Compute capability of this machine's GPU, such as "8.6"; None without a GPU.
        head: Head that computes the anomaly map, see `EngineRecord`.
    """

    backend: TensorRTBackend
    precision: str
    target: str
    batch: BatchProfile
    settings: TensorRTSettings
    gpu: str | None
    head: Head = "standard"


@dataclass(frozen=True, slots=True)
class PluginLibrary:
    """A compiled plugin.

    Attributes:
        path: Path of the shared library.
        sha256: SHA-256 of the shared library, in hex.
    """

    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class EngineTask:
    """Task of a process that compiles one engine.

    Attributes:
        request: Request for the engine.
        graph: ONNX file in the form that the parser of the library takes.
        engine: File to write.
        timing_cache: File of measured timings, read and written; None for a library without a timing cache.
        plugin: Plugin with the head of the graph, which a version-compatible engine contains; None for another head.
        features: Outputs of a graph that ends in features; None for a graph that ends in map and score.
    """

    request: EngineRequest
    graph: Path
    engine: Path
    timing_cache: Path | None
    plugin: PluginLibrary | None
    features: FeatureRecord | None
