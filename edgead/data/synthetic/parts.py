"""Synthetic parts under a camera: the demo inspects them, and the tests train on them.

Licences of real images of parts forbid shipping them, so edgead draws its own. They have bevels and brushing under a
light from the upper left, tolerances in position, rotation and components, uneven light, lens blur and sensor noise. A
model therefore has to learn the variation of good parts. Images are drawn at twice the size and averaged down, which
smooths the edges.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from edgead.data.synthetic.circuit_board import draw_circuit_board
from edgead.errors import InputError
from edgead.types import BoolArray, Float32Array, UInt8Array

SIZE_MIN_PX = 64
_OVERSAMPLING = 2
_LIGHT = (-0.6, -0.8)  # direction to the light in the plane of the image: upper left
_BELT = (0.17, 0.18, 0.20)
_STREAKS = 10  # around a washer
_SENSOR_NOISE = 0.010
_LENS_BLUR = 0.6
_KNEE, _SHOULDER = 0.80, 0.16  # above the knee a camera compresses, so it never reaches full white


@dataclass(frozen=True, slots=True)
class Part:
    """A synthetic good part.

    Attributes:
        image: Image of the part, (H, W, 3) uint8 RGB.
        outline: Pixels of the part, (H, W) bool.
    """

    image: UInt8Array
    outline: BoolArray


def render_part(kind: str, rng: np.random.Generator, size_px: int = 256) -> Part:
    """Draw one good part.

    Args:
        kind: Kind of part, one of `KINDS`.
        rng: Random generator; it determines the part.
        size_px: Height and width of the image, in pixels, at least 64.

    Returns:
        The image of the part and its outline.

    Raises:
        InputError: The kind is unknown, or the size is below 64 pixels.
    """
    if kind not in _PAINTERS:
        raise InputError(f"part kind {kind!r} is unknown", hint=f"give one of {', '.join(KINDS)}")
    if size_px < SIZE_MIN_PX:
        raise InputError(f"size {size_px} px is too small to draw a part", hint=f"give {SIZE_MIN_PX} or more")
    colour, cover = _PAINTERS[kind](rng, size_px * _OVERSAMPLING)
    outline = cv2.resize(cover, (size_px, size_px), interpolation=cv2.INTER_AREA) > 0.02
    return Part(_photograph(colour, rng, size_px), outline)


def draw_part(kind: str, rng: np.random.Generator, size_px: int = 256) -> UInt8Array:
    """Draw the image of one good part; `render_part` returns its outline too.

    Args:
        kind: Kind of part, one of `KINDS`.
        rng: Random generator; it determines the part.
        size_px: Height and width of the image, in pixels, at least 64.

    Returns:
        Image of the part, (H, W, 3) uint8 RGB.

    Raises:
        InputError: The kind is unknown, or the size is below 64 pixels.
    """
    return render_part(kind, rng, size_px).image


def _smooth_noise(rng: np.random.Generator, size: int, cells: int) -> Float32Array:
    """Draw bumps about size / cells wide, (size, size) float32, with mean near 0 and standard deviation near 0.7."""
    coarse = rng.standard_normal((cells, cells), dtype=np.float32)
    return _float32(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC))


def _washer(rng: np.random.Generator, size: int) -> tuple[Float32Array, Float32Array]:
    x, y = _plane(size, rng, shift=0.03)
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    outer, inner = 0.74 * (1 + 0.004 * rng.standard_normal()), 0.34
    cover = _soft(outer - radius, size) * _soft(radius - inner, size)

    # Turned steel has fine rings from the tool, and the bow-tie sheen of these rings.
    rings = np.tile(rng.standard_normal((size, _STREAKS), dtype=np.float32), (1, 3))
    rings = cv2.resize(rings, (3 * size, size), interpolation=cv2.INTER_LINEAR)
    across = (angle * (size / (2 * np.pi)) + (1.5 * size - 0.5)).astype(np.float32)
    brushed = cv2.remap(rings, across, (radius * (size / 2)).astype(np.float32), cv2.INTER_LINEAR)
    sheen = np.cos(2 * (angle - np.arctan2(_LIGHT[1], _LIGHT[0]) - 0.05 * rng.standard_normal()))
    edge_out = np.clip(1 - (outer - radius) / 0.05, 0, 1)
    edge_in = np.clip(1 - (radius - inner) / 0.045, 0, 1)
    facing = (x * _LIGHT[0] + y * _LIGHT[1]) / np.maximum(radius, 1e-3)
    grey = 0.60 + 0.13 * sheen + 0.06 * brushed + 0.32 * facing * (edge_out - edge_in)
    steel = grey[..., np.newaxis] * _rgb(0.99, 1.0, 1.02)
    return _lay(_belt(rng, size), steel, cover, lift=0.02), cover


def _tablet(rng: np.random.Generator, size: int) -> tuple[Float32Array, Float32Array]:
    x, y = _plane(size, rng, shift=0.03)
    turn = 0.15 * rng.standard_normal()
    along, over = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    radius, edge = np.hypot(x, y), 0.66
    cover = _soft(edge - radius, size)

    # The dome, its rim, the score line and the letters are one relief, so the light falls on them alike.
    dome = 0.30 * np.sqrt(np.maximum(1 - (radius / edge) ** 2, 0)) - 0.08 * np.clip(
        (radius - 0.56) / 0.1, 0, 1
    )
    score = -0.035 * np.exp(-((over / 0.022) ** 2))
    pressed = np.zeros((size, size), np.uint8)
    for text, row in (("EA", 0.385), ("20", 0.64)):
        (width, tall), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_DUPLEX, size / 165, max(size // 72, 1))
        place = ((size - width) // 2, round(size * row) + tall // 2)
        cv2.putText(
            pressed, text, place, cv2.FONT_HERSHEY_DUPLEX, size / 165, 255, max(size // 72, 1), cv2.LINE_AA
        )
    column = ((along + 1) * (size / 2)).astype(np.float32)
    letters = cv2.remap(
        pressed.astype(np.float32) / 255,
        column,
        ((over + 1) * (size / 2)).astype(np.float32),
        cv2.INTER_LINEAR,
    )
    letters = cv2.GaussianBlur(letters, (0, 0), size / 220)
    relief = (dome + score - 0.02 * letters).astype(np.float32)
    grain = 0.010 * _smooth_noise(rng, size, size // 4) + 0.008 * _smooth_noise(rng, size, 24)
    light = 0.72 + 0.44 * _slope_to_light(relief, size) + grain
    tablet = light[..., np.newaxis] * _rgb(1.0, 0.965, 0.90)
    return _lay(_belt(rng, size), tablet, cover, lift=0.035), cover


def _fabric(rng: np.random.Generator, size: int) -> tuple[Float32Array, Float32Array]:
    x, y = _plane(size, rng, shift=0.5)
    turn = 0.02 * rng.standard_normal()
    sway = [0.22 * _smooth_noise(rng, size, 5) for _ in range(2)]
    # In units of yarns: the integer parts are column and row of a crossing, the fractions are the place inside it.
    warp = 17 * (x * np.cos(turn) + y * np.sin(turn)) + 60 + sway[0]
    weft = 17 * (y * np.cos(turn) - x * np.sin(turn)) + 60 + sway[1]
    column, row = np.floor(warp).astype(np.intp), np.floor(weft).astype(np.intp)
    over = (column + row) % 3 != 0  # a 2/1 twill, which gives the diagonal of denim
    rounding = np.where(over, np.sin(np.pi * (warp - column)), np.sin(np.pi * (weft - row)))
    dye = np.where(over, rng.standard_normal(128)[column % 128], rng.standard_normal(128)[row % 128])
    fibres = _smooth_noise(rng, size, size // 3)
    light = 0.62 + 0.38 * rounding + 0.05 * dye + 0.05 * fibres
    yarn = np.where(over[..., np.newaxis], _rgb(0.25, 0.36, 0.58), _rgb(0.72, 0.74, 0.76))
    return _float32(yarn * light[..., np.newaxis]), np.ones((size, size), np.float32)


def _pcb(rng: np.random.Generator, size: int) -> tuple[Float32Array, Float32Array]:
    board, relief, cover = draw_circuit_board(rng, size)
    board = board * (1 + 0.35 * _slope_to_light(relief, size))[..., np.newaxis]
    board += 0.012 * _smooth_noise(rng, size, size // 3)[..., np.newaxis]
    alignment = cv2.getRotationMatrix2D((size / 2, size / 2), 1.2 * rng.standard_normal(), 1.0)
    alignment[:, 2] += rng.uniform(-0.012, 0.012, 2) * size
    board, cover = (
        _float32(cv2.warpAffine(layer, alignment, (size, size))) for layer in (_float32(board), cover)
    )
    return _lay(_belt(rng, size), board, cover, lift=0.02), cover


_PAINTERS: dict[str, Callable[[np.random.Generator, int], tuple[Float32Array, Float32Array]]] = {
    "washer": _washer,
    "pcb": _pcb,
    "fabric": _fabric,
    "tablet": _tablet,
}
KINDS = tuple(_PAINTERS)


def _plane(size: int, rng: np.random.Generator, shift: float) -> tuple[Float32Array, Float32Array]:
    """Return coordinates x to the right and y down, -1 to 1 over the image, around a randomly shifted centre."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1
    centre = rng.uniform(-shift, shift, 2).astype(np.float32)
    x, y = np.meshgrid(axis - centre[0], axis - centre[1])
    return x, y


