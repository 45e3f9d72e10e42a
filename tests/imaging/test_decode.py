import io
import os
import struct
import tracemalloc
import zlib
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from edgead.errors import ImageError
from edgead.imaging.decode import MAX_FILE_BYTES, image_from_bytes, read_image

# RGB of the four quarters of an image: top left, top right, bottom left, bottom right.
QUARTERS = ((220, 20, 40), (30, 200, 60), (10, 50, 240), (250, 240, 20))


def quartered(height: int = 32, width: int = 48) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2], image[: height // 2, width // 2 :] = QUARTERS[0], QUARTERS[1]
    image[height // 2 :, : width // 2], image[height // 2 :, width // 2 :] = QUARTERS[2], QUARTERS[3]
    return image


def encoded(image: np.ndarray, suffix: str, *options: int) -> bytes:
    """Encode grey, RGB or RGBA."""
    if image.ndim == 3:
        image = image[..., [2, 1, 0, 3][: image.shape[2]]]
    ok, data = cv2.imencode(suffix, image, options)
    assert ok
    return data.tobytes()


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff"])
def test_lossless_formats_give_rgb_as_written(tmp_path: Path, suffix: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (21, 34, 3), dtype=np.uint8)
    read = read_image(written(tmp_path / f"a{suffix}", encoded(image, suffix)))
    assert read.dtype == np.uint8
    assert read.flags.c_contiguous
    np.testing.assert_array_equal(read, image)


def test_a_jpeg_gives_rgb_nearly_as_written(tmp_path: Path) -> None:
    read = read_image(written(tmp_path / "a.jpg", encoded(quartered(), ".jpg", cv2.IMWRITE_JPEG_QUALITY, 98)))
    corners = (read[6, 6], read[6, -6], read[-6, 6], read[-6, -6])
    assert np.abs(np.array(corners, int) - QUARTERS).max() < 6


def test_the_content_determines_the_format_not_the_name(tmp_path: Path) -> None:
    path = written(tmp_path / "really_png.jpg", encoded(quartered(), ".png"))
    np.testing.assert_array_equal(read_image(path), quartered())


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
def test_grey_becomes_three_equal_channels(tmp_path: Path, suffix: str) -> None:
    read = read_image(written(tmp_path / f"a{suffix}", encoded(np.full((16, 24), 77, np.uint8), suffix)))
    np.testing.assert_array_equal(read, np.full((16, 24, 3), 77))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits_are_divided_by_257_whatever_the_brightest_pixel(
    tmp_path: Path, suffix: str, channels: int
) -> None:
    # 300 / 257 = 1.17, 385 / 257 = 1.498, 386 / 257 = 1.502, 4095 / 257 = 15.93
    deep = np.array([[0, 300, 385, 386, 4095]], np.uint16)
    expected = np.array([[0, 1, 1, 2, 16]], np.uint8)
    image = deep if channels == 1 else np.stack([deep, deep + np.uint16(257), deep], axis=2)
    offsets = [0, 0, 0] if channels == 1 else [0, 1, 0]
    read = read_image(written(tmp_path / f"a{suffix}", encoded(image, suffix)))
    np.testing.assert_array_equal(read, expected[..., np.newaxis] + np.array(offsets, np.uint8))
    white = written(tmp_path / f"white{suffix}", encoded(np.full((2, 2), 65535, np.uint16), suffix))
    assert read_image(white).min() == 255


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_alpha_of_16_bits_is_composited_on_black(tmp_path: Path, suffix: str) -> None:
    image = np.zeros((1, 3, 4), np.uint16)
    image[0, :, :3] = (200 * 257, 100 * 257, 50 * 257)
    image[0, :, 3] = (0, 65535, 32768)
    read = read_image(written(tmp_path / f"a{suffix}", encoded(image, suffix)))
    np.testing.assert_array_equal(read, [[[0, 0, 0], [200, 100, 50], [100, 50, 25]]])


def test_alpha_of_8_bits_is_composited_on_black(tmp_path: Path) -> None:
    image = np.zeros((1, 3, 4), np.uint8)
    image[0, :, :3] = (200, 100, 50)
    image[0, :, 3] = (0, 255, 128)
    read = read_image(written(tmp_path / "a.png", encoded(image, ".png")))
    np.testing.assert_array_equal(read, [[[0, 0, 0], [200, 100, 50], [100, 50, 25]]])


@pytest.mark.parametrize(("samples", "is_inverted"), [(1, False), (1, True), (3, False), (4, False)])
def test_every_row_of_a_large_deep_image_is_converted(samples: int, is_inverted: bool) -> None:
    # Images are converted in pieces; this one is longer than any of them, and no multiple.
    image = np.random.default_rng(0).integers(0, 2**16, (701, 1203, samples), np.uint16)
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        image if samples > 1 else image[..., 0],
        photometric="miniswhite" if is_inverted else "minisblack" if samples == 1 else "rgb",
        extrasamples=["unassalpha"] if samples == 4 else None,
        compression="zlib",
    )
    decoded = image_from_bytes(buffer.getvalue(), "a.tif")
    expected = image[..., :3] / 65535.0
    if is_inverted:
        expected = 1.0 - expected
    if samples == 4:
        expected *= image[..., 3:] / 65535.0
    np.testing.assert_allclose(decoded, np.broadcast_to(expected * 255.0, decoded.shape), atol=0.51)


def test_a_large_image_with_opacity_needs_little_more_than_its_samples() -> None:
    samples = np.full((1024, 2048, 4), 2**15, np.uint16)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, photometric="rgb", extrasamples=["unassalpha"], compression="zlib")
    # Read once before, so that no import counts.
    image_from_bytes(buffer.getvalue(), "a.tif")
    tracemalloc.start()
    try:
        decoded = image_from_bytes(buffer.getvalue(), "a.tif")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (decoded == 64).all()
    assert peak < samples.nbytes + decoded.nbytes + 20 * 2**20


