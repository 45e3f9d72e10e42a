import struct
import zlib

import cv2
import numpy as np
import pytest

from edgead.imaging import header as image_header
from edgead.imaging.header import ImageHeader, read_header


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
def test_format_and_size_agree_with_the_encoded_image(
    suffix: str, options: tuple[int, ...], name: str
) -> None:
    header = read_header(encoded(suffix, *options))
    assert header is not None
    assert (header.format, header.height_px, header.width_px, header.whole) == (name, 30, 50, True)


def test_a_big_endian_tiff_is_read() -> None:
    entries = struct.pack(">HHIHHHHII", 256, 3, 1, 50, 0, 257, 4, 1, 30)
    header = read_header(b"MM\0*" + struct.pack(">IH", 8, 2) + entries + bytes(4))
    assert header is not None
    assert (header.height_px, header.width_px) == (30, 50)


def test_a_bmp_stored_from_the_top_has_the_same_height() -> None:
    data = bytearray(encoded(".bmp"))
    data[22:26] = struct.pack("<i", -30)
    header = read_header(bytes(data))
    assert header is not None
    assert header.height_px == 30


def test_a_compressed_bmp_may_be_shorter_than_a_plain_one() -> None:
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


def test_a_marker_without_length_is_skipped() -> None:
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
def test_invalid_data_has_no_header(data: bytes) -> None:
    assert read_header(data) is None


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp"])
def test_a_cut_file_is_not_whole(suffix: str) -> None:
    data = encoded(suffix)
    header = read_header(data[:-2])
    assert header is not None
    assert not header.whole


def test_only_the_checksums_of_critical_chunks_of_a_png_are_checked() -> None:
    data = encoded(".png")
    pixels = data.index(b"IDAT") + 6
    damaged = read_header(data[:pixels] + bytes([data[pixels] ^ 1]) + data[pixels + 1 :])
    assert damaged is not None
    assert not damaged.whole
    comment = struct.pack(">I", 4) + b"tEXt" + b"a\0b." + b"none"
    forgiven = read_header(data[:33] + comment + data[33:])
    assert forgiven is not None
    assert forgiven.whole


DEFLATED = [(cv2.IMWRITE_TIFF_COMPRESSION, kind) for kind in (8, 32946)]


@pytest.mark.parametrize("options", DEFLATED)
def test_the_checksums_of_a_deflated_tiff_are_checked(options: tuple[int, ...]) -> None:
    image = np.random.default_rng(2).integers(0, 256, (40, 300, 3), np.uint8)
    data = cv2.imencode(".tif", image, options)[1].tobytes()
    header = read_header(data)
    assert header is not None
    assert (header.height_px, header.width_px, header.whole) == (40, 300, True)
    # Random pixels do not shrink, so everything except the directory is compressed pixels.
    for place in range(100, 30000, 997):
        damaged = read_header(data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :])
        assert damaged is not None
        assert not damaged.whole, place


def tiled(order: str, tiles: list[bytes], fill_order: int = 1) -> bytes:
    """A deflated TIFF of 20 x 30 pixels in tiles: header, tiles, their offsets and lengths, directory."""
    places = [8 + sum(map(len, tiles[:number])) for number in range(len(tiles))]
    after = 8 + sum(map(len, tiles))
    arrays = struct.pack(f"{order}{2 * len(tiles)}I", *places, *map(len, tiles))
    long, short, count = 4, 3, len(tiles)
    entries = [
        (256, long, 1, 30),
        (257, long, 1, 20),
        (324, long, count, after),
        (325, long, count, after + 4 * count),
    ]
    directory = struct.pack(order + "H", len(entries) + 2)
    directory += b"".join(struct.pack(order + "HHII", *entry) for entry in entries)
    for tag, value in ((259, 8), (266, fill_order)):
        directory += struct.pack(order + "HHIHH", tag, short, 1, value, 0)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", after + len(arrays))
    return head + b"".join(tiles) + arrays + directory + bytes(4)


