import os
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgead.errors import BundleError, ImageError, InputError
from edgead.imaging.header import read_header
from edgead.imaging.preprocess import (
    MAX_FILE_BYTES,
    ModelSize,
    batch_from_images,
    check_preprocess_spec,
    preprocess_spec,
    read_image,
    resize_to_model,
)

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


@pytest.mark.parametrize(
    ("text", "height", "width"), [("256", 256, 256), ("256x320", 256, 320), (" 32x2048 ", 32, 2048)]
)
def test_a_size_is_height_by_width(text: str, height: int, width: int) -> None:
    size = ModelSize.parse(text)
    assert (size.height_px, size.width_px) == (height, width)
    assert ModelSize.parse(str(size)) == size


@pytest.mark.parametrize(
    "text",
    ["", "0", "-256", "250", "31", "2080", "256x", "x256", "256x100", "256x256x3", "big", "256.0", "٢٥٦"],
)
def test_an_invalid_size_is_refused_by_its_value(text: str) -> None:
    with pytest.raises(InputError) as caught:
        ModelSize.parse(text)
    assert text in caught.value.what
    assert "256" in str(caught.value.hint)
    assert "\n" not in str(caught.value)


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
    webp = written(tmp_path / "a.webp", encoded(quartered(), ".webp"))
    for path in (text, empty, webp, tmp_path / "missing.png", tmp_path):
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
    # The header shows the damage before OpenCV decodes the file.
    header = read_header(bytes(data))
    assert header is not None
    assert not header.whole
    with pytest.raises(ImageError) as caught:
        read_image(written(path, bytes(data)))
    assert str(path) in caught.value.what


def test_an_image_that_declares_a_gigantic_size_is_not_decoded(tmp_path: Path) -> None:
    data = bytearray(encoded(quartered(), ".png"))
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    with pytest.raises(ImageError) as caught:
        read_image(written(tmp_path / "bomb.png", bytes(data)))
    assert "60000 x 60000" in caught.value.what


def test_an_image_that_the_decoder_refuses_is_refused(tmp_path: Path) -> None:
    data = bytearray(encoded(quartered(), ".png"))
    # The image is wider than OpenCV allows, and OpenCV then raises instead of returning None.
    data[16:24] = struct.pack(">II", 2**21, 1)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    header = read_header(bytes(data))
    assert header is not None
    assert header.whole
    with pytest.raises(ImageError) as caught:
        read_image(written(tmp_path / "wide.png", bytes(data)))
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
    assert "float32" in caught.value.what


def test_an_image_of_the_models_size_is_left_alone() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    assert resize_to_model(image, ModelSize(64, 96)) is image


def test_shrinking_averages_whole_areas() -> None:
    image = np.random.default_rng(0).integers(0, 256, (128, 96, 3), dtype=np.uint8)
    expected = image.reshape(64, 2, 32, 3, 3).mean(axis=(1, 3))
    resized = resize_to_model(image, ModelSize(64, 32))
    assert resized.dtype == np.uint8
    assert np.abs(resized - expected).max() <= 0.5 + 1e-4


def test_enlarging_interpolates_between_pixel_centres() -> None:
    row = np.array([0, 100, 40, 240] * 8, np.float64)
    image = np.repeat(np.repeat(row[np.newaxis, :, np.newaxis], 32, 0), 3, 2).astype(np.uint8)
    centres = (np.arange(64) + 0.5) / 2 - 0.5
    expected = np.interp(centres, np.arange(32), row)
    resized = resize_to_model(image, ModelSize(32, 64))
    assert np.abs(resized[7, :, 1] - expected).max() <= 1


def test_each_axis_is_averaged_or_interpolated_by_itself() -> None:
    # Columns alternate and are averaged away; rows are constant and grow.
    image = np.zeros((32, 128, 3), np.uint8)
    image[:, ::2] = 200
    resized = resize_to_model(image, ModelSize(64, 64))
    np.testing.assert_array_equal(resized, np.full((64, 64, 3), 100))


@pytest.mark.parametrize(
    "image",
    [np.zeros((32, 32), np.uint8), np.zeros((32, 32, 3), np.float32), np.zeros((0, 32, 3), np.uint8)],
)
def test_an_array_that_is_no_image_is_not_resized(image: np.ndarray) -> None:
    with pytest.raises(InputError) as caught:
        resize_to_model(image, ModelSize(32, 32))
    assert f"{image.shape} {image.dtype}" in caught.value.what


def test_a_batch_has_the_images_in_their_order() -> None:
    rng = np.random.default_rng(0)
    shapes = ((64, 64, 3), (100, 50, 3), (10, 20, 3))
    images = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
    batch = batch_from_images(images, ModelSize(64, 64))
    assert batch.shape == (3, 64, 64, 3)
    assert batch.flags.c_contiguous
    for row, image in zip(batch, images, strict=True):
        np.testing.assert_array_equal(row, resize_to_model(image, ModelSize(64, 64)))
    with pytest.raises(InputError) as caught:
        batch_from_images([], ModelSize(64, 64))
    assert "0 images" in caught.value.what


def test_the_recorded_steps_are_read_back() -> None:
    size = ModelSize(96, 160)
    assert check_preprocess_spec(preprocess_spec(size)) == size


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("shrink", "nearest"),
        ("colour", "BGR"),
        ("height_px", 100),
        ("height_px", "256"),
        ("width_px", True),
        ("width_px", None),
        ("letterbox", "grey"),
    ],
)
def test_unknown_steps_are_refused(key: str, value: object) -> None:
    spec: dict[str, object] = {**preprocess_spec(ModelSize(256, 256)), key: value}
    with pytest.raises(BundleError) as caught:
        check_preprocess_spec(spec)
    assert str(value) in caught.value.what
    assert "edgead build" in str(caught.value.hint)


def test_a_missing_step_is_refused() -> None:
    spec = preprocess_spec(ModelSize(256, 256))
    del spec["enlarge"]
    with pytest.raises(BundleError) as caught:
        check_preprocess_spec(spec)
    assert "enlarge" in caught.value.what
