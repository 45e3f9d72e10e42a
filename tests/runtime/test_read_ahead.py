"""Reading ahead: order, errors, and that reading runs while the consumer works."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from edgead.runtime.read_ahead import BATCHES_AHEAD, read_ahead

WAIT_S = 30.0


def numbers(*sizes: int) -> Iterator[list[Callable[[], int]]]:
    """Batches of functions that return 0, 1, 2, ..."""
    start = 0
    for size in sizes:
        yield [partial(int, number) for number in range(start, start + size)]
        start += size


def test_results_are_in_the_order_of_the_batches() -> None:
    assert list(read_ahead(numbers(3, 1, 0, 2))) == [[0, 1, 2], [3], [], [4, 5]]
    assert list(read_ahead([])) == []


def test_the_next_batches_are_read_while_one_is_used() -> None:
    read = [threading.Event() for _ in range(BATCHES_AHEAD + 1)]
    found = read_ahead([event.set] for event in read)
    next(found)
    # The consumer works on the first batch, and asks for no other.
    assert all(event.wait(WAIT_S) for event in read)
    found.close()


def test_the_functions_of_a_batch_run_in_several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    both = threading.Barrier(2)
    (ranks,) = read_ahead([[partial(both.wait, WAIT_S)] * 2])
    assert sorted(ranks) == [0, 1]


def test_no_more_batches_are_taken_than_fit_ahead() -> None:
    taken = []

    def batches() -> Iterator[list[Callable[[], int]]]:
        for number in range(100):
            taken.append(number)
            yield [partial(int, number)]

    found = read_ahead(batches())
    assert [next(found), next(found)] == [[0], [1]]
    found.close()
    assert len(taken) <= 2 + BATCHES_AHEAD


def test_an_error_comes_after_the_batches_before_it() -> None:
    def fail() -> int:
        raise ZeroDivisionError

    found = read_ahead([[partial(int, 1)], [partial(int, 2), fail], [partial(int, 3)]])
    assert next(found) == [1]
    with pytest.raises(ZeroDivisionError):
        next(found)


def test_an_error_of_the_batches_comes_after_the_batches_before_it() -> None:
    def batches() -> Iterator[list[Callable[[], int]]]:
        yield [partial(int, 1)]
        raise ZeroDivisionError

    found = read_ahead(batches())
    assert next(found) == [1]
    with pytest.raises(ZeroDivisionError):
        next(found)


def test_a_consumer_that_ends_leaves_no_thread() -> None:
    before = threading.active_count()
    found = read_ahead(numbers(*[2] * 50))
    next(found)
    found.close()
    assert threading.active_count() == before
