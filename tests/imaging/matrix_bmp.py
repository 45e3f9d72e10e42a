"""BMP files of the image matrix, byte by byte: every header, depth, mask and compression."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from tests.imaging.matrix_files import HEIGHT, WIDTH, Case, by_pillow, packed, smooth

# Masks that Pillow reads, among those of the cases.
READ_MASKS = ("555", "565", "bgrx", "xbgr")
HEADERS = {"os2-v1": 12, "os2-short": 16, "v1": 40, "v2": 52, "v3": 56, "os2-v2": 64, "v4": 108, "v5": 124}


def bmp(
    header_bytes: int,
    bits: int,
    rows: np.ndarray | bytes,
    compression: int = 0,
    palette: np.ndarray | None = None,
    masks: tuple[int, ...] = (),
    downwards: bool = False,
) -> bytes:
    """A BMP of packed rows from the top; they are stored from the bottom unless `downwards`."""
    if isinstance(rows, np.ndarray):
        rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))
        pixels = (rows if downwards else rows[::-1]).tobytes()
    else:
        pixels = rows
    if header_bytes == 12:
        header = struct.pack("<IHHHH", 12, WIDTH, HEIGHT, 1, bits)
    else:
        height = -HEIGHT if downwards else HEIGHT
        header = struct.pack(
            "<IiiHHIIiiII", 40, WIDTH, height, 1, bits, compression, len(pixels), 2835, 2835, 0, 0
        )
        header = struct.pack("<I", header_bytes) + header[4:header_bytes]
    inside = struct.pack(f"<{len(masks)}I", *masks)
    if header_bytes > 40 and masks:
        header += inside
    header = header.ljust(header_bytes, b"\0") + (inside if header_bytes == 40 else b"")
    table = b""
    if palette is not None:
        pad = () if header_bytes == 12 else ((0, 0), (0, 1))
        table = (np.pad(palette[:, ::-1], pad) if pad else palette[:, ::-1]).tobytes()
    begin = 14 + len(header) + len(table)
    return b"BM" + struct.pack("<IHHI", begin + len(pixels), 0, 0, begin) + header + table + pixels


def masked(values: np.ndarray, masks: tuple[int, ...], bits: int, rest: int) -> np.ndarray:
    """Pack channels from 0 to the largest value of each mask into pixels, with `rest` in the bits of no mask."""
    pixels = np.full(values.shape[:2], rest, np.uint64)
    for channel, mask in enumerate(masks):
        shift = (mask & -mask).bit_length() - 1
        level = np.rint(values[..., channel] * ((mask >> shift) / 255)).astype(np.uint64)
        pixels = (pixels & np.uint64(~mask & 0xFFFFFFFF)) | (level << np.uint64(shift))
    return pixels.astype(f"<u{bits // 8}").view(np.uint8)


def shown(values: np.ndarray, masks: tuple[int, ...]) -> np.ndarray:
    """The values that survive in the bits of the masks, composited on black."""
    peaks = [mask >> ((mask & -mask).bit_length() - 1) for mask in masks]
    kept = np.stack([np.rint(values[..., c] * (p / 255)) / p * 255 for c, p in enumerate(peaks)], axis=2)
    return kept[..., :3] if len(masks) == 3 else kept[..., :3] * (kept[..., 3:] / 255)


def bmp_cases() -> Iterator[Case]:
    """Every header with every depth that it can have, both directions, masks and run lengths."""
    rgb, rgba = smooth(255, 3), smooth(255, 4)
    rng = np.random.default_rng(0)
    for name, size in HEADERS.items():
        for downwards in (False, True) if size >= 40 else (False,):
            mark = f"bmp-{name}{'-downwards' * downwards}"
            for bits in (1, 2, 4, 8):
                palette = rng.integers(0, 256, (2**bits, 3), np.uint8)
                index = smooth(2**bits - 1, 1)
                data = bmp(size, bits, packed(index, bits), palette=palette, downwards=downwards)
                # Pillow reads neither this header nor this depth.
                refusal = "header of 16 bytes" if size == 16 else "2-bit BMP" if bits == 2 else ""
                yield Case(f"{mark}-{bits}", data, None if refusal else palette[index[..., 0]], refusal)
            rows = rgb[..., ::-1].reshape(HEIGHT, -1)
            data = bmp(size, 24, rows, downwards=downwards)
            refusal = "header of 16 bytes" if size == 16 else ""
            yield Case(f"{mark}-24", data, None if refusal else rgb, refusal)
            if size >= 40:
                five = (0x7C00, 0x03E0, 0x001F)
                rows = masked(rgb, five, 16, 0x8000)
                yield Case(f"{mark}-16", bmp(size, 16, rows, downwards=downwards), shown(rgb, five))
                rows = np.concatenate([rgb[..., ::-1], rgba[..., 3:]], axis=2).reshape(HEIGHT, -1)
                yield Case(f"{mark}-32", bmp(size, 32, rows, downwards=downwards), rgb)
    yield from mask_cases(rgb, rgba)
    yield from run_length_cases()
    whole = bmp(64, 24, rgb[..., ::-1].reshape(HEIGHT, -1))
    for name, kind, refusal in (("jpeg", 4, "JPEG"), ("png", 5, "PNG")):
        yield Case(
            f"bmp-{name}-inside", bmp(40, 24, b"", compression=kind), None, f"BMP with {refusal} inside"
        )
    yield Case("bmp-os2-rle24", whole[:30] + struct.pack("<I", 4) + whole[34:], None, "OS/2 BMP")


def mask_cases(rgb: np.ndarray, rgba: np.ndarray) -> Iterator[Case]:
    """Masks of 16 and 32 bits, in the header and behind it, with and without opacity."""
    of_16 = {
        "555": (0x7C00, 0x03E0, 0x001F),
        "565": (0xF800, 0x07E0, 0x001F),
        "444": (0x0F00, 0x00F0, 0x000F),
    }
    of_32 = {
        "bgrx": (0xFF0000, 0xFF00, 0xFF),
        "rgbx": (0xFF, 0xFF00, 0xFF0000),
        "xbgr": (0xFF000000, 0xFF0000, 0xFF00),
        "10-bits": (0x3FF00000, 0xFFC00, 0x3FF),
    }
    for bits, kinds in ((16, of_16), (32, of_32)):
        for name, masks in kinds.items():
            # The bits of no mask are neither all 0 nor all 1.
            rows = masked(rgb, masks, bits, 0x5A5A5A5A)
            for header in (40, 52, 56, 108, 124):
                data = bmp(header, bits, rows, 3, masks=masks)
                refusal = "" if name in READ_MASKS else "colour masks"
                yield Case(
                    f"bmp-{header}-{bits}-{name}", data, None if refusal else shown(rgb, masks), refusal
                )
    alpha = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    rows = masked(rgba, alpha, 32, 0)
    for header, compression in ((40, 6), (56, 3), (108, 3), (124, 3)):
        data = bmp(header, 32, rows, compression, masks=alpha)
        refusal = "masks of opacity" if header == 40 else ""
        yield Case(f"bmp-{header}-bgra", data, None if refusal else shown(rgba, alpha), refusal)
    gaps = (0xF0F000, 0x0F00, 0xFF)
    yield Case("bmp-gaps", bmp(40, 32, rows, 3, masks=gaps), None, "colour masks")


def run_length_cases() -> Iterator[Case]:
    """Run lengths of 8 and 4 bits: runs, literals, ends of rows, moves."""
    palette = np.random.default_rng(1).integers(0, 256, (16, 3), np.uint8)
    index = np.zeros((HEIGHT, WIDTH), np.uint8)
    for bits in (8, 4):
        stream = b""
        for row in range(HEIGHT):
            if row == 3:
                # 5 pixels to the right and 1 row on; what is skipped is index 0.
                stream += bytes([0, 2, 5, 0, 1, 7])
                index[row] = 0
                index[row, 5] = 7 if bits == 8 else 0
                stream += bytes([0, 0])
                continue
            odd = np.arange(7) % 16
            index[row] = [*odd, *[row % 16] * (WIDTH - 7)]
            literal = (
                bytes(odd.tolist()) if bits == 8 else packed(odd[np.newaxis].astype(np.uint8), 4).tobytes()
            )
            value = row % 16 if bits == 8 else row % 16 * 17
            stream += bytes([0, 7]) + literal + b"\0" * (len(literal) % 2) + bytes([WIDTH - 7, value, 0, 0])
        data = bmp(40, bits, stream + bytes([0, 1]), 1 if bits == 8 else 2, palette)
        # The rows are stored from the bottom.
        if bits == 4:
            yield Case("bmp-rle4", data, None, "4-bit run lengths")
            continue
        yield Case("bmp-rle8", data, palette[index[::-1]])
        yield Case("bmp-rle8-by-pillow", data, by_pillow(data))
