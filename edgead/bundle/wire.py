"""A reader of the protobuf wire format, for the structure of ONNX files without the package onnx.

It is stricter than protobuf. Protobuf skips unknown fields and merges a message that occurs twice, so two readers may
see two graphs in one file. Here an unknown field, a repeated singular field and another wire type are errors. Weights
are not copied: a field of bytes is a view of the content.

Source: Protocol Buffers documentation, "Encoding".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np

Kind = Literal["int", "float", "text", "bytes", "message", "ints", "floats", "texts", "messages"]
"""Type of a field. The plural ones may occur several times; "ints" and "floats" also as one packed field."""

_VARINT, _FIXED_64, _LENGTH, _FIXED_32 = 0, 1, 2, 5
_WIRE_TYPES: Mapping[Kind, tuple[int, ...]] = {
    "int": (_VARINT,),
    "float": (_FIXED_32,),
    "text": (_LENGTH,),
    "bytes": (_LENGTH,),
    "message": (_LENGTH,),
    "ints": (_VARINT, _LENGTH),
    "floats": (_FIXED_32, _LENGTH),
    "texts": (_LENGTH,),
    "messages": (_LENGTH,),
}

_REPEATED: tuple[Kind, ...] = ("ints", "floats", "texts", "messages")


class WireError(ValueError):
    """The bytes are not such a message."""


def fields_of(
    message: memoryview, known: Mapping[int, Kind], name: str
) -> Iterator[tuple[int, int | memoryview]]:
    """Read the fields of a message.

    Args:
        message: Content of the message, a view of bytes.
        known: Type of each field that may occur, by its number.
        name: Name of the message, for errors.

    Yields:
        Number and value of each field in turn: an int for a varint; a view for everything else, of the 4 bytes of a
        float, or of the content of a text, bytes, message or packed field.

    Raises:
        WireError: A field is unknown, has another wire type, is cut short, or is singular and occurs twice.
    """
    position, end, seen = 0, len(message), set[int]()
    while position < end:
        tag, position = _varint(message, position)
        number, wire_type = tag >> 3, tag & 7
        kind = known.get(number)
        if kind is None:
            raise WireError(f"{name} has the field {number}, which edgead does not write")
        if wire_type not in _WIRE_TYPES[kind]:
            raise WireError(f"field {number} of {name} has the wire type {wire_type}")
        if kind not in _REPEATED:
            if number in seen:
                raise WireError(f"field {number} of {name} is given twice")
            seen.add(number)
        if wire_type == _VARINT:
            value, position = _varint(message, position)
            yield number, value
            continue
        length = 4
        if wire_type == _LENGTH:
            length, position = _varint(message, position)
        if length > end - position:
            raise WireError(f"field {number} of {name} is cut short")
        yield number, message[position : position + length]
        position += length


def packed_ints(value: int | memoryview) -> list[int]:
    """Return the numbers of a field of kind "ints".

    Args:
        value: One number, or the content of a packed field.

    Returns:
        The numbers, as signed 64-bit integers.

    Raises:
        WireError: A number is cut short.
    """
    if isinstance(value, int):
        return [_signed(value)]
    numbers, position = [], 0
    while position < len(value):
        number, position = _varint(value, position)
        numbers.append(_signed(number))
    return numbers


def count_ints(value: int | memoryview) -> int:
    """Count the numbers of a field of kind "ints" without reading them.

    Args:
        value: One number, or the content of a packed field.
    """
    if isinstance(value, int):
        return 1
    # The last byte of a number, and no other, is below 0x80.
    return int(np.count_nonzero(np.frombuffer(value, np.uint8) < 0x80))


def printable_text(value: int | memoryview) -> str:
    """Return the text of a field. Runtimes put names of a graph into their messages, which go to terminals.

    Args:
        value: Content of the field.

    Raises:
        WireError: It is not UTF-8, or has a control character.
    """
    try:
        text = bytes(value).decode() if isinstance(value, memoryview) else ""
    except UnicodeDecodeError as error:
        raise WireError(f"a name is not UTF-8 ({error})") from error
    if not text.isprintable():
        raise WireError(f"the name {text[:80]!r} has control characters")
    return text


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """Read a number of at most 64 bits; return it and the position behind it."""
    value = shift = 0
    for byte in message[position : position + 10]:
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            if value >> 64:
                break
            return value, position
        shift += 7
    raise WireError("a number is cut short or has more than 64 bits")


def _signed(value: int) -> int:
    return value - 2**64 if value >> 63 else value
