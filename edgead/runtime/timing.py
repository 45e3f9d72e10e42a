"""Wall times of a session, for the choice between candidates on a GPU and for the comparison of methods."""

from __future__ import annotations

import time

from edgead.runtime.base import Session
from edgead.types import UInt8Array


def inference_times_ms(session: Session, images: UInt8Array, *, warm_up: int, runs: int) -> list[float]:
    """Measure the wall time of inferences of one batch.

    A time starts with the images in host memory and ends with maps and scores in host memory.

    Args:
        session: Session to measure.
        images: (N, H, W, 3) uint8 RGB at the model's size: the batch of each inference.
        warm_up: Number of inferences before the measured ones.
        runs: Number of measured inferences.

    Returns:
        Time of each measured inference in milliseconds.

    Raises:
        BackendError: If the session fails.
    """
    for _ in range(warm_up):
        session.infer(images)
    taken_ms = []
    for _ in range(runs):
        started_at = time.perf_counter()
        session.infer(images)
        taken_ms.append(1e3 * (time.perf_counter() - started_at))
    return taken_ms
