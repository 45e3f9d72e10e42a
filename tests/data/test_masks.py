"""Masks of every kind of file with the same marked pixels, written by Pillow and OpenCV from a known array."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from edgead.data import Sample, read_mask
from edgead.data.masks import read_ignore_mask
from edgead.errors import DataError, ImageError
from edgead.imaging.view import View

# A square, a line of one pixel, and a pixel in a corner.
MARKED = np.zeros((24, 40), np.bool_)
MARKED[8:16, 8:24] = MARKED[20, 4:36] = MARKED[0, 39] = True


def write(path: Path, marked: np.ndarray, high: int = 255, dtype: type = np.uint8) -> None:
    assert cv2.imwrite(str(path), marked.astype(dtype) * dtype(high))


def as_grey(high: int, dtype: type = np.uint8) -> Callable[[Path], None]:
    return lambda path: write(path, MARKED, high, dtype)


def as_colour(red: int, green: int, blue: int) -> Callable[[Path], None]:
    def save(path: Path) -> None:
        Image.fromarray(MARKED[..., None] * np.array([red, green, blue], np.uint8)).save(path)

    return save


def as_bits(path: Path) -> None:
    Image.fromarray(MARKED).save(path)


def as_palette(*colours: int, marked_index: int = 1, **options: object) -> Callable[[Path], None]:
    def save(path: Path) -> None:
        image = Image.fromarray(np.where(MARKED, marked_index, 1 - marked_index).astype(np.uint8), "P")
        image.putpalette(list(colours))
        image.save(path, **options)

    return save


def as_layer(ink: int, paper: int, high: int) -> Callable[[Path], None]:
    """Draw opaque ink on a transparent layer, or on opaque paper where `high` says so."""

    def save(path: Path) -> None:
        colour = np.where(MARKED, ink, paper).astype(np.uint8)[..., None].repeat(3, axis=2)
        alpha = np.where(MARKED, 255, high).astype(np.uint8)[..., None]
        Image.fromarray(np.concatenate([colour, alpha], axis=2)).save(path)

    return save


def as_compressed(compression: str) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(MARKED.astype(np.uint8)).save(path, compression=compression)


def as_labels(path: Path) -> None:
    labels = MARKED.astype(np.uint8)
    labels[8:16, 8:16] *= 2
    labels[20] *= 255
    assert cv2.imwrite(str(path), labels)


LOSSLESS: dict[str, tuple[str, Callable[[Path], None]]] = {
    **{
        f"{suffix} of 8 bits, {high}": (suffix, as_grey(high))
        for suffix in ("png", "bmp", "tif")
        for high in (1, 128, 255)
    },
    **{
        f"{suffix} of 16 bits, {high}": (suffix, as_grey(high, np.uint16))
        for suffix in ("png", "tiff")
        for high in (1, 100, 255, 4095, 65535)
    },
    **{f"{suffix} of 1 bit": (suffix, as_bits) for suffix in ("png", "bmp", "tif")},
    "upper-case suffix": ("PNG", as_grey(255)),
    "mixed-case suffix": ("Tiff", as_grey(255)),
    "RGB, white": ("png", as_colour(255, 255, 255)),
    "RGB, a label in blue": ("png", as_colour(0, 0, 1)),
    "RGB, dark red": ("bmp", as_colour(128, 0, 0)),
    "several labels": ("png", as_labels),
    "palette, white": ("png", as_palette(0, 0, 0, 255, 255, 255)),
    "palette, label 1 of 255": ("png", as_palette(0, 0, 0, 1, 1, 1)),
    "palette, dark red": ("png", as_palette(0, 0, 0, 128, 0, 0)),
    "palette, white first": ("png", as_palette(255, 255, 255, 0, 0, 0, marked_index=0)),
    "palette of 1 bit": ("png", as_palette(0, 0, 0, 255, 0, 0, bits=1)),
    "palette of 4 bits": ("png", as_palette(0, 0, 0, 255, 0, 0, bits=4)),
    "palette in BMP": ("bmp", as_palette(0, 0, 0, 0, 255, 0)),
    "palette, transparent background": ("png", as_palette(255, 255, 255, 255, 0, 0, transparency=0)),
    "RGBA, opaque": ("png", as_layer(255, 0, 255)),
    "RGBA, 1 of 255, opaque": ("png", as_layer(1, 0, 255)),
    "white ink on a transparent layer": ("png", as_layer(255, 0, 0)),
    "white ink on a transparent white layer": ("png", as_layer(255, 255, 0)),
    "black ink on a transparent layer": ("png", as_layer(0, 0, 0)),
    "black ink on a transparent white layer": ("png", as_layer(0, 255, 0)),
    "LZW": ("tif", as_compressed("tiff_lzw")),
    "deflate": ("tif", as_compressed("tiff_adobe_deflate")),
}  # fmt: skip


@pytest.mark.parametrize(("suffix", "save"), LOSSLESS.values(), ids=LOSSLESS)
def test_the_same_pixels_are_marked(tmp_path: Path, suffix: str, save: Callable[[Path], None]) -> None:
    write(tmp_path / "a.png", MARKED)
    save(tmp_path / f"m.{suffix}")
    mask = read_mask(Sample(tmp_path / "a.png", 1, "cut", tmp_path / f"m.{suffix}"), (24, 40))
    np.testing.assert_array_equal(mask, MARKED)


@pytest.mark.parametrize("quality", [60, 75, 95])
@pytest.mark.parametrize("high", [100, 255])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_the_edges_of_a_lossy_mask_are_cut_at_half(
    tmp_path: Path, quality: int, high: int, mode: str
) -> None:
    marked = np.zeros((48, 64), np.bool_)
    marked[13:30, 19:50] = True
    write(tmp_path / "a.png", marked)
    Image.fromarray(marked.astype(np.uint8) * high).convert(mode).save(tmp_path / "m.JPG", quality=quality)
    mask = read_mask(Sample(tmp_path / "a.png", 1, "cut", tmp_path / "m.JPG"), (48, 64))
    np.testing.assert_array_equal(mask, marked)


def test_an_empty_mask_marks_nothing(tmp_path: Path) -> None:
    for name in ("m.png", "m.jpg"):
        write(tmp_path / name, np.zeros((24, 40), np.bool_))
        assert not read_mask(Sample(tmp_path / name, 1, "cut", tmp_path / name), (24, 40)).any()


def test_the_masks_of_a_folder_are_merged(tmp_path: Path) -> None:
    write(tmp_path / "a.png", MARKED)
    (tmp_path / "000").mkdir()
    first = MARKED.copy()
    first[8:] = False
    write(tmp_path / "000" / "000.png", first, 254)
    write(tmp_path / "000" / "001.PNG", MARKED & ~first, 1)
    (tmp_path / "000" / "notes.txt").touch()
    mask = read_mask(Sample(tmp_path / "a.png", 1, "cut", tmp_path / "000"), (24, 40))
    np.testing.assert_array_equal(mask, MARKED)


@pytest.mark.parametrize("shape", [(40, 24), (24, 24), (30, 40), (48, 40), (1, 40)])
def test_a_mask_of_another_aspect_than_its_image_is_an_error(tmp_path: Path, shape: tuple[int, int]) -> None:
    write(tmp_path / "a.png", MARKED)
    write(tmp_path / "m.png", np.ones(shape, np.bool_))
    with pytest.raises(ImageError) as caught:
        read_mask(Sample(tmp_path / "a.png", 1, "cut", tmp_path / "m.png"), (24, 40))
    for text in ("a.png", "m.png", "24 x 40", f"{shape[0]} x {shape[1]}"):
        assert text in caught.value.what


@pytest.mark.parametrize("shape", [(24, 40), (48, 80), (12, 20), (7, 12), (8, 13), (240, 400)])
def test_a_mask_of_another_size_is_the_same_mask(tmp_path: Path, shape: tuple[int, int]) -> None:
    write(tmp_path / "a.png", MARKED)
    mask = cv2.resize(MARKED.astype(np.uint8), shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    write(tmp_path / "m.png", mask)
    found = read_mask(Sample(tmp_path / "a.png", 1, "cut", tmp_path / "m.png"), shape)
    np.testing.assert_array_equal(found, mask > 0)


def test_a_mask_holds_the_pixels_above_zero(tmp_path: Path) -> None:
    values = np.zeros((4, 6), np.uint8)
    values[1, 2], values[3, 5] = 1, 255
    cv2.imwrite(str(tmp_path / "m.png"), values)
    cv2.imwrite(str(tmp_path / "a.png"), values)
    mask = read_mask(Sample(tmp_path / "a.png", 1, "cut", tmp_path / "m.png"), (4, 6))
    assert mask.dtype == np.bool_
    np.testing.assert_array_equal(mask, values > 0)


@pytest.mark.parametrize("shape", [(8, 12), (2, 3), (5, 12)])
def test_a_mask_is_resized_by_the_nearest_pixel(tmp_path: Path, shape: tuple[int, int]) -> None:
    values = np.random.default_rng(0).integers(0, 2, (4, 6)).astype(np.uint8) * 255
    cv2.imwrite(str(tmp_path / "m.png"), values)
    cv2.imwrite(str(tmp_path / "a.png"), values)
    mask = read_mask(Sample(tmp_path / "a.png", 1, "cut", tmp_path / "m.png"), shape)
    rows = ((np.arange(shape[0]) + 0.5) * 4 / shape[0]).astype(int)
    columns = ((np.arange(shape[1]) + 0.5) * 6 / shape[1]).astype(int)
    np.testing.assert_array_equal(mask, values[np.ix_(rows, columns)] > 0)


def test_a_good_sample_has_an_empty_mask(tmp_path: Path) -> None:
    mask = read_mask(Sample(tmp_path / "a.png", 0), (5, 7))
    assert mask.shape == (5, 7)
    assert not mask.any()


@pytest.mark.parametrize("label", [1, None])
def test_a_sample_that_may_be_defective_needs_a_mask(tmp_path: Path, label: int | None) -> None:
    with pytest.raises(DataError) as caught:
        read_mask(Sample(tmp_path / "a.png", label, "cut"), (5, 7))
    assert str(tmp_path / "a.png") in caught.value.what
    assert not isinstance(caught.value, ImageError)


def test_a_mask_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a.png", MARKED)
    with pytest.raises(ImageError) as caught:
        read_mask(Sample(tmp_path / "a.png", 1, "cut", tmp_path / "m.png"), (5, 7))
    assert str(tmp_path / "m.png") in caught.value.what


def test_an_ignore_mask_marks_some_pixels_but_not_all(tmp_path):
    file = tmp_path / "mask.png"
    write(file, MARKED)
    ignored = View(ignore=read_ignore_mask(file)).ignored()
    assert ignored is not None
    assert np.array_equal(ignored, MARKED)
    for every in (False, True):
        write(file, np.full_like(MARKED, every))
        with pytest.raises(ImageError) as caught:
            read_ignore_mask(file)
        assert str(file) in caught.value.what
