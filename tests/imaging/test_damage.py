"""Damage inside a file, premature ends and malicious sizes: an ImageError, never pixels that nobody saved."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from contextlib import suppress

import numpy as np
import pytest
import tifffile
from PIL import Image

from edgead.errors import ImageError
from edgead.imaging.decode import image_from_bytes
from tests.imaging.device_codecs import decode_as_a_device
from tests.imaging.matrix_bmp import bmp_cases
from tests.imaging.matrix_files import chunk, jpeg_cases, png, png_cases, saved, smooth, webp_cases
from tests.imaging.matrix_tiff import by_hand, tiff, tiff_cases

RANDOM = np.random.default_rng(1).integers(0, 256, (60, 90, 3), np.uint8)


def is_refused(data: bytes) -> bool:
    try:
        decode_as_a_device(data)
    except ImageError as error:
        return error.what.startswith("it ") and "\n" not in str(error)
    return False


def flipped(data: bytes, place: int, bits: int = 0xFF) -> bytes:
    return data[:place] + bytes([data[place] ^ bits]) + data[place + 1 :]


def png_of(*chunks: bytes) -> bytes:
    """A PNG of these chunks between a header of RANDOM's size and the end."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 90, 60, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


ROWS = b"".join(b"\0" + row.tobytes() for row in RANDOM)


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"subsampling": 0}], ids=str
)
def test_damage_inside_a_jpeg_is_found_although_its_end_is_there(options: dict[str, object]) -> None:
    rgb = smooth(255, 3, 160, 240) // 2 + np.random.default_rng(2).integers(0, 128, (160, 240, 3), np.uint8)
    data = saved(Image.fromarray(rgb), "JPEG", quality=90, **options)
    assert not is_refused(data)
    # Bytes are lost, replaced by 0 or replaced by an early end. The loss of a few bytes can leave a valid file.
    for place in range(len(data) // 4, len(data) - 5000, len(data) // 10):
        assert is_refused(data[:place] + data[place + 1024 :]), place
        assert is_refused(data[:place] + bytes(4096) + data[place + 4096 :]), place
        assert is_refused(data[:place] + b"\xff\xd9" + data[place + 2 :]), place
    assert is_refused(data[:-2])


def test_a_jpeg_without_its_last_rows_is_refused() -> None:
    data = saved(Image.fromarray(RANDOM), "JPEG", quality=90)
    assert is_refused(data[: len(data) * 3 // 4] + b"\xff\xd9")


def test_a_damaged_stream_inside_a_png_is_found_although_the_checksums_of_its_chunks_are_right() -> None:
    body = zlib.compress(ROWS)
    assert not is_refused(png_of(chunk(b"IDAT", body)))
    assert is_refused(png_of(chunk(b"IDAT", body[: len(body) // 2])))
    assert is_refused(png_of(chunk(b"IDAT", zlib.compress(ROWS[: len(ROWS) // 2]))))
    assert is_refused(png_of(chunk(b"IDAT", body[:-4] + bytes(4))))
    assert is_refused(png_of(chunk(b"IDAT", zlib.compress(b"\7" + ROWS[1:]))))
    assert is_refused(png_of())


def test_the_checksums_of_a_png_are_checked_where_the_image_depends_on_them() -> None:
    for kind in (b"tRNS", b"eXIf"):
        extra = chunk(kind, bytes(6))
        data = png(smooth(255, 3), 8, 2, extra)
        assert not is_refused(data)
        assert is_refused(data.replace(extra, extra[:-1] + bytes([extra[-1] ^ 1])))
    comment = struct.pack(">I", 4) + b"tEXt" + b"a\0b." + b"none"
    assert not is_refused(png(smooth(255, 3), 8, 2, comment))
    data = png(smooth(255, 3), 8, 2)
    assert is_refused(flipped(data, data.index(b"IDAT") + 6, 1))
    assert is_refused(data[:-12])


@pytest.mark.parametrize("compression", ["zlib", "deflate"])
@pytest.mark.parametrize("shape", [{"rowsperstrip": 16}, {"tile": (32, 32)}])
def test_the_checksums_of_every_piece_of_a_deflated_tiff_are_checked(
    compression: str, shape: dict[str, object]
) -> None:
    data = tiff(RANDOM, photometric="rgb", compression=compression, **shape)
    assert not is_refused(data)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        pieces = list(zip(file.pages[0].dataoffsets, file.pages[0].databytecounts, strict=True))
    assert len(pieces) >= 4
    for begin, length in pieces:
        assert is_refused(flipped(data, begin + length // 2, 16))
        assert is_refused(flipped(data, begin + length - 1, 16))


def test_lzw_data_that_ends_early_or_has_an_impossible_code_is_refused() -> None:
    data = tiff(RANDOM, photometric="rgb", compression="lzw")
    begin = 8 if data[8:9] == b"\x80" else data.index(b"\x80", 8)
    end_of_data = (257 << 15 | 256 << 6).to_bytes(3, "big")
    assert not is_refused(data)
    assert is_refused(data[:begin] + end_of_data + data[begin + 3 :])
    assert is_refused(data[:begin] + b"\x80\x7f\xff\xff" + data[begin + 4 :])


@pytest.mark.parametrize("kind", ["lzw", "packbits", None])
def test_a_tiff_cut_short_is_refused(kind: str | None) -> None:
    values = np.repeat(RANDOM[:, :1], 90, axis=1)
    data = tiff(values, photometric="rgb", compression=kind)
    content = by_hand(90, b"", "<", t258=(8, 8, 8), t262=2, t277=3)
    assert not is_refused(data)
    assert is_refused(content)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[0]
        packed = data[page.dataoffsets[0] :][: page.databytecounts[0] // 2]
        number = int(page.compression)
    tags = {"t257": 60, "t278": 60, "t258": (8, 8, 8), "t259": number, "t262": 2, "t277": 3}
    assert not is_refused(by_hand(90, data[page.dataoffsets[0] :][: page.databytecounts[0]], "<", **tags))
    assert is_refused(by_hand(90, packed, "<", **tags))


@pytest.mark.parametrize("peak", [255, 65535])
@pytest.mark.parametrize("shape", [{}, {"rowsperstrip": 8}, {"tile": (32, 32)}, {"predictor": True}], ids=str)
def test_damaged_lzw_data_is_refused_or_decodes_as_imagecodecs_decodes_it(
    peak: int, shape: dict[str, object]
) -> None:
    rng = np.random.default_rng(3)
    values = smooth(peak * 9 // 10, 3, 60, 90) + rng.integers(0, peak // 50, (60, 90, 3)).astype(
        np.uint8 if peak == 255 else np.uint16
    )
    data = tiff(values, photometric="rgb", compression="lzw", **shape)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        pieces = list(zip(file.pages[0].dataoffsets, file.pages[0].databytecounts, strict=True))
    refused = 0
    for number in range(60):
        begin, length = pieces[rng.integers(len(pieces))]
        first = int(rng.integers(length))
        # A hole of zeros, a strip without its end, or one wrong bit.
        last = first + (int(rng.integers(1, 200)), length, 1)[number % 3]
        hole = data[begin + first : begin + min(last, length)]
        changed = bytes([hole[0] ^ 4]) if number % 3 == 2 else bytes(len(hole))
        damaged = data[: begin + first] + changed + data[begin + first + len(hole) :]
        try:
            image = decode_as_a_device(damaged)
        except ImageError:
            refused += 1
            continue
        with tifffile.TiffFile(io.BytesIO(damaged)) as file:
            expected = file.pages[0].asarray() * (255 / peak)
        assert np.abs(image - expected).max() <= 1, number
    assert 25 < refused < 60


@pytest.mark.parametrize("shape", [{"rowsperstrip": 20}, {"tile": (16, 32)}], ids=str)
@pytest.mark.parametrize("compression", [None, "zlib", "packbits", "lzw"])
def test_rows_that_no_strip_or_tile_holds_are_not_filled(
    compression: str | None, shape: dict[str, object]
) -> None:
    data = tiff(RANDOM, photometric="rgb", compression=compression, **shape)
    assert not is_refused(data)
    height = data.index(struct.pack("<HHII", 257, 4, 1, 60)) + 8
    assert is_refused(data[:height] + struct.pack("<I", 90) + data[height + 4 :])


def test_a_small_tiff_does_not_unpack_to_much_more_than_its_image() -> None:
    for number, strip in ((8, zlib.compress(bytes(2**20))), (32773, b"\x81\0" * 2**13)):
        assert is_refused(by_hand(34, strip, "<", t258=8, t259=number, t262=1))
    strip = zlib.compress(bytes(2**20))
    size = {"t257": 8192, "t278": 8192, "t258": (16,) * 16, "t277": 16}
    assert is_refused(by_hand(8192, strip, "<", t259=8, t262=1, **size))


def test_a_run_length_bmp_that_moves_down_by_many_long_rows_is_refused() -> None:
    stream = bytes([0, 2, 0, 255]) * 40 + bytes([0, 1])
    header = struct.pack("<IiiHHIIiiII", 40, 2**26, 1, 1, 8, 1, len(stream), 0, 0, 0, 0)
    begin = 14 + len(header) + 1024
    head = b"BM" + struct.pack("<IHHI", begin + len(stream), 0, 0, begin)
    assert is_refused(head + header + bytes(1024) + stream)


def test_a_png_chunk_with_an_impossible_name_is_refused() -> None:
    data = png(smooth(255, 3), 8, 2, chunk(b"tEX1", b"a\0b"))
    assert is_refused(data)


def test_libraries_print_nothing_about_damage() -> None:
    rgb = smooth(255, 3, 60, 90)
    lzw, deep = (tiff(rgb.astype(kind), photometric="rgb", compression="lzw") for kind in ("u1", "u2"))
    tag = lzw.index(struct.pack("<HHI", 282, 5, 1)) + 8
    comment = chunk(b"gAMA", struct.pack(">I", 100000))
    wrong = chunk(b"eXIf", b"II*\0" + struct.pack("<IHHHIII", 8, 1, 274, 3, 9, 0, 0) + bytes(18))
    files = [data[: len(data) * 3 // 4] + bytes(len(data) // 4) for data in (lzw, deep)]
    files += [lzw[:300], lzw[:tag] + b"\xff" * 4 + lzw[tag + 4 :]]
    files += [png(rgb, 8, 2, comment[:-1] + b"x"), png(rgb, 8, 2, wrong)]
    program = (
        "import sys\n"
        "from contextlib import suppress\n"
        "from edgead.errors import ImageError\n"
        "from tests.imaging.device_codecs import decode_as_a_device\n"
        "for data in eval(sys.stdin.read()):\n"
        "    with suppress(ImageError):\n"
        "        decode_as_a_device(data)\n"
        "print('done')"
    )
    # OpenCV logs by its own variable, which the command line sets.
    ended = subprocess.run(
        [sys.executable, "-c", program],
        input=repr(files),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OPENCV_LOG_LEVEL": "SILENT"},
    )
    assert (ended.stdout, ended.stderr) == ("done\n", "")


def test_a_tiff_with_a_duplicate_tag_or_overlapping_strips_is_refused() -> None:
    data = tiff(RANDOM, photometric="rgb", rowsperstrip=60)
    place = data.index(struct.pack("<HHI", 277, 3, 1))
    assert is_refused(data[:place] + struct.pack("<H", 257) + data[place + 2 :])
    # A small file could list the same bytes a million times, and each entry would be decoded.
    strip = zlib.compress(RANDOM[0, :30].tobytes())
    content = by_hand(90, strip, "<", t257=21, t258=8, t259=8, t262=1, t278=1, t279=(len(strip),) * 21)
    assert is_refused(content)


def test_a_tile_or_a_sample_count_that_would_fill_the_memory_is_refused() -> None:
    assert is_refused(by_hand(34, bytes(99), "<", t258=8, t262=1, t322=65520, t323=65520, t324=8, t325=99))
    assert is_refused(by_hand(8192, bytes(99), "<", t257=8192, t258=16, t262=1, t277=65535, t278=8192))
    assert is_refused(by_hand(34, bytes(99), "<", t258=8, t262=1, t322=0, t323=16, t324=8, t325=99))


def test_a_bmp_that_leaves_its_image_or_its_file_is_refused() -> None:
    for case in bmp_cases():
        if case.expected is not None and "pillow" not in case.name:
            assert is_refused(case.data[:-40]), case.name
            assert is_refused(case.data[:20]), case.name


@pytest.mark.parametrize("cases", [png_cases, jpeg_cases, webp_cases, bmp_cases, tiff_cases])
def test_damage_gives_an_image_or_an_image_error(cases) -> None:
    rng = np.random.default_rng(0)
    for case in cases():
        for _ in range(4):
            damaged = bytearray(case.data[: rng.integers(1, len(case.data) + 1)])
            for place in rng.integers(0, min(len(damaged), 200), 3):
                damaged[place] = rng.integers(256)
            with suppress(ImageError):
                image = image_from_bytes(bytes(damaged), "it")
                assert image.ndim == 3
                assert image.dtype == np.uint8
