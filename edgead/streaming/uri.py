"""Options in the addresses of sources and sinks: ``kind:target?option=value&option=value``.

All sources and sinks parse their options here, so that unknown options are rejected in the same way everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TypeVar
from urllib.parse import parse_qsl

from edgead.errors import InputError

T = TypeVar("T")
# A name up to a question mark that has no second one.
_NAME = re.compile(r"(?:[^?]|\?\?)*")


def split_options(target: str, known: Mapping[str, Callable[[str], T]]) -> tuple[str, dict[str, T]]:
    """Split ``FILE?name=value&...`` into the name of a file and its options.

    Options begin at a single ``?``. A ``?`` of the name itself is written ``??``, so that no name is cut unnoticed.

    Args:
        target: Address without its kind.
        known: Parser of the value by name of the option, see `read_options`.

    Returns:
        The name, and the parsed values of the options that are given.

    Raises:
        InputError: An option is unknown, is given twice, or has an invalid value, or nothing follows the ``?``.
    """
    found = _NAME.match(target)
    assert found is not None, "the pattern matches every text"
    name, query = found[0].replace("??", "?"), target[found.end() + 1 :]
    if found.end() == len(target):
        return name, {}
    try:
        return name, read_options(query, known)
    except InputError as error:
        raise InputError(error.what, hint=f"{error.hint}; write ?? for a ? in the name of a file") from error


def read_options(query: str, known: Mapping[str, Callable[[str], T]]) -> dict[str, T]:
    """Read options ``name=value&name=value``.

    Args:
        query: Text of the options.
        known: Parser of the value by name of the option. For an invalid value a parser raises ValueError with the
            expected values as its message.

    Returns:
        The parsed values of the options that are given.

    Raises:
        InputError: An option is unknown, is given twice, or has an invalid value, or there is none.
    """
    options: dict[str, T] = {}
    try:
        # A plus sign is no space here, because values may be names of files. Such names are bytes.
        text = query.replace("+", "%2B")
        pairs = (
            parse_qsl(text, keep_blank_values=True, strict_parsing=True, errors="surrogateescape")
            if query
            else []
        )
    except ValueError:
        pairs = []
    if not pairs:
        raise InputError(f"cannot parse the options {query!r}", hint="write name=value&name=value")
    for name, value in pairs:
        if name in options:
            raise InputError(f"option {name!r} is given twice", hint="give it once")
        if name not in known:
            hint = f"give one of {', '.join(known)}" if known else "leave it out"
            raise InputError(f"option {name!r} is unknown", hint=hint)
        try:
            options[name] = known[name](value)
        except ValueError as error:
            raise InputError(f"option {name}={value} is not usable", hint=str(error)) from error
    return options


def check_text(address: str, shown: str) -> None:
    """Check an address that goes to a library in C, which a byte that is no text may crash.

    Args:
        address: Address.
        shown: Address in errors, without secrets.

    Raises:
        InputError: The address is not text in UTF-8, or has a null character.
    """
    if "\0" in address or address.encode(errors="replace").decode() != address:
        raise InputError(f"{shown} is not text in UTF-8", hint="write it in UTF-8, without null characters")


def one_of(*values: str) -> Callable[[str], str]:
    """Make a parser of values that are listed, for `split_options`.

    Args:
        values: Accepted values.

    Returns:
        The parser. It raises ValueError, with the accepted values, for other text.
    """

    def read(text: str) -> str:
        if text not in values:
            raise ValueError(f"give {' or '.join(values)}")
        return text

    return read


def number_in(kind: Callable[[str], float], low: float, high: float = float("inf")) -> Callable[[str], float]:
    """Make a parser of numbers for `split_options`.

    Args:
        kind: `int` or `float`.
        low: Smallest value.
        high: Largest value; infinity for no limit, but the value itself must be finite.

    Returns:
        The parser. It raises ValueError, with the expected values, for other text.
    """
    wanted = f"give {'an integer' if kind is int else 'a number'} of at least {low:g}"
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
