"""A run with a toy graph that needs no training, and plans of builds from it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgead.data import LoadedImages, Sample
from edgead.engine.fidelity import Tolerance
from edgead.engine.plan import Plan
from edgead.engine.precision_converter import (
    Calibrating,
    CandidatePrecision,
)
from edgead.engine.target import find_target
from edgead.imaging.preprocess import ModelSize
from edgead.runtime.onnxruntime import OnnxRuntimeSession
from tests.helpers.toy_graph import HEIGHT, WIDTH, toy_graph, toy_images
from tests.helpers.toy_run import PART, ToyRun

SIZE = ModelSize(HEIGHT, WIDTH)
GOOD = toy_images(12, seed=5)
# What TensorRT tries.
ORDER = find_target(None, "jetson-orin")[1].fallback_order
# Candidate precisions with INT8 layers.
INT8 = ("int8", "int8-sensitive-fp16", "int8-student")
NOTHING = Tolerance(0.0, 0.0, 1.0, 0.0, 0.0)
ANYTHING = Tolerance(10.0, 10.0, -1.0, 1.0, 1.0)
TARGET = replace(Plan().target, fallback_order=ORDER)


@dataclass
class GraphRun(ToyRun):
    """A run that exports this graph, which is also its reference."""

    size: ModelSize = SIZE
    graph: bytes = toy_graph().SerializeToString()

    def session(self) -> Any:
        return OnnxRuntimeSession(self.graph)

    def holdout_images(self) -> dict[str, LoadedImages]:
        return {PART: loaded(GOOD)}

    def training_images(self, count: int) -> LoadedImages:
        return loaded(toy_images(min(count, self.training_count), seed=6))


def loaded(images: np.ndarray, labels: Collection[int | None] = ()) -> LoadedImages:
    known = list(labels) or [0] * len(images)
    samples = tuple(Sample(Path(f"{i}.png"), label) for i, label in enumerate(known))
    return LoadedImages(images, samples, ())


def plan(folder: Path, *candidate_precisions: CandidatePrecision, **tolerances: Tolerance) -> Plan:
    target = replace(TARGET, tolerances=replace(TARGET.tolerances, **tolerances))
    return Plan(
        "cpu",
        target,
        candidate_precisions or target.fallback_order,
        Calibrating(cache=folder / "clipping_limits.json"),
    )