def test_alpha_of_an_8_bit_tiff_is_composited_once(tmp_path: Path) -> None:
    # One pixel, RGBA, ExtraSamples 2: colour is not multiplied by alpha in the file.
    entries = ((256, 3, 1), (257, 3, 1), (259, 3, 1), (262, 3, 2), (273, 4, 8), (277, 3, 4), (278, 3, 1))
    entries += ((279, 4, 4), (284, 3, 1), (338, 3, 2))
    depth_at = 8 + 4 + 2 + 12 * (len(entries) + 1) + 4
    rows = [struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries]
    rows.insert(2, struct.pack("<HHII", 258, 3, 4, depth_at))
    directory = struct.pack("<H", len(rows)) + b"".join(rows) + struct.pack("<I", 0)
    data = (
        b"II*\0"
        + struct.pack("<I", 12)
        + bytes([200, 100, 50, 128])
        + directory
        + struct.pack("<4H", 8, 8, 8, 8)
    )
    np.testing.assert_array_equal(read_image(written(tmp_path / "a.tif", data)), [[[100, 50, 25]]])


# The corner that an EXIF orientation moves to the top left, and whether it swaps height and width.
@pytest.mark.parametrize(
    ("orientation", "corner", "turned"),
    [
        (1, 0, False),
        (2, 1, False),
        (3, 3, False),
        (4, 2, False),
        (5, 0, True),
        (6, 2, True),
        (7, 3, True),
        (8, 1, True),
    ],
)
def test_the_exif_orientation_of_a_jpeg_is_applied(
    tmp_path: Path, orientation: int, corner: int, turned: bool
) -> None:
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    body = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 1) + entry + struct.pack(">I", 0)
    jpeg = encoded(quartered(), ".jpg")
    data = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]
    read = read_image(written(tmp_path / "a.jpg", data))
    assert read.shape == ((48, 32, 3) if turned else (32, 48, 3))
    assert np.abs(read[4, 4].astype(int) - QUARTERS[corner]).max() < 12


