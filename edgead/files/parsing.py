"""JSON and TOML between bytes and plain values: bounded and strict on the way in, finite and whole on the way out.

`edgead.files.records` turns the values into dataclasses.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

from edgead.files.atomic import replace_file

SHOWN_CHARACTERS = 80


class RecordError(ValueError):
    """A file or a value is not the record that was expected; the message names the key."""


def read_bounded(file: Path, max_bytes: int) -> bytes:
    """Read a file of limited size.

    Args:
        file: Path of the file.
        max_bytes: Largest size that is read.

    Returns:
        The content.

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
        max_bytes: Largest size that is parsed; characters for a text.

    Returns:
        The value: dict, list, str, int, float, bool or None. All numbers are finite.

    Raises:
        RecordError: If the content is too large, not UTF-8, not JSON, nested too deeply, has a key twice in one
            object, or a number that is not finite.
    """
    try:
        return json.loads(
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


def parse_toml(content: bytes | str, max_bytes: int) -> dict[str, Any]:
    """Parse TOML.

    Args:
        content: The text, or its UTF-8 bytes.
        max_bytes: Largest size that is parsed; characters for a text.

    Returns:
        The table. TOML has `nan` and `inf`; `record_from` refuses them.

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
    """Return a parsed value that must be an object.

    Raises:
        RecordError: If it is a list, a text, a number, a bool or None.
    """
    if not isinstance(value, dict):
        raise RecordError(f"it is {shown(value)}, not an object")
    return value


def json_text(value: Any, indent: int | None = 2) -> str:
    """Text of a JSON file: keys in the given order, paths as text, a newline at the end.

    Raises:
        ValueError: If a number is not finite.
        TypeError: If a value is not a JSON value.
    """
    return json.dumps(value, indent=indent, allow_nan=False, default=_plain) + "\n"


def write_json(file: Path, value: Any, indent: int | None = 2) -> None:
    """Write a JSON file, whole or not at all.

    Raises:
        ValueError: If a number is not finite.
        TypeError: If a value is not a JSON value.
        EdgeadError: If the file cannot be written.
    """
    text = json_text(value, indent)
    with replace_file(file) as partial:
        partial.write_text(text, encoding="utf-8")


def shown(value: Any) -> str:
    """A value as a message shows it: short, on one line, and safe for a value of any size."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, int) and value.bit_length() > 64:
        return f"a whole number of {value.bit_length()} bits"
    return repr(value[:SHOWN_CHARACTERS] if isinstance(value, str) else value)


def _plain(value: Any) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is no JSON value")


def _check_size(content: bytes | str, max_bytes: int) -> None:
    if len(content) > max_bytes:
        raise RecordError(f"it is larger than {max_bytes} bytes")


def _text(content: bytes | str, max_bytes: int) -> str:
    _check_size(content, max_bytes)
    if isinstance(content, str):
        return content
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecordError(f"it is not UTF-8: {error}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise RecordError(f"the key {shown(key)} is given twice")
        content[key] = value
    return content


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise RecordError(f"{text[:SHOWN_CHARACTERS]} is not a finite number")
    return number