@pytest.mark.parametrize("order", ["<", ">"])
def test_every_tile_of_a_deflated_tiff_is_checked(order: str) -> None:
    tiles = [zlib.compress(bytes([number]) * 256) for number in range(4)]

    def is_whole(tiles: list[bytes], fill_order: int = 1) -> bool:
        header = read_header(tiled(order, tiles, fill_order))
        assert header is not None
        assert (header.height_px, header.width_px) == (20, 30)
        return header.whole

    assert is_whole(tiles)
    # A writer may add a byte after a stream to make its length even.
    assert is_whole([tile + b"\0" for tile in tiles])
    for number in range(4):
        assert not is_whole([*tiles[:number], tiles[number][:-1], *tiles[number + 1 :]])
        assert not is_whole([*tiles[:number], b"no zlib stream", *tiles[number + 1 :]])
    # Its bits are in reverse order, so only libtiff reads it.
    assert is_whole([b"no zlib stream"], fill_order=2)


def test_a_tiff_with_a_duplicate_tag_has_no_header() -> None:
    data = bytearray(cv2.imencode(".tif", np.zeros((64, 48, 3), np.uint8))[1].tobytes())
    (directory,) = struct.unpack_from("<I", data, 4)
    assert read_header(bytes(data)) is not None
    entries = range(directory + 2, directory + 2 + 12 * data[directory], 12)
    spare = next(entry for entry in entries if struct.unpack_from("<H", data, entry) == (277,))
    struct.pack_into("<H", data, spare, 257)
    assert read_header(bytes(data)) is None


def test_a_tiff_whose_strips_overlap_is_not_whole() -> None:
    """A small file could list the same bytes a million times, and each entry would be checked."""
    strip = zlib.compress(bytes(8 * 3))
    place = 8 + 2 + 12 * 5 + 4
    count = 50
    entries = [
        (256, 3, 1, 8),
        (257, 3, 1, count),
        (259, 3, 1, 8),
        (273, 4, count, place),
        (279, 4, count, place + 4 * count),
    ]
    directory = struct.pack("<H", 5) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    begin = place + 8 * count
    lists = struct.pack(f"<{count}I", *[begin] * count) + struct.pack(f"<{count}I", *[len(strip)] * count)
    whole = (
        struct.pack(f"<{count}I", *range(begin, begin + count * len(strip), len(strip))) + lists[4 * count :]
    )
    head = b"II*\0" + struct.pack("<I", 8) + directory
    assert read_header(head + whole + strip * count) == ImageHeader("tiff", count, 8, True)
    assert read_header(head + lists + strip) == ImageHeader("tiff", count, 8, False)


def test_a_tiff_whose_list_of_strips_lies_outside_the_file_is_not_whole() -> None:
    data = bytearray(cv2.imencode(".tif", np.zeros((64, 48, 3), np.uint8))[1].tobytes())
    (directory,) = struct.unpack_from("<I", data, 4)
    for entry in range(directory + 2, directory + 2 + 12 * data[directory], 12):
        if struct.unpack_from("<H", data, entry) == (273,):
            struct.pack_into("<II", data, entry + 4, 2**31, 2**30)
    assert read_header(bytes(data)) == ImageHeader("tiff", 64, 48, False)


def test_a_tiff_that_would_fill_the_memory_is_not_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    tiles = [zlib.compress(bytes(3 * 2**20)), zlib.compress(bytes(2 * 2**20))]
    assert read_header(tiled("<", tiles)).whole  # type: ignore[union-attr]
    monkeypatch.setattr(image_header, "_MAX_INFLATED_BYTES", 4 * 2**20)
    assert not read_header(tiled("<", tiles)).whole  # type: ignore[union-attr]


def test_bytes_after_the_end_do_not_matter() -> None:
    for suffix in (".png", ".jpg", ".bmp", ".tif"):
        header = read_header(encoded(suffix) + b"trailing")
        assert header is not None
        assert header.whole


@pytest.mark.parametrize(
    ("suffix", "options"), [(".png", ()), (".jpg", ()), (".bmp", ()), (".tif", ()), (".tif", DEFLATED[0])]
)
def test_no_damage_raises_anything(suffix: str, options: tuple[int, ...]) -> None:
    data, rng = encoded(suffix, *options), np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(data[: rng.integers(1, len(data))])
        for place in rng.integers(0, len(damaged), 4):
            damaged[place] = rng.integers(256)
        header = read_header(bytes(damaged))
        assert header is None or header.height_px >= 0
