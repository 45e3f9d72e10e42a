"""What is asked of an engine: by whoever wants one, and of the process that compiles it.

`edgead.engine.tensorrt_build` writes an `EngineTask` as JSON to the standard input of `edgead.engine.tensorrt_worker`,
which reads it strictly. Knows no vendor's library.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgead.engine.settings import BatchProfile, TensorRTSettings
from edgead.runtime.tensorrt.engine_record import Head
from edgead.runtime.tensorrt.feature_record import FeatureRecord
from edgead.runtime.tensorrt.library import TensorRTBackend


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """The engine that is wanted.

    Attributes:
        backend: Library that compiles and runs it.
        precision: Precision of the graph, for the record; nothing is chosen by it.
        target: Name of the target, for the record.
        batch: Numbers of images that it takes.
        settings: How it is compiled.
        gpu: Compute capability of this machine's GPU, as "8.6"; None where there is none.
        head: What computes the anomaly map, see `EngineRecord`.
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
    """A compiled plugin: its path, and its SHA-256 in hex."""

    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class EngineTask:
    """The work of one process.

    Attributes:
        request: The engine that is wanted.
        graph: ONNX file that the library's parser takes.
        engine: File to write.
        timing_cache: File of measured timings, read and written; None for a library without one.
        plugin: Library that holds the graph's head; a version-compatible engine carries it. None for another head.
        features: What the graph gives where it ends in features; None where it gives map and score.
    """

    request: EngineRequest
    graph: Path
    engine: Path
    timing_cache: Path | None
    plugin: PluginLibrary | None
    features: FeatureRecord | None
