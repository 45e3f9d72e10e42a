"""The circuit board among the synthetic parts: a fixed layout, with the tolerances of an assembly machine."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from edgead.types import Float32Array, UInt8Array

_MASK = (0.05, 0.30, 0.17)
_TRACE = (0.09, 0.40, 0.23)
_TIN = (0.72, 0.73, 0.72)
_GOLD = (0.78, 0.62, 0.28)
_BLACK = (0.11, 0.11, 0.12)
_PRINT = (0.82, 0.85, 0.82)
_CERAMIC = (0.62, 0.50, 0.36)
_HOLE = (0.10, 0.10, 0.11)

_LIFT_STEPS = 4000
_EDGE = 0.09  # the circuit board leaves this share of the image free on each side

# Chips: centre x, y, width, height, pins along each side, pins on four sides or two, label. Lengths are in units of the
# circuit board.
_CHIPS = (
    (0.36, 0.40, 0.27, 0.27, 8, True, "EA-7"),
    (0.78, 0.27, 0.15, 0.24, 6, False, "M25"),
)
_CANS = ((0.76, 0.68, 0.085), (0.55, 0.74, 0.06))
_RESISTORS = (
    (0.66, 0.50),
    (0.74, 0.50),
    (0.82, 0.50),
    (0.90, 0.50),
    (0.20, 0.66),
    (0.20, 0.72),
    (0.36, 0.66),
    (0.36, 0.72),
)
_CAPACITORS = ((0.13, 0.30), (0.13, 0.40), (0.13, 0.50), (0.60, 0.20), (0.60, 0.30))
_HEADER_PINS = 7


@dataclass(frozen=True, slots=True)
class _Canvas:
    """Colour (S, S, 3) and relief (S, S), both in 8 bits, because OpenCV smooths edges and text only in 8 bits.

    Places and sizes are in units of the circuit board, colours are from 0 to 1, and lifts are in units of half the
    width of the image.
    """

    colour: UInt8Array
    relief: UInt8Array

    @property
    def scale(self) -> float:
        return float(self.colour.shape[0]) * (1 - 2 * _EDGE)

    def at(self, x: float, y: float) -> tuple[int, int]:
        margin = self.colour.shape[0] * _EDGE
        return round(margin + x * self.scale), round(margin + y * self.scale)

    def box(
        self, x: float, y: float, width: float, height: float, colour: tuple[float, ...], lift: float = 0.0
    ) -> None:
        start, end = self.at(x - width / 2, y - height / 2), self.at(x + width / 2, y + height / 2)
        cv2.rectangle(self.colour, start, end, _ink(colour), -1, cv2.LINE_AA)
        cv2.rectangle(self.relief, start, end, lift * _LIFT_STEPS, -1, cv2.LINE_AA)

    def disc(self, x: float, y: float, radius: float, colour: tuple[float, ...], lift: float = 0.0) -> None:
        centre, pixels = self.at(x, y), max(round(radius * self.scale), 1)
        cv2.circle(self.colour, centre, pixels, _ink(colour), -1, cv2.LINE_AA)
        cv2.circle(self.relief, centre, pixels, lift * _LIFT_STEPS, -1, cv2.LINE_AA)

    def text(self, x: float, y: float, text: str, height: float) -> None:
        size = height * self.scale / 22
        line = max(round(size * 1.2), 1)
        (width, tall), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, line)
        left, base = self.at(x, y)
        place = (left - width // 2, base + tall // 2)
        cv2.putText(self.colour, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, _ink(_PRINT), line, cv2.LINE_AA)


def draw_circuit_board(
    rng: np.random.Generator, size: int
) -> tuple[Float32Array, Float32Array, Float32Array]:
    """Draw a populated circuit board that is not rotated.

    Args:
        rng: Random generator; it determines the tolerances.
        size: Height and width S, in pixels.

    Returns:
        Colour (S, S, 3) from 0 to 1, relief (S, S) in units of half the width of the image, and cover (S, S) from 0 to
        1, all float32.
    """
    canvas = _Canvas(np.full((size, size, 3), _ink(_MASK), np.uint8), np.zeros((size, size), np.uint8))
    _traces(canvas)
    _header(canvas)
    for x, y, width, height, pins, four_sided, label in _CHIPS:
        dx, dy = rng.uniform(-0.004, 0.004, 2)
        _chip(canvas, x + dx, y + dy, (width, height), pins, four_sided, label, rng.uniform(0.9, 1.1))
    for x, y in _RESISTORS:
        _two_ended(canvas, x + rng.uniform(-0.003, 0.003), y, _BLACK, rng.uniform(0.9, 1.15))
    for x, y in _CAPACITORS:
        _two_ended(canvas, x + rng.uniform(-0.003, 0.003), y, _CERAMIC, rng.uniform(0.93, 1.07))
    for x, y, radius in _CANS:
        _can(canvas, x, y, radius, rng.uniform(-0.05, 0.05))
    cover = np.zeros((size, size), np.float32)
    cv2.rectangle(cover, canvas.at(0, 0), canvas.at(1, 1), 1.0, -1)
    relief = cv2.GaussianBlur(canvas.relief.astype(np.float32) / _LIFT_STEPS, (0, 0), size / 300)
    colour = np.asarray(canvas.colour / np.float32(255), np.float32)
    return colour, np.asarray(relief, np.float32), cover


def _ink(colour: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(255 * part for part in colour)


def _traces(canvas: _Canvas) -> None:
    # The layout of a product does not change from part to part, so its routing has its own fixed seed.
    routing = np.random.default_rng(7)
    width = max(round(canvas.scale / 130), 1)
    for _ in range(34):
        x, y = routing.uniform(0.06, 0.94, 2)
        points = [canvas.at(x, y)]
        for leg in range(3):
            step = routing.uniform(0.05, 0.3) * routing.choice([-1, 1])
            x, y = (x + step, y) if leg % 2 == 0 else (x, y + step)
            x, y = np.clip((x, y), 0.05, 0.95)
            points.append(canvas.at(x, y))
        cv2.polylines(canvas.colour, [np.array(points, np.int32)], False, _ink(_TRACE), width, cv2.LINE_AA)
        canvas.disc(x, y, 0.010, _GOLD)
        canvas.disc(x, y, 0.004, _HOLE)
    for x in (0.06, 0.94):
        for y in (0.06, 0.94):
            canvas.disc(x, y, 0.036, _GOLD)
            canvas.disc(x, y, 0.024, _HOLE)
    canvas.text(0.83, 0.845, "EDGEAD", 0.75 / 22)


def _header(canvas: _Canvas) -> None:
    canvas.box(0.42, 0.925, 0.56, 0.075, _BLACK, 0.03)
    for pin in range(_HEADER_PINS):
        x = 0.42 + 0.56 * ((pin + 0.5) / _HEADER_PINS - 0.5)
        canvas.box(x, 0.925, 0.03, 0.03, _GOLD, 0.045)


def _chip(
    canvas: _Canvas,
    x: float,
    y: float,
    sides: tuple[float, float],
    pins: int,
    four_sided: bool,
    label: str,
    shade: float,
) -> None:
    width, height = sides
    for pin in range(pins):
        along = (pin + 0.5) / pins - 0.5
        for side in (-1, 1):
            canvas.box(
                x + side * (width / 2 + 0.012), y + along * height, 0.034, 0.42 * height / pins, _TIN, 0.01
            )
            if four_sided:
                canvas.box(
                    x + along * width, y + side * (height / 2 + 0.012), 0.42 * width / pins, 0.034, _TIN, 0.01
                )
    canvas.box(x, y, width, height, tuple(shade * part for part in _BLACK), 0.03)
    canvas.disc(
        x - width / 2 + 0.03, y - height / 2 + 0.03, 0.010, tuple(1.7 * part for part in _BLACK), 0.03
    )
    canvas.text(x, y, label, 1.3 / 22)


def _two_ended(canvas: _Canvas, x: float, y: float, body: tuple[float, ...], shade: float) -> None:
    canvas.box(x, y, 0.064, 0.036, _TIN, 0.012)
    canvas.box(x, y, 0.036, 0.036, tuple(shade * part for part in body), 0.016)


def _can(canvas: _Canvas, x: float, y: float, radius: float, lean: float) -> None:
    canvas.disc(x, y, radius, _TIN, 0.06)
    canvas.disc(x, y, radius * 0.84, (0.80, 0.81, 0.82), 0.06)
    # The dark stripe marks the negative pole. A capacitor is mounted with this orientation and varies by a few degrees.
    sector = (180 + np.degrees(lean)) % 360
    centre, pixels = canvas.at(x, y), round(radius * 0.84 * canvas.scale)
    cv2.ellipse(
        canvas.colour, centre, (pixels, pixels), sector, -35, 35, _ink((0.16, 0.17, 0.22)), -1, cv2.LINE_AA
    )
    canvas.disc(x, y, radius * 0.62, (0.78, 0.79, 0.80), 0.06)
    width = max(round(canvas.scale / 200), 1)
    for angle in (lean + np.pi / 4, lean - np.pi / 4):
        dx, dy = 0.45 * radius * np.cos(angle), 0.45 * radius * np.sin(angle)
        ends = canvas.at(x - dx, y - dy), canvas.at(x + dx, y + dy)
        cv2.line(canvas.colour, *ends, _ink((0.60, 0.61, 0.62)), width, cv2.LINE_AA)
