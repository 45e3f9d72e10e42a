"""Textures that fill the spots of a pseudo-anomaly: procedural textures, or images of a folder.

DRAEM uses the Describable Textures Dataset (Cimpoi et al., CVPR 2014), which not everybody has or may use. Procedural
textures need no file. Their kinds differ in scale, direction, sharpness of edges and colour.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from edgead.data.pseudo_anomalies.perlin import perlin_noise
from edgead.errors import DataError
from edgead.imaging.decode import IMAGE_SUFFIXES, read_image
from edgead.types import Float32Array, UInt8Array

# The search stops here, because a folder given by mistake, such as a home directory, may be huge.
MAX_FILES = 100_000
# Smallest crop of an image, as a share of the sides of the largest crop that fits.
CROP_MIN = 0.5


class Textures(Protocol):
    """A source of textures."""

    @property
    def fingerprint(self) -> str:
        """ID of the source. Sources that draw different textures from the same `rng` have different IDs."""

    def draw(self, height: int, width: int, rng: np.random.Generator) -> UInt8Array:
        """Draw a texture.

        Args:
            height: Height of the texture, in pixels.
            width: Width of the texture, in pixels.
            rng: Random generator; it determines the texture.

        Returns:
            Texture, (height, width, 3) uint8 RGB.
        """


class ProceduralTextures:
    """Computed textures, each of a random kind of `KINDS`; no file is read.

    Attributes:
        fingerprint: ID of the source.
    """

    fingerprint = "procedural"

    def draw(self, height: int, width: int, rng: np.random.Generator) -> UInt8Array:
        """Draw a texture of a random kind, in random colours. See Textures.draw."""
        kinds = tuple(KINDS.values())
        return kinds[rng.integers(len(kinds))](height, width, rng)


class FolderTextures:
    """Textures cut from the images in a folder and its subfolders, such as the Describable Textures Dataset.

    Images are PNG, JPEG, BMP, TIFF and WebP files by their suffix. Hidden files, hidden folders and other files are
    skipped; links to folders are not followed. An image is read only when a texture is drawn from it.

    Args:
        folder: Folder of the images.

    Attributes:
        paths: Image files, sorted within each folder.
        fingerprint: ID of the source: a hash of the names and sizes of the files.

    Raises:
        DataError: The folder is missing, cannot be read, holds no image, or holds more than `MAX_FILES` files.
    """

    def __init__(self, folder: Path) -> None:
        self.paths = _images_below(Path(folder))
        # Names and sizes only: to read all files of a large folder would take minutes.
        known = [(path.relative_to(folder).as_posix(), path.stat().st_size) for path in self.paths]
        self.fingerprint = hashlib.sha256(repr(known).encode()).hexdigest()

    def draw(self, height: int, width: int, rng: np.random.Generator) -> UInt8Array:
        """Cut a random crop from a random image, resize it, and flip it randomly along each axis.

        Args:
            height: Height of the texture, in pixels.
            width: Width of the texture, in pixels.
            rng: Random generator; it determines the texture.

        Returns:
            Texture, (height, width, 3) uint8 RGB. The crop has the same aspect ratio.

        Raises:
            ImageError: The image file cannot be read.
        """
        image = read_image(self.paths[rng.integers(len(self.paths))])
        scale = rng.uniform(CROP_MIN, 1.0) * min(image.shape[0] / height, image.shape[1] / width)
        rows, columns = max(1, int(scale * height)), max(1, int(scale * width))
        top = rng.integers(image.shape[0] - rows, endpoint=True)
        left = rng.integers(image.shape[1] - columns, endpoint=True)
        piece = image[top : top + rows, left : left + columns]
        way = cv2.INTER_AREA if scale > 1.0 else cv2.INTER_LINEAR
        texture = cv2.resize(piece, (width, height), interpolation=way)
        down, across = 1 - 2 * rng.integers(0, 2, 2)
        return np.ascontiguousarray(texture[::down, ::across], np.uint8)


def _images_below(root: Path) -> tuple[Path, ...]:
    """List the image files in a folder and its subfolders, in a fixed order."""
    if not root.is_dir():
        raise DataError(
            f"{root} is {'not a folder' if root.exists() else 'missing'}",
            hint="give a folder of images of textures",
        )
    paths: list[Path] = []
    seen = 0
    for folder, inside, names in os.walk(root, onerror=_cannot_read):
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        seen += len(names)
        if seen > MAX_FILES:
            raise DataError(
                f"{root} holds more than {MAX_FILES} files", hint="give a folder that holds only textures"
            )
        paths += (
            Path(folder, name)
            for name in sorted(names)
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
        )
    if not paths:
        raise DataError(
            f"no image in {root}", hint="put PNG, JPEG, BMP, TIFF or WebP images of textures there"
        )
    return tuple(paths)


def _cannot_read(error: OSError) -> None:
    raise DataError(
        f"cannot read {error.filename} ({error.strerror or error})", hint="check the path and its permissions"
    ) from error


def _grain(height: int, width: int, rng: np.random.Generator) -> UInt8Array:
    """Draw noise around one colour, in grains of one size; each channel has its own noise, or all share it."""
    size = _side(height, width) * 2.0 ** rng.uniform(-8, -3)
    rows, columns = (int(side / max(1.0, size)) + 2 for side in (height, width))
    small = rng.normal(0.0, rng.uniform(30, 90), (rows, columns, 3)).astype(np.float32)
    if rng.integers(2):
        small[:] = small[..., :1]
    return _bounded(_colours(1, rng) + _enlarged(small, height, width))


def _stripes(height: int, width: int, rng: np.random.Generator) -> UInt8Array:
    """Draw stripes of two colours in a random direction, with hard or soft edges."""
    along, _ = _turned_plane(height, width, rng)
    wave = np.sin(along * (2 * np.pi / (_side(height, width) * 2.0 ** rng.uniform(-5, -1.5))))
    if rng.integers(2):
        wave = np.sign(wave)
    return _two_colours(0.5 + 0.5 * wave, rng)


def _checks(height: int, width: int, rng: np.random.Generator) -> UInt8Array:
    """Draw a rotated checkerboard of two colours with rectangular fields."""
    along, over = _turned_plane(height, width, rng)
    sides = _side(height, width) * 2.0 ** rng.uniform(-5, -2, 2)
    return _two_colours((np.floor(along / sides[0]) + np.floor(over / sides[1])) % 2, rng)


def _dots(height: int, width: int, rng: np.random.Generator) -> UInt8Array:
    """Draw discs of one colour on another colour, in rotated rows."""
    along, over = _turned_plane(height, width, rng)
    step = _side(height, width) * 2.0 ** rng.uniform(-4.5, -2)
    distance = np.hypot(along % step - step / 2, over % step - step / 2)
    return _two_colours(distance < rng.uniform(0.2, 0.45) * step, rng)


def _cells(height: int, width: int, rng: np.random.Generator) -> UInt8Array:
    """Draw Voronoi cells of random points; each cell has its own colour and is darker towards its edge."""
    points = np.ones((height, width), np.uint8)
    count = int(2.0 ** rng.uniform(4, 8))
    points[rng.integers(0, height, count), rng.integers(0, width, count)] = 0
    distance, label = cv2.distanceTransformWithLabels(points, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    shade = 1.0 - rng.uniform(0.0, 0.8) * distance / max(1.0, float(distance.max()))
    return _bounded(_colours(count + 1, rng)[label] * shade[..., None])


def _blotches(height: int, width: int, rng: np.random.Generator) -> UInt8Array:
    """Draw spots of a few colours with winding borders, from Perlin noise of two sizes."""
    cells = 2 ** int(rng.integers(1, 4))
    noise = perlin_noise(height, width, (cells, cells), rng)
    noise += 0.5 * perlin_noise(height, width, (2 * cells, 2 * cells), rng)
    count = int(rng.integers(3, 7))
    steps = np.quantile(noise, np.linspace(0, 1, count + 1)[1:-1])
    return _bounded(_colours(count, rng)[np.searchsorted(steps, noise)])


def _gradient(height: int, width: int, rng: np.random.Generator) -> UInt8Array:
    """Draw a smooth gradient between a few colours."""
    rows, columns = rng.integers(2, 5, 2)
    return _bounded(_enlarged(_colours(int(rows * columns), rng).reshape(rows, columns, 3), height, width))


KINDS: Mapping[str, Callable[[int, int, np.random.Generator], UInt8Array]] = MappingProxyType(
    {
        "grain": _grain,
        "stripes": _stripes,
        "checks": _checks,
        "dots": _dots,
        "cells": _cells,
        "blotches": _blotches,
        "gradient": _gradient,
    }
)
"""Kinds of procedural textures by name: functions that draw a texture, (height, width, 3) uint8 RGB."""


def _side(height: int, width: int) -> int:
    """Return the unit of the sizes in a texture, so that large images get the same textures, enlarged."""
    return min(height, width)


def _turned_plane(height: int, width: int, rng: np.random.Generator) -> tuple[Float32Array, Float32Array]:
    """Return coordinates of the pixels, in pixels, along a random direction and across it: (H, W) each."""
    rows, columns = np.indices((height, width), dtype=np.float32)
    angle = rng.uniform(0.0, np.pi)
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    shift = rng.uniform(0.0, _side(height, width), 2).astype(np.float32)
    return cosine * columns + sine * rows + shift[0], cosine * rows - sine * columns + shift[1]


def _colours(count: int, rng: np.random.Generator) -> Float32Array:
    """Draw random colours, (count, 3) float32 from 0 to 255, with one random share of grey for all of them.

    Only pure colours would make anomalies too easy to detect by colour; dirt, rust and scratches are dull.
    """
    pure = rng.uniform(0.0, 255.0, (count, 3))
    grey = rng.uniform(0.0, 255.0, (count, 1))
    return np.asarray(grey + rng.uniform() ** 2 * (pure - grey), np.float32)


def _two_colours(share: npt.ArrayLike, rng: np.random.Generator) -> UInt8Array:
    """Mix two random colours by `share` (H, W): 0 gives the first, 1 the second."""
    one, other = _colours(2, rng)
    return _bounded(one + np.asarray(share, np.float32)[..., None] * (other - one))


def _enlarged(small: Float32Array, height: int, width: int) -> Float32Array:
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


def _bounded(colour: Float32Array) -> UInt8Array:
    return np.clip(np.rint(colour), 0, 255).astype(np.uint8)
