"""Reading of images in parallel with inference: while one batch is scored, the next ones are read.

Image decoders and resizing release Python's interpreter lock, so threads are enough.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

BATCHES_AHEAD = 2
"""Number of batches that are read while one is scored. More would take memory and save no time."""


def read_ahead(batches: Iterable[Sequence[Callable[[], T]]]) -> Generator[list[T], None, None]:
    """Call the functions of batches in threads, ahead of the consumer.

    The batches are taken from the iterable in one thread, so that a video is decoded there. The functions of a batch
    are called in several threads.

    Args:
        batches: Batches of functions that read one image each.

    Yields:
        Results of the functions of a batch, in the order of the batches and the functions.

    Raises:
        BaseException: The error of a function or of the iterable, after all batches before it.
    """
    source = iter(batches)
    with (
        ThreadPoolExecutor(1, "edgead-batches") as feeder,
        ThreadPoolExecutor(len(os.sched_getaffinity(0)), "edgead-read") as readers,
    ):

        def start_next() -> list[Future[T]] | None:
            batch = next(source, None)
            return None if batch is None else [readers.submit(read) for read in batch]

        started = deque(feeder.submit(start_next) for _ in range(BATCHES_AHEAD))
        try:
            while (futures := started.popleft().result()) is not None:
                started.append(feeder.submit(start_next))
                yield [future.result() for future in futures]
        finally:
            # After an error, images that wait are not read.
            feeder.shutdown(cancel_futures=True)
            readers.shutdown(cancel_futures=True)
