"""From a graph to what will run it on the target, and a session that shows how it decides.

On ONNX Runtime the graph is what runs. For TensorRT an engine is compiled; where this machine's GPU can run it, the
engine itself is judged. Where it cannot, because it was built for another GPU, the graph is judged on ONNX Runtime in
its place and the candidate says that the engine is still to be verified: by the device, at its start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgead.engine.lower import Lowered
from edgead.engine.plan import Plan
from edgead.preprocess import ModelSize
from edgead.runtime.base import Session
from edgead.runtime.onnxruntime import OnnxRuntimeSession


@dataclass(frozen=True, slots=True)
class Candidate:
    """A session, the files that a bundle needs beside the graph, and whether that session is what the target runs."""

    session: Session
    files: Mapping[str, Path | bytes]
    verified: bool


@contextmanager
def open_candidate(
    lowered: Lowered, plan: Plan, size: ModelSize, directory: Path, progress: Callable[[str], None]
) -> Iterator[Candidate]:
    """Build what the plan's backend runs, and open it.

    lowered: the graph. size: of its pictures. directory: to write an engine to; it must outlive the files. progress:
    called with lines of what is done. Raises BackendError when the library is missing, refuses the graph or fails.
    """
    backend = plan.recipe.backend
    if backend == "onnxruntime" or plan.recipe.tensorrt is None:
        with OnnxRuntimeSession(lowered.model, size=size) as session:
            yield Candidate(session, {}, verified=True)
        return
    raise NotImplementedError
