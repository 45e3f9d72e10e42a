"""LZW and PackBits as TIFF uses them.

OpenCV's TIFF decoder returns the damaged part of LZW data as black pixels, so the data is decoded here. The width of
each code follows from its place after the last clear code, so NumPy reads all codes up to the next one at once.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgead.imaging.formats.pixels import DamagedImageError

_CLEAR, _END, _FIRST = 256, 257, 258
# Widths of the codes between two clear codes. TIFF widens a code one entry earlier than its table needs.
_WIDTHS = np.repeat(np.array([9, 10, 11, 12], np.int64), [254, 512, 1024, 2050])
_BEGINS = np.cumsum(_WIDTHS) - _WIDTHS

_Numbers = npt.NDArray[np.int64]


def unpack_lzw(data: bytes, expected: int) -> bytes:
    """Decode LZW data.

    Args:
        data: Compressed bytes of one strip or tile.
        expected: Number of decoded bytes that the image needs.

    Returns:
        At least `expected` bytes.

    Raises:
        DamagedImageError: A code is invalid, or the data ends too early.
    """
    padded = np.frombuffer(data + bytes(3), np.uint8).astype(np.int64)
    decoded, total, place = [], 0, 0
    while total < expected:
        positions = place + _BEGINS
        count = int(np.searchsorted(positions + _WIDTHS, 8 * len(data), "right"))
        positions, widths = positions[:count], _WIDTHS[:count]
        index = positions >> 3
        window = padded[index] << 16 | padded[index + 1] << 8 | padded[index + 2]
        codes = window >> (24 - (positions & 7) - widths) & ((1 << widths) - 1)
        stops = np.flatnonzero((codes == _CLEAR) | (codes == _END))
        length = int(stops[0]) if len(stops) else count
        section = _section(codes[:length])
        decoded.append(section)
        total += len(section)
        if not len(stops) or codes[length] == _END:
            break
        place = int(positions[length] + widths[length])
    if total < expected:
        raise DamagedImageError("its LZW data ends before its image does, or is damaged")
    return b"".join(decoded)


def _section(codes: _Numbers) -> bytes:
    """Decode the codes between two clear codes.

    Entry `258 + i` of the table is the output of code `i` and one more byte, so it is a range of the output itself:
    every byte of a code above 257 is a copy of an earlier byte.
    """
    numbers = np.arange(len(codes))
    copied = codes >= _FIRST
    entry = np.where(copied, codes - _FIRST, numbers)
    if np.any(copied & (entry >= numbers)):
        raise DamagedImageError("its LZW data is damaged")
    # The length of a code is the number of entries on its way to a plain byte. Each round doubles the steps.
    lengths, parent = copied.astype(np.int64), entry
    while np.any(parent != parent[parent]):
        lengths += lengths[parent]
        parent = parent[parent]
    lengths += 1
    ends = np.cumsum(lengths)
    begins = ends - lengths
    places = np.arange(int(ends[-1]) if len(ends) else 0)
    code = np.repeat(numbers, lengths)
    source = np.where(copied[code], begins[entry[code]] + places - begins[code], places)
    while np.any(source != (further := source[source])):
        source = further
    return codes.astype(np.uint8)[code[source]].tobytes()


def unpack_packbits(data: bytes, expected: int) -> bytes:
    """Decode PackBits data.

    Args:
        data: Compressed bytes of one strip or tile.
        expected: Number of decoded bytes that the image needs.

    Returns:
        At least `expected` bytes.

    Raises:
        DamagedImageError: The data ends too early.
    """
    decoded, place = bytearray(), 0
    while len(decoded) < expected and place + 1 < len(data):
        head = data[place]
        if head < 128:
            decoded += data[place + 1 : place + 2 + head]
            place += 2 + head
        else:
            if head > 128:
                decoded += data[place + 1 : place + 2] * (257 - head)
            place += 2 if head > 128 else 1
    if len(decoded) < expected:
        raise DamagedImageError("its PackBits data ends before its image does")
    return bytes(decoded)
