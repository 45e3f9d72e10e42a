"""JSON and TOML: a strict reader with a size limit, and an atomic writer that accepts finite numbers only.

`edgead.files.records` turns the parsed values into dataclasses.
"""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from typing import Any

from edgead.files.atomic import replace_file
from edgead.text import path_text

MAX_DEPTH = 64
"""Deepest nesting of JSON. Code that copies or prints a value recurses into it, and Python limits the recursion."""

SHOWN_CHARACTERS = 80
"""Longest text of a file that a message shows."""


# Escapes of JSON: of one character, of a surrogate pair, and of a surrogate alone, which is no Unicode text.
_ESCAPES = re.compile(r"\\[^u]|\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}|\\ud(?P<alone>[89a-f][0-9a-f]{2})")


class RecordError(ValueError):
    """A file or a value is not the expected record. The message names the key."""


def read_bounded(file: Path, max_bytes: int) -> bytes:
    """Read a file of limited size.

    Args:
        file: Path of the file.
        max_bytes: Largest accepted size in bytes.

    Returns:
        Content of the file.

    Raises:
        RecordError: If the file is larger or cannot be read.
    """
    try:
        with open(file, "rb") as opened:
            content = opened.read(max_bytes + 1)
    except OSError as error:
        raise RecordError(f"it cannot be read: {error.strerror or error}") from error
    _check_size(content, max_bytes)
    return content


def parse_json(content: bytes | str, max_bytes: int) -> Any:
    """Parse strict JSON.

    Args:
        content: The text, or its UTF-8 bytes.
        max_bytes: Largest accepted size: bytes, or characters if `content` is a str.

    Returns:
        Parsed value: dict, list, str, int, float, bool or None. All numbers are finite.

    Raises:
        RecordError: If the content is too large, not UTF-8, not JSON, nested too deeply, has a key twice in one
            object, or a number that is not finite.
    """
    try:
        value = json.loads(
            _text(content, max_bytes),
            object_pairs_hook=_unique,
            parse_constant=_finite,
            parse_float=_finite,
        )
    except RecursionError as error:
        raise RecordError("it is not plain JSON: it is nested too deeply") from error
    except RecordError:
        raise
    except ValueError as error:
        raise RecordError(f"it is not plain JSON: {error}") from error
    _check_depth(value)
    return value


def parse_toml(content: bytes | str, max_bytes: int) -> dict[str, Any]:
    """Parse TOML.

    Args:
        content: The text, or its UTF-8 bytes.
        max_bytes: Largest accepted size: bytes, or characters if `content` is a str.

    Returns:
        Parsed table. TOML allows `nan` and `inf`; `record_from` refuses them.

    Raises:
        RecordError: If the content is too large, not UTF-8, not TOML or nested too deeply.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        table: dict[str, Any] = tomllib.loads(_text(content, max_bytes))
    except RecursionError as error:
        raise RecordError("it is not TOML: it is nested too deeply") from error
    except RecordError:
        raise
    except ValueError as error:
        raise RecordError(f"it is not TOML: {error}") from error
    return table


def check_object(value: Any) -> dict[str, Any]:
    """Check that a parsed value is an object.

    Args:
        value: Parsed JSON value.

    Returns:
        The same value.

    Raises:
        RecordError: If it is a list, a text, a number, a bool or None.
    """
    if not isinstance(value, dict):
        raise RecordError(f"it is {shown(value)}, not an object")
    return value


def json_text(value: Any, indent: int | None = 2) -> str:
    """Return the text of a JSON file.

    Args:
        value: JSON value; a `Path` is written as `path_text` of it.
        indent: Spaces for each level; None for one line.

    Returns:
        JSON text in ASCII, with the keys in the given order and a newline at the end. It has no control character
        but newlines, and every string is Unicode: a text from a file name that is not has escapes, as in `printable`.

    Raises:
        ValueError: If a number is not finite.
        TypeError: If a value is not a JSON value.
    """
    text = json.dumps(value, indent=indent, allow_nan=False, default=_plain)
    text = _ESCAPES.sub(_unicode, text).replace("\x7f", "\\u007f")
    return text + "\n"


def write_json(file: Path, value: Any, indent: int | None = 2) -> None:
    """Write a JSON file atomically.

    Args:
        file: Path of the file.
        value: JSON value; a `Path` is written as text.
        indent: Spaces for each level; None for one line.

    Raises:
        ValueError: If a number is not finite.
        TypeError: If a value is not a JSON value.
        EdgeadError: If the file cannot be written.
    """
    text = json_text(value, indent)
    with replace_file(file) as partial:
        partial.write_text(text, encoding="utf-8")


def shown(value: Any) -> str:
    """Return the text of a value for a message: short and on one line, whatever the size of the value.

    Args:
        value: Parsed JSON or TOML value.

    Returns:
        Text of at most about `SHOWN_CHARACTERS` visible characters; "an object" or "a list" for containers.
    """
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, int) and value.bit_length() > 64:
        return f"a whole number of {value.bit_length()} bits"
    return repr(value[:SHOWN_CHARACTERS] if isinstance(value, str) else value)


def _plain(value: Any) -> str:
    """Text of a path; every other value is refused."""
    if isinstance(value, Path):
        return path_text(value)
    raise TypeError(f"{type(value).__name__} is no JSON value")


def _unicode(escape: re.Match[str]) -> str:
    """Replace the escape of a surrogate alone by a visible one."""
    alone = escape["alone"]
    if alone is None:
        return escape[0]
    # PEP 383: a byte of a file name that is not UTF-8.
    is_byte = alone[0] == "c" and alone[1] in "89abcdef"
    return f"\\\\x{alone[1:]}" if is_byte else f"\\\\ud{alone}"


def _check_size(content: bytes | str, max_bytes: int) -> None:
    """Raise RecordError if the content is too large."""
    if len(content) > max_bytes:
        raise RecordError(f"it is larger than {max_bytes} bytes")


def _check_depth(value: Any) -> None:
    """Raise RecordError if lists and objects are nested deeper than `MAX_DEPTH`."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            item
            for outer in level
            if isinstance(outer, dict | list)
            for item in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise RecordError(f"it is not plain JSON: it is nested deeper than {MAX_DEPTH} levels")


def _text(content: bytes | str, max_bytes: int) -> str:
    """Decode UTF-8 after the check of the size."""
    _check_size(content, max_bytes)
    if isinstance(content, str):
        return content
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecordError(f"it is not UTF-8: {error}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of pairs; a key that occurs twice is refused."""
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise RecordError(f"the key {shown(key)} is given twice")
        content[key] = value
    return content


def _finite(text: str) -> float:
    """Parse a number; NaN and infinity are refused."""
    number = float(text)
    if not math.isfinite(number):
        raise RecordError(f"{text[:SHOWN_CHARACTERS]} is not a finite number")
    return number