def _soft(inside: npt.NDArray[np.floating], size: int) -> Float32Array:
    """Return 1 where a signed distance in units of the plane is positive, else 0, with an edge one pixel wide."""
    return _float32(np.clip(inside * (size / 2) + 0.5, 0, 1))


def _slope_to_light(relief: Float32Array, size: int) -> Float32Array:
    """Return how much the slopes of a relief, in units of the plane, face the light: -1 to 1."""
    scale = size / 2 / 8  # a 3x3 Sobel kernel gives 8 for a slope of one per pixel
    down = cv2.Sobel(relief, cv2.CV_32F, 0, 1) * scale
    right = cv2.Sobel(relief, cv2.CV_32F, 1, 0) * scale
    return _float32(np.clip(-(right * _LIGHT[0] + down * _LIGHT[1]), -1, 1))


def _belt(rng: np.random.Generator, size: int) -> Float32Array:
    """Draw a dark ribbed conveyor belt at a random phase of its ribs, (size, size, 3)."""
    rows = np.arange(size, dtype=np.float32)[:, np.newaxis] * (2 * np.pi * 22 / size)
    ribs = 0.018 * np.sin(rows + rng.uniform(0, 2 * np.pi))
    grey = (
        1
        + (ribs + 0.012 * _smooth_noise(rng, size, size // 4) + 0.015 * _smooth_noise(rng, size, 6))
        / _BELT[1]
    )
    return _float32(grey[..., np.newaxis] * _rgb(*_BELT))


def _lay(ground: Float32Array, part: Float32Array, cover: Float32Array, lift: float) -> Float32Array:
    """Lay a part on the belt, with the soft shadow of a part `lift` high on the side away from the light."""
    size = cover.shape[0]
    offset = _float32([[1, 0, -_LIGHT[0] * lift * size / 2], [0, 1, -_LIGHT[1] * lift * size / 2]])
    shadow = cv2.GaussianBlur(cv2.warpAffine(cover, offset, (size, size)), (0, 0), lift * size / 2)
    shaded = ground * (1 - 0.65 * shadow)[..., np.newaxis]
    return _float32(shaded + (part - shaded) * cover[..., np.newaxis])


def _photograph(colour: Float32Array, rng: np.random.Generator, size_px: int) -> UInt8Array:
    """Simulate the camera: uneven and varying light, lens blur, a knee, noise and 8 bits."""
    small = cv2.resize(_float32(colour), (size_px, size_px), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), _LENS_BLUR * size_px / 256)
    axis = np.linspace(-1, 1, size_px, dtype=np.float32)
    gain = 1 + 0.02 * rng.standard_normal()
    tilt = -0.05 * np.array(_LIGHT)[::-1] + 0.012 * rng.standard_normal(2)
    light = np.float32(gain) * (1 - tilt[0] * axis[:, np.newaxis] - tilt[1] * axis[np.newaxis, :])
    exposed = small * light[..., np.newaxis]
    exposed = np.where(exposed > _KNEE, _KNEE + _SHOULDER * np.tanh((exposed - _KNEE) / _SHOULDER), exposed)
    noise = _SENSOR_NOISE * rng.standard_normal(small.shape, dtype=np.float32)
    return np.asarray(np.clip((exposed + noise) * 255 + 0.5, 0, 255), np.uint8)


def _rgb(*colour: float) -> Float32Array:
    return np.array(colour, np.float32)


def _float32(array: object) -> Float32Array:
    return np.asarray(array, np.float32)
