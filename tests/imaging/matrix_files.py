"""Files of the image matrix: written by Pillow, tifffile and imagecodecs, or byte by byte; never by edgead.

A case is a file with the values that it must decode to, or with the property by which it must be refused. The values
come from the array that was written, or from another library that reads the file.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 21, 34


class Case(NamedTuple):
    """One file.

    Attributes:
        name: Name of the case.
        data: Content of the file.
        expected: RGB values (H, W, 3) from 0 to 255; None if the file must be refused.
        refusal: Text that the refusal must have, if the file must be refused.
        tolerance: Largest difference in grey levels.
    """

    name: str
    data: bytes
    expected: np.ndarray | None
    refusal: str = ""
    tolerance: float = 1.0


def smooth(peak: int, channels: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """An image with another gradient in each channel, which no two turns or channel orders have in common."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    planes = [
        x / (width - 1),
        y / (height - 1),
        (x + 2 * y) / (width + 2 * height),
        0.25 + x * y / (height * width) / 2,
    ]
    values = np.stack(planes[:channels], axis=2) * peak
    return np.rint(values).astype(np.uint8 if peak < 256 else np.uint16)


def as_rgb(values: np.ndarray, peak: int) -> np.ndarray:
    """Scale grey or RGB of any depth to RGB from 0 to 255."""
    values = np.atleast_3d(values).astype(np.float64) * 255 / peak
    return np.repeat(values, 3, axis=2) if values.shape[2] == 1 else values


def turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation with Pillow."""
    ways = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # of Pillow's Transpose
    shown = Image.fromarray(image)
    return np.array(shown if orientation == 1 else shown.transpose(Image.Transpose(ways[orientation])))


def exif(orientation: int, order: str = ">") -> bytes:
    """EXIF data with an orientation alone."""
    head = b"MM\0*" if order == ">" else b"II*\0"
    return head + struct.pack(order + "IHHHIHHI", 8, 1, 274, 3, 1, orientation, 0, 0)


def by_pillow(data: bytes) -> np.ndarray:
    """Read a file with Pillow, composited on black."""
    with Image.open(io.BytesIO(data)) as image:
        rgba = image.convert("RGBA")
    return np.array(Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba).convert("RGB"))


def packed(values: np.ndarray, depth: int) -> np.ndarray:
    """Pack rows of samples of `depth` bits, the highest bit first."""
    rows = values.reshape(len(values), -1)
    bits = (rows[..., np.newaxis].astype(np.uint32) >> np.arange(depth - 1, -1, -1)) & 1
    return np.packbits(bits.astype(np.uint8).reshape(len(rows), -1), axis=1)


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(values: np.ndarray, depth: int, colour: int, extra: bytes = b"", interlaced: bool = False) -> bytes:
    """A PNG of samples (H, W, channels), with the filters of its rows in turn."""
    height, width, channels = values.shape
    passes = [
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ]
    stream = b""
    for left, top, across, down in passes if interlaced else [(0, 0, 1, 1)]:
        part = values[top::down, left::across]
        if part.size:
            rows = packed(part, depth)
            stream += filtered(rows, max(1, channels * depth // 8))
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    body = zlib.compress(stream)
    half = len(body) // 2
    pixels = chunk(b"IDAT", body[:half]) + chunk(b"IDAT", body[half:])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + pixels + chunk(b"IEND", b"")


def filtered(rows: np.ndarray, step: int) -> bytes:
    """Apply the five filters of PNG, one after another, to rows of bytes."""
    result = b""
    above = np.zeros(rows.shape[1], int)
    for number, row in enumerate(rows.astype(int)):
        left = np.concatenate([np.zeros(step, int), row[:-step]])[: len(row)]
        corner = np.concatenate([np.zeros(step, int), above[:-step]])[: len(row)]
        guess = left + above - corner
        near = np.stack([abs(guess - left), abs(guess - above), abs(guess - corner)]).argmin(axis=0)
        paeth = np.choose(near, [left, above, corner])
        kind = number % 5
        predicted = [0, left, above, (left + above) // 2, paeth][kind]
        result += bytes([kind]) + ((row - predicted) % 256).astype(np.uint8).tobytes()
        above = row
    return result


def png_cases() -> Iterator[Case]:
    """Every colour type, depth and interlace of PNG, transparency and orientation."""
    for interlaced in (False, True):
        for depth in (1, 2, 4, 8, 16):
            peak = 2**depth - 1
            grey, index = smooth(peak, 1), smooth(min(peak, 15), 1)
            mark = f"png-{'interlaced-' * interlaced}{depth}"
            yield Case(f"{mark}-grey", png(grey, depth, 0, interlaced=interlaced), as_rgb(grey, peak))
            if depth <= 8:
                palette = np.random.default_rng(depth).integers(0, 256, (min(peak, 15) + 1, 3), np.uint8)
                table, clear = chunk(b"PLTE", palette.tobytes()), chunk(b"tRNS", bytes([0, 100][: peak + 1]))
                yield Case(f"{mark}-palette", png(index, depth, 3, table, interlaced), palette[index[..., 0]])
                data = png(index, depth, 3, table + clear, interlaced)
                yield Case(f"{mark}-palette-alpha", data, by_pillow(data))
            if depth >= 8:
                rgb, both, rgba = smooth(peak, 3), smooth(peak, 2), smooth(peak, 4)
                yield Case(f"{mark}-rgb", png(rgb, depth, 2, interlaced=interlaced), as_rgb(rgb, peak))
                for colour, values in ((4, both), (6, rgba)):
                    shown = values[..., :-1] * (values[..., -1:] / peak)
                    yield Case(
                        f"{mark}-alpha{colour}",
                        png(values, depth, colour, b"", interlaced),
                        as_rgb(shown, peak),
                    )
                key = rgb[5, 7]
                data = png(rgb, depth, 2, chunk(b"tRNS", struct.pack(">3H", *key)), interlaced)
                yield Case(
                    f"{mark}-colour-key",
                    data,
                    as_rgb(np.where((rgb == key).all(2, keepdims=True), 0, rgb), peak),
                )
            key = int(grey[5, 7, 0])
            data = png(grey, depth, 0, chunk(b"tRNS", struct.pack(">H", key)), interlaced)
            yield Case(f"{mark}-grey-key", data, as_rgb(np.where(grey == key, 0, grey), peak))
    rgb = smooth(255, 3)
    for orientation in range(1, 9):
        for order in "<>":
            data = png(rgb, 8, 2, chunk(b"eXIf", exif(orientation, order)))
            yield Case(f"png-turned-{orientation}{order}", data, turned(rgb, orientation))
    yield Case("png-significant-bits", png(rgb, 8, 2, chunk(b"sBIT", b"\5\6\5")), rgb)
    yield Case("png-gamma", png(rgb, 8, 2, chunk(b"gAMA", struct.pack(">I", 100000))), rgb)
    animation = chunk(b"acTL", struct.pack(">II", 1, 0))
    yield Case("png-animated", png(rgb, 8, 2, animation), None, "animated PNG")


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    """Encode with Pillow."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg_cases() -> Iterator[Case]:
    """JPEG of every subsampling, baseline and progressive, grey, CMYK, restart markers, orientation, other codings."""
    import imagecodecs

    rgb = smooth(255, 3)
    image = Image.fromarray(rgb)
    for subsampling in (0, 1, 2):
        for progressive in (False, True):
            data = saved(image, "JPEG", quality=90, subsampling=subsampling, progressive=progressive)
            yield Case(f"jpeg-{subsampling}{'-progressive' * progressive}", data, by_pillow(data))
    for name, options in {
        "restarts": {"restart_marker_rows": 1},
        "optimized": {"optimize": True},
        "rgb-inside": {"keep_rgb": True},
    }.items():
        data = saved(image, "JPEG", quality=90, **options)
        yield Case(f"jpeg-{name}", data, by_pillow(data))
    data = saved(image.convert("L"), "JPEG", quality=90)
    yield Case("jpeg-grey", data, by_pillow(data))
    yield Case("jpeg-padded", data[:2] + b"\xff\xff\xff\x01" + data[2:] + b"trailing", by_pillow(data))
    yield Case("jpeg-cmyk", saved(image.convert("CMYK"), "JPEG"), None, "CMYK JPEG")
    for orientation in range(1, 9):
        for order in "<>":
            data = saved(image, "JPEG", quality=90, exif=b"Exif\0\0" + exif(orientation, order))
            yield Case(f"jpeg-turned-{orientation}{order}", data, turned(by_pillow(data), orientation))
    deep = smooth(4095, 1)[..., 0]
    yield Case(
        "jpeg-12-bits", imagecodecs.jpeg8_encode(deep, bitspersample=12, level=95), None, "12-bit JPEG"
    )
    yield Case("jpeg-lossless", imagecodecs.ljpeg_encode(rgb[..., 0].copy()), None, "lossless JPEG")
    plain = saved(image, "JPEG")
    place = plain.index(b"\xff\xc0")
    yield Case("jpeg-arithmetic", plain[:place] + b"\xff\xc9" + plain[place + 2 :], None, "arithmetic")


