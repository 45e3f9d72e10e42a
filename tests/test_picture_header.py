import struct

import cv2
import numpy as np
import pytest

from edgead.picture_header import read_header


def encoded(suffix: str, *options: int) -> bytes:
    ok, data = cv2.imencode(suffix, np.zeros((30, 50, 3), np.uint8), options)
    assert ok
    return data.tobytes()


@pytest.mark.parametrize(
    ("suffix", "options", "name"),
    [
        (".png", (), "png"),
        (".jpg", (), "jpeg"),
        (".jpg", (cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 2), "jpeg"),
        (".bmp", (), "bmp"),
        (".tif", (), "tiff"),
    ],
)
def test_format_and_size_are_what_was_encoded(suffix: str, options: tuple[int, ...], name: str) -> None:
    header = read_header(encoded(suffix, *options))
    assert header is not None
    assert (header.format, header.height_px, header.width_px, header.whole) == (name, 30, 50, True)


def test_a_big_endian_tiff_is_read() -> None:
    entries = struct.pack(">HHIHHHHII", 256, 3, 1, 50, 0, 257, 4, 1, 30)
    header = read_header(b"MM\0*" + struct.pack(">IH", 8, 2) + entries + bytes(4))
    assert header is not None
    assert (header.height_px, header.width_px) == (30, 50)


def test_a_bmp_from_the_top_down_is_as_high() -> None:
    data = bytearray(encoded(".bmp"))
    data[22:26] = struct.pack("<i", -30)
    header = read_header(bytes(data))
    assert header is not None
    assert header.height_px == 30


def test_a_compressed_bmp_is_not_held_to_the_length_of_a_plain_one() -> None:
    data = bytearray(encoded(".bmp"))
    data[30:34] = struct.pack("<I", 1)
    header = read_header(bytes(data[:200]))
    assert header is not None
    assert header.whole


def test_padding_before_a_jpeg_marker_is_allowed() -> None:
    data = encoded(".jpg")
    header = read_header(data[:2] + b"\xff\xff" + data[2:])
    assert header is not None
    assert header.width_px == 50


def test_a_marker_without_length_is_stepped_over() -> None:
    data = encoded(".jpg")
    header = read_header(data[:2] + b"\xff\x01" + data[2:])
    assert header is not None
    assert header.width_px == 50


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GIF89a" + bytes(40),
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"\xff\xd8\xff\xe0\x00\x04ab no marker",
        b"BM" + bytes(60),
        b"BM",
        b"II*\0\x08\0\0\0\0\0",
        b"II*\0\xff\xff\xff\x7f",
    ],
)
def test_what_makes_no_sense_has_no_header(data: bytes) -> None:
    assert read_header(data) is None


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp"])
def test_a_cut_file_is_not_whole(suffix: str) -> None:
    data = encoded(suffix)
    header = read_header(data[:-2])
    assert header is not None
    assert not header.whole


def test_a_png_is_held_to_the_checksums_of_what_its_picture_needs() -> None:
    data = encoded(".png")
    pixels = data.index(b"IDAT") + 6
    damaged = read_header(data[:pixels] + bytes([data[pixels] ^ 1]) + data[pixels + 1 :])
    assert damaged is not None
    assert not damaged.whole
    comment = struct.pack(">I", 4) + b"tEXt" + b"a\0b." + b"none"
    forgiven = read_header(data[:33] + comment + data[33:])
    assert forgiven is not None
    assert forgiven.whole


def test_bytes_after_the_end_do_not_matter() -> None:
    for suffix in (".png", ".jpg", ".bmp", ".tif"):
        header = read_header(encoded(suffix) + b"trailing")
        assert header is not None
        assert header.whole


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
def test_no_damage_raises_anything(suffix: str) -> None:
    data, rng = encoded(suffix), np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(data[: rng.integers(1, len(data))])
        for place in rng.integers(0, len(damaged), 4):
            damaged[place] = rng.integers(256)
        header = read_header(bytes(damaged))
        assert header is None or header.height_px >= 0
