"""Defects on synthetic parts, each with the exact mask of the pixels that it changes.

A defect is a shape and its colour. Scratches, dents and cracks darken and brighten the surface, so grain and noise stay
visible. A hole shows the background behind the part. Contamination covers the part. Every pixel in the mask changes
visibly, and no pixel outside the mask changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np

from edgead.errors import InputError
from edgead.types import BoolArray, Float32Array, UInt8Array

# A pixel belongs to a defect if the shape covers at least this share of it. It then changes by at least this many grey
# levels.
_COVER_MIN = 0.2
_CHANGE_MIN = 10
_SUBPIXEL_BITS = 4
_TRIES = 20

# Cover of a defect (H, W) from 0 to 1, and its colour at full cover (H, W, 3) from 0 to 255.
_Layer = tuple[Float32Array, Float32Array]


def add_defect(
    image: UInt8Array, defect: str, rng: np.random.Generator, within: BoolArray | None = None
) -> tuple[UInt8Array, BoolArray]:
    """Add one defect to a copy of an image.

    Args:
        image: Image of a part, (H, W, 3) uint8 RGB. It is not changed.
        defect: Kind of defect, one of `DEFECTS`.
        rng: Random generator; it determines the defect.
        within: Pixels of the part, (H, W) bool, such as `Part.outline`; the defect stays inside them. None allows the
            whole image.

    Returns:
        The changed copy, (H, W, 3) uint8 RGB, and the mask of the changed pixels, (H, W) bool.

    Raises:
        InputError: The kind of defect is unknown, or the part is too small for it.
    """
    if defect not in _PAINTERS:
        raise InputError(f"defect {defect!r} is unknown", hint=f"give one of {', '.join(DEFECTS)}")
    part = np.ones(image.shape[:2], np.bool_) if within is None else within
    if not part.any():
        raise InputError(f"the part for a {defect} has 0 pixels", hint="give at least one pixel")
    before = image.astype(np.float32)
    for _ in range(_TRIES):
        cover, colour = _PAINTERS[defect](before, part, rng)
        mask = _without_specks((cover >= _COVER_MIN) & part, 16 * _unit(before) ** 2)
        if mask.sum() >= image.shape[0] * image.shape[1] * _AREA_MIN[defect]:
            break
    else:
        raise InputError(
            f"no room for a {defect} on a part of {int(part.sum())} pixels", hint="give a larger part"
        )
    after = before + (colour - before) * cover[..., np.newaxis]
    return _visibly_changed(image, after, mask), mask


def _scratch(image: Float32Array, part: BoolArray, rng: np.random.Generator) -> _Layer:
    unit = _unit(image)
    path = _walk(rng, _place(part, rng), 0.42 * rng.uniform(0.6, 1.0) * _side(image), bend=0.05)
    width = unit * rng.uniform(1.4, 2.3)
    groove = _stroke(part.shape, [path], [width])
    # The far wall of the groove faces the light, so a bright line runs along the dark one.
    wall = _stroke(part.shape, [path + unit * _float32([1.0, 1.2])], [width * 0.7])
    shade = rng.uniform(48, 80) * (-1 if _brightness_at(image, groove) > 90 else 1)
    colour = image + (shade * groove - 0.8 * shade * wall * (1 - groove))[..., np.newaxis]
    return np.maximum(groove, wall), _bounded(colour)


def _crack(image: Float32Array, part: BoolArray, rng: np.random.Generator) -> _Layer:
    unit = _unit(image)
    length = 0.40 * rng.uniform(0.7, 1.0) * _side(image)
    trunk = _walk(rng, _place(part, rng), length, bend=0.38)
    paths, widths = [trunk], [unit * rng.uniform(1.5, 2.2)]
    for _ in range(rng.integers(2, 4)):
        joint = trunk[rng.integers(len(trunk) // 4, 3 * len(trunk) // 4)]
        paths.append(_walk(rng, joint, length * rng.uniform(0.2, 0.4), bend=0.38))
        widths.append(unit * 1.2)
    cover = _stroke(part.shape, paths, widths)
    return _float32(0.8 * cover), np.full_like(image, 18)


def _dent(image: Float32Array, part: BoolArray, rng: np.random.Generator) -> _Layer:
    radius = rng.uniform(0.045, 0.075) * _side(image)
    stretch, turn = rng.uniform(0.75, 1.3), rng.uniform(0, np.pi)
    x, y = _plane(part, _place(part, rng))
    along, over = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    squared = (along / (radius * stretch)) ** 2 + (over * stretch / radius) ** 2
    # The slope of a bowl under light from the upper left: dark on the near wall, bright on the far one.
    slope = (0.6 * x + 0.8 * y) / radius * np.exp(-1.6 * squared)
    depth = rng.uniform(0.6, 1.0)
    colour = image * (0.94 + depth * slope)[..., np.newaxis] + (50 * depth * slope)[..., np.newaxis]
    return _float32(np.clip(4 * (1 - squared), 0, 1)), _bounded(colour)


def _hole(image: Float32Array, part: BoolArray, rng: np.random.Generator) -> _Layer:
    cover = _blob(part, rng, _place(part, rng), rng.uniform(0.045, 0.08) * _side(image), roughness=0.2)
    behind = image[~part].mean(axis=0) if not part.all() else _float32([16, 15, 14])
    grain = cv2.GaussianBlur(rng.normal(0, 5, part.shape).astype(np.float32), (0, 0), 0.7)
    # The near wall casts a shadow on the background, so the hole is darker towards the upper left.
    shift = _float32([[1, 0, 2.4 * _unit(image)], [0, 1, 3.2 * _unit(image)]])
    lit = cv2.warpAffine(cover, shift, part.shape[::-1])
    return cover, _bounded((0.4 + 0.6 * lit)[..., np.newaxis] * behind + grain[..., np.newaxis])


def _contamination(image: Float32Array, part: BoolArray, rng: np.random.Generator) -> _Layer:
    radius = rng.uniform(0.05, 0.085) * _side(image)
    centre = _place(part, rng)
    cover = _blob(part, rng, centre, radius, roughness=0.35)
    for _ in range(rng.integers(2, 5)):
        drop = centre + rng.normal(0, 1.3 * radius, 2).astype(np.float32)
        cover = np.maximum(cover, _blob(part, rng, drop, radius * rng.uniform(0.12, 0.3), roughness=0.15))
    stain = _float32(_STAINS[rng.integers(len(_STAINS))])
    mottled = cv2.GaussianBlur(rng.normal(0, 60, part.shape).astype(np.float32), (0, 0), 3 * _unit(image))
    return _float32(0.82 * cover), _bounded(stain + mottled[..., np.newaxis])


_STAINS = ((112, 62, 26), (44, 36, 20), (150, 118, 30))  # rust, oil, grease

_PAINTERS: dict[str, Callable[[Float32Array, BoolArray, np.random.Generator], _Layer]] = {
    "scratch": _scratch,
    "dent": _dent,
    "crack": _crack,
    "hole": _hole,
    "contamination": _contamination,
}
DEFECTS = tuple(_PAINTERS)

# Smallest area of a defect, as a share of the image. A defect that lies mostly off the part is drawn again.
_AREA_MIN = {"scratch": 0.0025, "dent": 0.005, "crack": 0.0025, "hole": 0.004, "contamination": 0.005}


def _visibly_changed(image: UInt8Array, after: Float32Array, mask: BoolArray) -> UInt8Array:
    """Return `after` inside the mask and `image` outside; changes too faint to see are made stronger."""
    change = np.rint(after) - image
    faint = np.abs(change).max(axis=2, keepdims=True) < _CHANGE_MIN
    # Dark pixels become brighter and bright ones darker, because clipping would undo the opposite.
    push = np.where(image.mean(axis=2, keepdims=True) < 128, _CHANGE_MIN, -_CHANGE_MIN)
    changed = np.clip(image + np.where(faint, push, change), 0, 255).astype(np.uint8)
    return np.where(mask[..., np.newaxis], changed, image)


def _without_specks(mask: BoolArray, area_min: float) -> BoolArray:
    """Remove connected regions of fewer than `area_min` pixels from a mask: nobody would see them as defects."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    large = stats[:, cv2.CC_STAT_AREA] >= area_min
    large[0] = False
    return np.asarray(large[labels], np.bool_)