def webp_cases() -> Iterator[Case]:
    """WebP, lossy and lossless, with opacity, orientation and animation."""
    rgb, rgba = smooth(255, 3), smooth(255, 4)
    for lossless in (False, True):
        for name, values in {"rgb": rgb, "rgba": rgba}.items():
            data = saved(Image.fromarray(values), "WEBP", lossless=lossless, quality=90, exact=True)
            yield Case(f"webp-{name}{'-lossless' * lossless}", data, by_pillow(data))
    for orientation in range(1, 9):
        data = saved(Image.fromarray(rgb), "WEBP", lossless=True, exif=exif(orientation))
        yield Case(f"webp-turned-{orientation}", data, turned(rgb, orientation))
        data = saved(Image.fromarray(rgb), "WEBP", lossless=True, exif=b"Exif\0\0" + exif(orientation))
        yield Case(f"webp-turned-prefix-{orientation}", data, turned(rgb, orientation))
    frames = [Image.fromarray(rgb), Image.fromarray(255 - rgb)]
    data = saved(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    yield Case("webp-animated", data, None, "animated WebP")


def other_cases() -> Iterator[Case]:
    """Formats that are refused by name."""
    image = Image.fromarray(smooth(255, 3))
    yield Case("gif", saved(image, "GIF"), None, "GIF")
    yield Case("jpeg-2000", saved(image, "JPEG2000"), None, "JPEG 2000")
    yield Case("avif", saved(image, "AVIF"), None, "AVIF")
    heic = struct.pack(">I4s4sI4s", 20, b"ftyp", b"heic", 0, b"mif1") + bytes(40)
    yield Case("heic", heic, None, "HEIC")
