"""The thread that scores: it takes what waits as one batch as soon as the last batch is scored."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Scorer(Generic[Item, Answer]):
    """Scores single items in batches.

    The thread needs no turn of the event loop between two batches, which took some milliseconds after each one
    (`ray.serve.batch`, [serve.md](../../benchmarks/results/serve.md)).

    Args:
        score: Function that gives the answers to the items of a batch, in order. It is called in one thread.
        size: Most items of a batch.
    """

    def __init__(self, score: Callable[[list[Item]], Sequence[Answer]], size: int) -> None:
        self._score, self._size = score, size
        self._waiting: queue.SimpleQueue[tuple[Item, asyncio.Future[Answer]]] = queue.SimpleQueue()
        # It ends with the process, which ends when nothing waits any more.
        threading.Thread(target=self._run, name="edgead-score", daemon=True).start()

    async def __call__(self, item: Item) -> Answer:
        """Score an item together with those that wait.

        Args:
            item: Item to score.

        Raises:
            Exception: What `score` raised for the batch.
        """
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.put((item, future))
        return await future

    def _run(self) -> None:
        while True:
            batch = [self._waiting.get()]
            while len(batch) < self._size and not self._waiting.empty():
                batch.append(self._waiting.get())
            # Nobody waits for an item that was cancelled.
            if not (batch := [one for one in batch if not one[1].cancelled()]):
                continue
            futures = [future for _, future in batch]
            try:
                answers = list(self._score([item for item, _ in batch]))
            except Exception as error:
                futures[0].get_loop().call_soon_threadsafe(_fail, futures, error)
            else:
                futures[0].get_loop().call_soon_threadsafe(_answer, futures, answers)


def _fail(futures: list[asyncio.Future[Answer]], error: Exception) -> None:
    """End futures with an error. One may have been cancelled meanwhile."""
    for future in futures:
        if not future.done():
            future.set_exception(error)


def _answer(futures: list[asyncio.Future[Answer]], answers: list[Answer]) -> None:
    """End futures with their answers. One may have been cancelled meanwhile."""
    for future, answer in zip(futures, answers, strict=True):
        if not future.done():
            future.set_result(answer)