def _unit(image: Float32Array) -> float:
    """Return the scale of lengths: the size of one pixel of an image of 256x256 pixels, in pixels of this image."""
    return _side(image) / 256


def _side(image: Float32Array | BoolArray) -> float:
    """Return the side of a square as large as an image, because a wide image gets defects as large as a square one."""
    return math.sqrt(image.shape[0] * image.shape[1])


def _place(part: BoolArray, rng: np.random.Generator) -> Float32Array:
    """Draw a point (x, y) on the part, away from its edge if the part is large enough."""
    depth = cv2.distanceTransform(np.pad(part, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    rows, columns = np.nonzero(part & (depth >= min(0.03 * _side(part), 0.5 * depth.max())))
    pick = rng.integers(len(rows))
    return _float32([columns[pick], rows[pick]])


def _plane(part: BoolArray, centre: Float32Array) -> tuple[Float32Array, Float32Array]:
    """Return the coordinates x and y of the pixels relative to `centre`, in pixels: (H, W) each."""
    rows, columns = np.indices(part.shape, dtype=np.float32)
    return columns - centre[0], rows - centre[1]


def _walk(rng: np.random.Generator, centre: Float32Array, length: float, bend: float) -> Float32Array:
    """Draw points (K, 2) of a line through `centre` that turns by about `bend` radians at each step."""
    steps = 24
    angles = np.full(steps, rng.uniform(0, 2 * np.pi))
    turned = 0.0
    for step in range(steps):
        turned = 0.85 * turned + rng.normal(0, bend)  # decays, so that the line makes no knots
        angles[step] += turned
    points = np.cumsum(np.stack([np.cos(angles), np.sin(angles)], 1) * (length / steps), axis=0)
    return _float32(points - points[steps // 2] + centre)


def _stroke(shape: tuple[int, ...], paths: list[Float32Array], widths: list[float]) -> Float32Array:
    """Return the cover (H, W), 0 to 1, of lines with round ends, drawn at four times the size and averaged."""
    scale = 4
    canvas = np.zeros((shape[0] * scale, shape[1] * scale), np.uint8)
    for path, width in zip(paths, widths, strict=True):
        points = np.rint((path + 0.5) * scale * 2**_SUBPIXEL_BITS).astype(np.int32)
        cv2.polylines(canvas, [points], False, 255, max(round(width * scale), 1), cv2.LINE_8, _SUBPIXEL_BITS)
    small = cv2.resize(canvas, shape[1::-1], interpolation=cv2.INTER_AREA)
    return _float32(small / np.float32(255))


def _blob(
    part: BoolArray, rng: np.random.Generator, centre: Float32Array, radius: float, roughness: float
) -> Float32Array:
    """Return the cover (H, W), 0 to 1, of an irregular shape of about `radius` with an edge one pixel wide."""
    x, y = _plane(part, centre)
    angle, rim = np.arctan2(y, x), np.ones(part.shape, np.float32)
    for lobe in range(2, 7):
        rim += roughness * 2 / lobe**1.5 * rng.normal() * np.cos(lobe * angle + rng.uniform(0, 2 * np.pi))
    return _float32(np.clip(radius * np.clip(rim, 0.5, 1.6) - np.hypot(x, y) + 0.5, 0, 1))


def _brightness_at(image: Float32Array, cover: Float32Array) -> float:
    """Return the mean grey level of an image under a cover (H, W)."""
    return float((image.mean(axis=2) * cover).sum() / max(float(cover.sum()), 1e-6))


def _float32(array: object) -> Float32Array:
    return np.asarray(array, np.float32)


def _bounded(colour: object) -> Float32Array:
    return _float32(np.clip(_float32(colour), 0, 255))
