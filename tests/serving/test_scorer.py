"""Batches of the thread that scores."""

from __future__ import annotations

import asyncio
import threading

import pytest

from edgead.serving.scorer import Scorer


class Batches:
    """Scores numbers by their squares, and refuses a batch with a negative one. The first batch waits for `go`."""

    def __init__(self) -> None:
        self.go, self.started, self.sizes = threading.Event(), threading.Event(), list[int]()

    def __call__(self, numbers: list[int]) -> list[int]:
        self.sizes.append(len(numbers))
        self.started.set()
        assert self.go.wait(10)
        if min(numbers) < 0:
            raise ValueError(f"{min(numbers)} is negative")
        return [number**2 for number in numbers]


def scored(numbers: list[int], cancelled: set[int] = frozenset()) -> tuple[list[object], list[int]]:
    """Score numbers of which the first is a batch of its own, and the others wait; answers and sizes of the batches."""
    batches = Batches()

    async def run() -> list[object]:
        scorer = Scorer(batches, 3)
        first = asyncio.create_task(scorer(numbers[0]))
        await asyncio.to_thread(batches.started.wait, 10)
        others = [asyncio.create_task(scorer(number)) for number in numbers[1:]]
        await asyncio.sleep(0)
        for task, number in zip(others, numbers[1:], strict=True):
            if number in cancelled:
                task.cancel()
        await asyncio.sleep(0)
        batches.go.set()
        return await asyncio.wait_for(asyncio.gather(first, *others, return_exceptions=True), 10)

    return asyncio.run(run()), batches.sizes


def test_what_waits_is_one_batch_and_each_gets_its_own_answer():
    answers, sizes = scored([5, 1, 2, 3, 4])
    assert answers == [25, 1, 4, 9, 16]
    assert sizes == [1, 3, 1]


def test_an_error_ends_the_items_of_its_batch_alone():
    answers, sizes = scored([5, 1, -2, 3, 4])
    assert answers[0] == 25
    assert answers[4] == 16
    assert all(isinstance(answer, ValueError) for answer in answers[1:4])
    assert sizes == [1, 3, 1]


@pytest.mark.parametrize(("cancelled", "sizes"), [({2}, [1, 2, 1]), ({1, 2, 3}, [1, 1]), ({4}, [1, 3])])
def test_a_cancelled_item_is_not_scored(cancelled, sizes):
    answers, found = scored([5, 1, 2, 3, 4], cancelled)
    assert found == sizes
    for number, answer in zip([5, 1, 2, 3, 4], answers, strict=True):
        assert isinstance(answer, asyncio.CancelledError) if number in cancelled else answer == number**2
