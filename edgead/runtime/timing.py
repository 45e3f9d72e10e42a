"""Times a candidate on the GPU that shall run it, so that a build keeps the fastest one instead of guessing it."""

from __future__ import annotations

import time
from statistics import median

import numpy as np

from edgead.runtime.base import Session
from edgead.types import UInt8Array

WARM_UP = 10
RUNS = 100


def p50_ms(session: Session, images: UInt8Array, batch: int) -> float:
    """Measure the median wall time of one inference.

    The time starts with the images in host memory and ends with maps and scores in host memory.

    Args:
        session: Session to measure.
        images: (N, H, W, 3) uint8 RGB at the model's size, N >= 1. They are repeated to fill the batch.
        batch: Number of images in one inference.

    Returns:
        Median of `RUNS` inferences after `WARM_UP`, in milliseconds.

    Raises:
        BackendError: If the session fails.
    """
    filled = np.resize(images, (batch, *images.shape[1:]))
    taken_ms = []
    for _ in range(WARM_UP):
        session.infer(filled)
    for _ in range(RUNS):
        started = time.perf_counter()
        session.infer(filled)
        taken_ms.append(1e3 * (time.perf_counter() - started))
    return median(taken_ms)
