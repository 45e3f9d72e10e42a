"""The one strict reader of records, from parsed JSON or TOML to frozen dataclasses, and the one clock.

Every record is untrusted: a bundle or a run may come from anyone, and a file may be truncated or edited by hand. So
a record is a frozen dataclass, and a file is either read completely or refused: the size is limited, the text is UTF-8,
no key occurs twice, every number is finite, every key is known and none is missing, and every value has exactly the
type of its field. The caller chooses the error class and the hint with `record_errors`.

Example:
    >>> from dataclasses import dataclass
    >>> from edgead.files.parsing import parse_json
    >>> @dataclass(frozen=True)
    ... class Crop:
    ...     width_px: int
    ...     scale: float = 1.0
    >>> record_from(Crop, parse_json('{"width_px": 3}', 100), defaults=True)
    Crop(width_px=3, scale=1.0)
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, Field, fields, is_dataclass
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from edgead.errors import EdgeadError, InputError
from edgead.files.parsing import SHOWN_CHARACTERS, RecordError, shown
from edgead.text import path_from_text

T = TypeVar("T")


@contextmanager
def record_errors(error: type[EdgeadError], what: str, hint: str) -> Iterator[None]:
    """Translate every refused record of the block into the caller's error class.

    Args:
        error: Error class to raise.
        what: Start of the message, such as "engine.json is no record of an engine".
        hint: How to fix it.

    Raises:
        EdgeadError: If the block raises RecordError, another ValueError, InputError or RecursionError. The instance
            is of the class `error`.
    """
    try:
        yield
    except (ValueError, InputError, RecursionError) as problem:
        raise error(f"{what} ({problem})", hint=hint) from problem


def record_from(kind: type[T], value: Any, where: str = "", *, defaults: bool = False) -> T:
    """Convert a parsed value into a frozen dataclass, or into any other type that its fields may have.

    Types of fields: str, int, float, bool, None, Any, Path (written as `path_text`), Literal, dataclasses, `X | None`,
    `tuple[X, ...]`, `tuple[X, Y]`, `Mapping[str, X]` and `dict[str, X]`. Types are exact: true is not 1, and 1.0 is
    not an int. The one exception: a whole number is accepted for a float and converted.

    Args:
        kind: Dataclass or other type of the result.
        value: Result of `parse_json` or `parse_toml`, or a value inside of it.
        where: Name of the value in messages; empty for the whole record.
        defaults: Whether a missing key takes the default of its field. Otherwise every key is required.

    Returns:
        Instance of `kind`. A field of type `Any` keeps the parsed value.

    Raises:
        RecordError: If a key is unknown or missing, a value has another type, or the dataclass refuses its values
            with ValueError or InputError. The message names the key.
    """
    found: T = _value(kind, value, where, defaults)
    return found


def utc_now(timespec: Literal["seconds", "milliseconds"] = "seconds") -> str:
    """Return the current time in UTC.

    Args:
        timespec: Precision of the text.

    Returns:
        ISO 8601 text, such as "2026-01-31T12:00:00+00:00".
    """
    return datetime.now(timezone.utc).isoformat(timespec=timespec)


def _value(kind: Any, value: Any, where: str, defaults: bool) -> Any:
    """Check one value against one type, and convert it."""
    origin = get_origin(kind)
    if kind is Any:
        return value
    if origin in (Union, UnionType):
        return _optional(kind, value, where, defaults)
    if origin is Literal:
        choices = get_args(kind)
        if not any(type(value) is type(choice) and value == choice for choice in choices):
            raise RecordError(f"{_named(where)} is {shown(value)}, not one of {', '.join(map(str, choices))}")
        return value
    if origin is tuple:
        return _tuple(get_args(kind), value, where, defaults)
    if origin in (dict, Mapping):
        return _mapping(get_args(kind)[1], value, where, defaults)
    if is_dataclass(kind):
        return _record(kind, value, where, defaults)
    return _scalar(kind, value, where)


def _scalar(kind: Any, value: Any, where: str) -> Any:
    """Check a value against str, int, float, bool or Path."""
    # The exact type, because in Python True is an int too.
    found = type(value)
    if kind is float and found in (int, float):
        # Compare before the conversion, because JSON allows whole numbers that no float can hold.
        if not abs(value) <= sys.float_info.max:
            raise RecordError(f"{_named(where)} is {shown(value)}, not a finite number")
        return float(value)
    if found is not (str if kind is Path else kind):
        raise RecordError(f"{_named(where)} is {shown(value)}, not of type {kind.__name__}")
    if found is str and not _is_unicode(value):
        raise RecordError(f"{_named(where)} is {shown(value)}, which is no Unicode text")
    return Path(path_from_text(value)) if kind is Path else value


def _is_unicode(text: str) -> bool:
    """Whether a text has no single half of a surrogate pair, which JSON can encode and no output can print."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _optional(kind: Any, value: Any, where: str, defaults: bool) -> Any:
    """Check a value against `X | None`."""
    (other,) = (one for one in get_args(kind) if one is not NoneType)
    return None if value is None else _value(other, value, where, defaults)


def _tuple(kinds: tuple[Any, ...], value: Any, where: str, defaults: bool) -> tuple[Any, ...]:
    """Check a list against `tuple[X, ...]` or `tuple[X, Y]`."""
    if type(value) is not list:
        raise RecordError(f"{_named(where)} is {shown(value)}, not a list")
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(value) != len(kinds):
        raise RecordError(f"{_named(where)} has {len(value)} entries, not {len(kinds)}")
    pairs = enumerate(zip(kinds, value, strict=True))
    return tuple(_value(one, item, f"{where}[{index}]", defaults) for index, (one, item) in pairs)


def _mapping(kind: Any, value: Any, where: str, defaults: bool) -> dict[str, Any]:
    """Check an object against `Mapping[str, kind]`."""
    if type(value) is not dict:
        raise RecordError(f"{_named(where)} is {shown(value)}, not an object")
    return {
        _scalar(str, key, f"a key of {where}"): _value(kind, item, _below(where, key), defaults)
        for key, item in value.items()
    }


def _record(kind: Any, value: Any, where: str, defaults: bool) -> Any:
    """Check an object against a dataclass and make an instance."""
    if type(value) is not dict:
        raise RecordError(f"{_named(where)} is {shown(value)}, not an object")
    known = {entry.name: entry for entry in fields(kind) if entry.init}
    for key in value:
        if key not in known:
            raise RecordError(f"{_named(where)} has the unknown key {shown(key)}")
    for key, entry in known.items():
        if key not in value and not (defaults and _has_default(entry)):
            raise RecordError(f"{_named(where)} has no key {key!r}")
    hints = _hints(kind)
    # In the order of the fields, so that the same file always gives the same message.
    values = {
        key: _value(hints[key], value[key], _below(where, key), defaults) for key in known if key in value
    }
    try:
        return kind(**values)
    except RecordError:
        raise
    except (ValueError, InputError) as error:
        raise RecordError(f"{_named(where)}: {error}" if where else str(error)) from error


@cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    """Types of the fields of a dataclass."""
    return get_type_hints(kind)


def _has_default(entry: Field[Any]) -> bool:
    """Whether a field has a default or a default factory."""
    return entry.default is not MISSING or entry.default_factory is not MISSING


def _below(where: str, key: str) -> str:
    """Dotted name of a key for messages."""
    key = key[:SHOWN_CHARACTERS]
    return f"{where}.{key}" if where else key


def _named(where: str) -> str:
    """Quoted name of a value for messages; "it" for the whole record."""
    return repr(where) if where else "it"
