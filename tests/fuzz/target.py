"""One target of the fuzzer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.mutations import Mutation


@dataclass(frozen=True)
class Target:
    """A reader of untrusted input.

    Attributes:
        whole: Function that makes whole inputs in an empty folder.
        mutations: Mutations that make sense for this input.
        read: Function that reads an input; the folder is its own, and may have files of earlier cases.
        in_a_file: Whether a file holds the input, and not the command line: then an error is one printable line.
    """

    whole: Callable[[Path], Sequence[bytes]]
    mutations: Sequence[Mutation]
    read: Callable[[bytes, Path], object]
    in_a_file: bool = True
