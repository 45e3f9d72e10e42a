"""What a source's or a sink's address says: ``kind:target?option=value&option=value``.

Sources and sinks are named by one string on the command line. Reading it lives here once, so that an unknown
option is refused in the same words everywhere and a password in a camera's address never reaches a log or a
results file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TypeVar
from urllib.parse import parse_qsl

from edgead.errors import InputError

T = TypeVar("T")


def split_options(target: str, known: Mapping[str, Callable[[str], T]]) -> tuple[str, dict[str, T]]:
    """Split ``target?name=value&...`` into the target and its options, each read by `known[name]`.

    A reader raises ValueError, with what it wants as the message, for a value that it refuses. Raises
    InputError for an unknown option, one given twice, or a refused value.
    """
    target, _, query = target.partition("?")
    options: dict[str, T] = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError:
        raise InputError(f"options {query!r} are not of the form name=value&name=value") from None
    for name, value in pairs:
        if name not in known or name in options:
            problem = "is given twice" if name in options else "is unknown"
            raise InputError(f"option {name!r} {problem}: the options here are {', '.join(known) or 'none'}")
        try:
            options[name] = known[name](value)
        except ValueError as error:
            raise InputError(f"option {name}={value}: {error}") from error
    return target, options


def number_in(kind: Callable[[str], float], low: float, high: float = float("inf")) -> Callable[[str], float]:
    """A reader of option values: a number of `kind` (int or float) from `low` to `high`."""
    wanted = f"must be {'an integer' if kind is int else 'a number'} of at least {low:g}"
    if high != float("inf"):
        wanted += f" and at most {high:g}"

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            raise ValueError(wanted) from None
        if not low <= value <= high or value == float("inf"):
            raise ValueError(wanted)
        return value

    return read


def without_password(uri: str) -> str:
    """The address as it may be logged and recorded: ``scheme://user:secret@host`` becomes ``scheme://***@host``."""
    # Up to the last @ before the path: a password may itself hold an @.
    return re.sub(r"^([A-Za-z][A-Za-z0-9+.-]*://)[^/]*@", r"\1***@", uri)
