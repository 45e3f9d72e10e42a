"""A short run of the fuzzer in this process, one process of its own, and failures that it must find."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgead.errors import BundleError, EdgeadError
from tests.fuzz.__main__ import fuzz
from tests.fuzz.mutations import BYTES
from tests.fuzz.targets import TARGETS, Target
from tests.fuzz.worker import case, failure_of

CASES = 25


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_input_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    whole = list(target.whole(tmp_path))
    for data in whole:
        assert failure_of(target, data, tmp_path) is None
    for number in range(CASES):
        failure = failure_of(target, case(target, whole, name, 1, number), tmp_path)
        assert failure is None, f"python -m tests.fuzz --target {name} --seed 1 --case {number}: {failure}"


def test_a_case_follows_from_its_number() -> None:
    target = TARGETS["address"]
    whole = list(target.whole(Path()))
    first = [case(target, whole, "address", 1, number) for number in range(50)]
    assert first == [case(target, whole, "address", 1, number) for number in range(50)]
    assert len(set(first)) > 40


def test_cases_run_in_a_process_of_their_own() -> None:
    assert fuzz("engine", seed=1, seconds=0.0, first=7, most=1) == (1, {})


def saying(text: str) -> BundleError:
    """An error with this text as it is: its class makes every text printable."""
    error = BundleError("")
    error.args = (text,)
    return error


def raising(error: BaseException, cause: BaseException | None = None) -> Callable[[bytes, Path], None]:
    def read(data: bytes, folder: Path) -> None:
        raise error from cause

    return read


@pytest.mark.parametrize(
    ("read", "kind"),
    [
        (raising(KeyError("x")), "KeyError"),
        (raising(MemoryError()), "MemoryError"),
        (raising(RecursionError()), "RecursionError"),
        (raising(SystemExit(1)), "SystemExit"),
        (raising(saying("a\nb")), "no printable line"),
        (raising(saying("\x1b[2J")), "no printable line"),
        (raising(BundleError("x", hint="y" * 3000)), "no printable line"),
        (raising(EdgeadError("it failed"), MemoryError()), "out of memory"),
    ],
)
def test_other_errors_are_failures(read: Callable[[bytes, Path], None], kind: str, tmp_path: Path) -> None:
    failure = failure_of(Target(lambda folder: [b""], BYTES, read), b"", tmp_path)
    assert failure is not None
    assert kind in failure[0]


def test_an_error_of_one_line_and_an_accepted_input_are_none(tmp_path: Path) -> None:
    for read in (raising(BundleError("it is damaged", hint="rebuild it")), lambda data, folder: None):
        assert failure_of(Target(lambda folder: [b""], BYTES, read), b"", tmp_path) is None
