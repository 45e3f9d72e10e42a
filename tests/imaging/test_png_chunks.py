"""PNG files whose chunks are damaged, misplaced or unusual: refused, or read without a word of libpng."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from edgead.errors import ImageError
from edgead.imaging.decode import image_from_bytes
from tests.imaging.matrix_files import chunk, png, smooth

GREY, RGB, INDEX, RGBA = smooth(255, 1), smooth(255, 3), smooth(3, 1), smooth(255, 4)
COLOURS = np.random.default_rng(0).integers(0, 256, (4, 3), np.uint8)
PALETTE, SHORT = chunk(b"PLTE", COLOURS.tobytes()), chunk(b"PLTE", COLOURS[:2].tobytes())
CLEAR = chunk(b"tRNS", b"\1\2" * 3)
IHDR = slice(8, 8 + 25)


def late(data: bytes, *extra: bytes) -> bytes:
    """The file with chunks behind its pixels."""
    return data[:-12] + b"".join(extra) + data[-12:]


def header(data: bytes, place: int, value: int) -> bytes:
    """The file with another byte in its header."""
    content = bytearray(data[16:29])
    content[place] = value
    return data[:8] + chunk(b"IHDR", bytes(content)) + data[33:]


def pixels_of(data: bytes) -> tuple[int, bytearray]:
    """The place where the chunks of the pixels begin, up to the end of the file, and their inflated content."""
    place = start = data.index(b"IDAT") - 4
    compressed = b""
    while data[place + 4 : place + 8] == b"IDAT":
        (length,) = struct.unpack(">I", data[place : place + 4])
        compressed += data[place + 8 : place + 8 + length]
        place += 12 + length
    return start, bytearray(zlib.decompress(compressed))


def stream(data: bytes, change: int | bytes = b"", tail: bytes = b"") -> bytes:
    """The file with bytes behind its pixels, or with another filter in its last row."""
    start, inflated = pixels_of(data)
    if isinstance(change, int):
        inflated[len(inflated) * (GREY.shape[0] - 1) // GREY.shape[0]] = change
    else:
        inflated += change
    return data[:start] + chunk(b"IDAT", zlib.compress(bytes(inflated)) + tail) + data[-12:]


def grey(extra: bytes = b"") -> bytes:
    return png(GREY, 8, 0, extra)


def rgb(extra: bytes = b"") -> bytes:
    return png(RGB, 8, 2, extra)


def index(extra: bytes = b"") -> bytes:
    return png(INDEX, 8, 3, extra)


REFUSED = {
    "no palette": index(),
    "a palette behind the pixels": late(index(), PALETTE),
    "an empty palette": index(chunk(b"PLTE", b"")),
    "a palette of no whole colours": index(chunk(b"PLTE", b"ab")),
    "a palette of 257 colours": index(chunk(b"PLTE", bytes(3 * 257))),
    "two palettes": index(PALETTE + PALETTE),
    "transparency before the palette": index(chunk(b"tRNS", b"\1") + PALETTE),
    "transparency of more colours": index(PALETTE + chunk(b"tRNS", bytes(5))),
    "empty transparency": index(PALETTE + chunk(b"tRNS", b"")),
    "short transparency": rgb(chunk(b"tRNS", bytes(5))),
    "transparency of another kind": grey(CLEAR),
    "transparency twice": rgb(CLEAR + CLEAR),
    "transparency behind the pixels": late(rgb(), CLEAR),
    "another compression": header(grey(), 10, 1),
    "another filter": header(grey(), 11, 64),
    "another interlace": header(grey(), 12, 2),
    "3 bits": header(grey(), 8, 3),
    "RGB of 4 bits": header(rgb(), 8, 4),
    "a palette of 16 bits": header(index(PALETTE), 8, 16),
    "colour type 1": header(grey(), 9, 1),
    "two headers": grey(grey()[IHDR]),
    "a header behind another chunk": grey()[:8] + PALETTE + grey()[8:],
    "a long header": grey()[:8] + chunk(b"IHDR", grey()[16:29] + b"x") + grey()[33:],
    "an unknown critical chunk": grey(chunk(b"ABCD", b"")),
    "one behind the pixels": late(grey(), chunk(b"ABCD", b"")),
    "more pixels than the image has": stream(grey(), b"\0" * 9),
    "an unknown filter of a row": stream(grey(), 5),
    "a side that is too long": header(header(grey(), 1, 16), 3, 0),
}
READ = {
    "a palette of few colours": (index(SHORT), None),
    "a palette of more colours than the depth has": (
        png(INDEX, 2, 3, chunk(b"PLTE", COLOURS.tobytes() * 2)),
        COLOURS[INDEX[..., 0]],
    ),
    "a suggested palette": (rgb(PALETTE), RGB),
    "a damaged suggested palette": (rgb(chunk(b"PLTE", b"ab")), RGB),
    "a palette of a grey image": (grey(PALETTE), np.repeat(GREY, 3, 2)),
    "a transparent colour beyond the depth": (rgb(chunk(b"tRNS", b"\xff" * 6)), RGB),
    "transparency beside opacity": (png(RGBA, 8, 6, CLEAR), None),
    "a damaged orientation": (rgb(chunk(b"eXIf", b"zz")), RGB),
    "two orientations": (rgb(chunk(b"eXIf", b"II*\0" + bytes(8)) * 2), RGB),
    "bytes behind the pixels": (stream(rgb(), tail=b"junk"), RGB),
    "an empty chunk of pixels": (late(rgb(), chunk(b"IDAT", b"")), RGB),
    "a long end": (rgb()[:-12] + chunk(b"IEND", b"x"), RGB),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_and_libpng_prints_nothing(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ImageError):
        image_from_bytes(REFUSED[name], "a.png")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", READ)
def test_it_is_read_and_libpng_prints_nothing(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    data, expected = READ[name]
    image = image_from_bytes(data, "a.png")
    assert capfd.readouterr() == ("", "")
    if expected is not None:
        np.testing.assert_array_equal(image, expected)


def test_an_index_outside_of_the_palette_is_black() -> None:
    # As the specification recommends.
    black = np.concatenate([COLOURS[:2], np.zeros((2, 3), np.uint8)])
    np.testing.assert_array_equal(image_from_bytes(index(SHORT), "a.png"), black[INDEX[..., 0]])


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("depth", [1, 8, 16])
def test_the_filter_of_every_row_is_checked(depth: int, interlaced: bool) -> None:
    data = png(smooth(2**depth - 1, 1), depth, 0, interlaced=interlaced)
    start, inflated = pixels_of(data)
    height, width = GREY.shape[:2]
    place, rows = 0, 0
    passes = (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    )
    for left, top, across, down in passes if interlaced else ((0, 0, 1, 1),):
        shape = np.empty((height, width))[top::down, left::across].shape
        for _ in range(shape[0] if shape[1] else 0):
            changed = inflated[:place] + b"\5" + inflated[place + 1 :]
            with pytest.raises(ImageError):
                image_from_bytes(data[:start] + chunk(b"IDAT", zlib.compress(changed)) + data[-12:], "a.png")
            place += 1 + (shape[1] * depth + 7) // 8
            rows += 1
    assert place == len(inflated)
    assert rows >= height