def test_a_file_that_is_no_image_is_refused_by_its_name(tmp_path: Path) -> None:
    text = written(tmp_path / "text.png", b"this is text, though its name says image\n")
    empty = written(tmp_path / "empty.png", b"")
    for path in (text, empty, tmp_path / "missing.png", tmp_path):
        with pytest.raises(ImageError) as caught:
            read_image(path)
        assert str(path) in caught.value.what
        assert "\n" not in str(caught.value)


def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    reasons = set()
    for path in (tmp_path / "pipe.png", written(tmp_path / "empty.png", b"")):
        with pytest.raises(ImageError) as caught:
            read_image(path)
        assert str(path) in caught.value.what
        reasons.add(caught.value.what.replace(str(path), ""))
    # The pipe is not mistaken for an empty file.
    assert len(reasons) == 2


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
@pytest.mark.parametrize("kept", [0.02, 0.4, 0.97])
def test_an_image_cut_short_is_refused(tmp_path: Path, suffix: str, kept: float) -> None:
    image = np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    data = encoded(image, suffix)
    path = written(tmp_path / f"a{suffix}", data[: int(len(data) * kept)])
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert str(path) in caught.value.what


@pytest.mark.parametrize(("suffix", "options"), [(".png", ()), (".tif", (cv2.IMWRITE_TIFF_COMPRESSION, 8))])
def test_an_image_with_broken_pixels_is_refused(
    tmp_path: Path, suffix: str, options: tuple[int, ...]
) -> None:
    image = np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    data = bytearray(cv2.imencode(suffix, image, options)[1].tobytes())
    path = written(tmp_path / f"a{suffix}", bytes(data))
    np.testing.assert_array_equal(read_image(path), image[..., ::-1])
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(ImageError) as caught:
        read_image(written(path, bytes(data)))
    assert str(path) in caught.value.what


def png_with_header(width: int, height: int, rows: bytes) -> bytes:
    """A grey PNG of 8 bits with correct checksums."""
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
    )
    data = b"\x89PNG\r\n\x1a\n"
    for kind, content in (*chunks, (b"IEND", b"")):
        data += (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )
    return data


def test_an_image_that_declares_a_gigantic_size_is_not_decoded(tmp_path: Path) -> None:
    with pytest.raises(ImageError) as caught:
        read_image(written(tmp_path / "bomb.png", png_with_header(60_000, 60_000, bytes(100))))
    assert "60000 x 60000" in caught.value.what


def test_an_image_that_the_decoder_refuses_is_refused(tmp_path: Path) -> None:
    # The image is whole, but wider than OpenCV allows, and OpenCV then raises instead of returning None.
    with pytest.raises(ImageError) as caught:
        read_image(written(tmp_path / "wide.png", png_with_header(2**21, 1, bytes(1 + 2**21))))
    assert str(tmp_path / "wide.png") in caught.value.what


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
def test_damage_gives_an_image_or_an_image_error(tmp_path: Path, suffix: str) -> None:
    data, rng = encoded(quartered(), suffix), np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(data)
        for place in rng.integers(0, len(damaged), 3):
            damaged[place] = rng.integers(256)
        with suppress(ImageError):
            read = read_image(written(tmp_path / f"a{suffix}", bytes(damaged)))
            assert read.ndim == 3
            assert read.dtype == np.uint8


def test_a_gigantic_file_is_not_read(tmp_path: Path) -> None:
    path = written(tmp_path / "large.png", encoded(quartered(), ".png"))
    os.truncate(path, MAX_FILE_BYTES + 1)
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert str(MAX_FILE_BYTES + 1) in caught.value.what


def test_another_depth_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "float.tif", encoded(np.ones((8, 8), np.float32), ".tif"))
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert "float" in caught.value.what
