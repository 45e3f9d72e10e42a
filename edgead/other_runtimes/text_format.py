"""Protobuf's text format, for a configuration that is written without the package protobuf."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

Message: TypeAlias = Mapping[str, Any]


class Literal(str):
    """A constant of an enumeration, such as ``TYPE_UINT8``: a text without quotation marks."""


def text_format(message: Message) -> str:
    """Write a message in the text format.

    Args:
        message: Values by the name of their field: a text, a number, a `Literal`, a mapping for a message, or a
            sequence for a field that is repeated.

    Returns:
        The text, one field a line.

    Example:
        >>> print(text_format({"name": "washer", "input": [{"data_type": Literal("TYPE_UINT8"), "dims": [32, 3]}]}))
        name: "washer"
        input {
          data_type: TYPE_UINT8
          dims: 32
          dims: 3
        }
        <BLANKLINE>
    """
    return "".join(f"{line}\n" for line in _lines(message))


def _lines(message: Message) -> Iterator[str]:
    for name, value in message.items():
        repeated = isinstance(value, Sequence) and not isinstance(value, str)
        for one in value if repeated else [value]:
            if isinstance(one, Mapping):
                yield f"{name} {{"
                yield from (f"  {line}" for line in _lines(one))
                yield "}"
            elif isinstance(one, str) and not isinstance(one, Literal):
                # Texts of a manifest are printable, so the escapes of JSON are those of the text format.
                yield f"{name}: {json.dumps(one, ensure_ascii=False)}"
            else:
                yield f"{name}: {one}"
