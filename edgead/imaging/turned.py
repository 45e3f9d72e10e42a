"""The placement of a part on a plain ground: where it lies and at which angle. Parts at any angle can be turned alike.

The part is the largest region whose colour differs from the colour of the border of the image. Its moments give its
centroid, its main axis, and the sense of the axis, towards the end where the part is thinner (Hu, "Visual pattern
recognition by moment invariants", IRE Transactions on Information Theory 8, 1962). The middle of its length along this
axis is its place, because the centroid lies near the thick end, and the thin one would need more room. One map, a
rotation with a scale, leads from the image to the model's pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

import cv2
import numpy as np

from edgead.imaging.preprocess import ModelSize
from edgead.types import BoolArray, Float32Array, Float64Array, UInt8Array

# The part is looked for in an image of at most this height and width. Finer details do not change its moments.
_SEARCHED_PX: Final = 256
_BORDER_SHARE: Final = 1 / 64
_BLUR_PX: Final = 1.5
# Share of the border that may differ from the ground: a part that touches the border, dirt, a darker corner.
_MARKED_BORDER: Final = 0.1
_SMALLEST_AREA: Final = 0.002
# Smallest difference between part and ground, in grey levels; below, noise and dust would be parts.
_SMALLEST_CONTRAST: Final = 12
# Main axes of almost round parts turn with the noise.
_SMALLEST_ELONGATION: Final = 1.25


class Placement(NamedTuple):
    """Where a part lies.

    Attributes:
        x: Column of the middle of its length on the main axis, in pixels; the centre of the first pixel is 0.
        y: Row of this point.
        angle: Angle from the x axis to the main axis, in radians; the y axis points down.
    """

    x: float
    y: float
    angle: float


@dataclass(frozen=True, slots=True)
class FoundPart:
    """A part on a plain ground.

    Attributes:
        placement: Its placement.
        length: Its length along the main axis, in pixels.
        width: Twice its largest distance from the main axis, in pixels.
        ground: Colour of the ground, RGB.
    """

    placement: Placement
    length: float
    width: float
    ground: tuple[float, float, float]


def find_part(image: UInt8Array) -> FoundPart | None:
    """Find the part on a plain ground.

    Args:
        image: Image, (H, W, 3) uint8 RGB.

    Returns:
        The part; None if the ground is not plain, nothing lies on it, or the part has no main axis.
    """
    step = max(1.0, max(image.shape[:2]) / _SEARCHED_PX)
    shape = (max(1, round(image.shape[1] / step)), max(1, round(image.shape[0] / step)))
    small = cv2.resize(image, shape, interpolation=cv2.INTER_AREA)
    found = _region(small)
    if found is None:
        return None
    region, ground = found
    moments = cv2.moments(region.astype(np.uint8), binaryImage=True)
    angle = _angle(moments)
    if angle is None:
        return None
    across, down = image.shape[1] / shape[0], image.shape[0] / shape[1]
    # Centres of pixels, as in `resize`.
    x = (moments["m10"] / moments["m00"] + 0.5) * across - 0.5
    y = (moments["m01"] / moments["m00"] + 0.5) * down - 0.5
    rows, columns = np.nonzero(region)
    dx, dy = (columns + 0.5) * across - 0.5 - x, (rows + 0.5) * down - 0.5 - y
    along = math.cos(angle) * dx + math.sin(angle) * dy
    beside = math.cos(angle) * dy - math.sin(angle) * dx
    # The edges of the outermost pixels, not their centres.
    length, width = float(np.ptp(along)) + across, 2 * float(np.abs(beside).max()) + across
    middle = float(along.max() + along.min()) / 2
    placement = Placement(x + middle * math.cos(angle), y + middle * math.sin(angle), angle)
    return FoundPart(placement, length, width, ground)


def _region(image: UInt8Array) -> tuple[BoolArray, tuple[float, float, float]] | None:
    """Return the pixels of the part and the colour of the ground; None for no part on a plain ground."""
    width = max(1, round(_BORDER_SHARE * max(image.shape[:2])))
    inner = np.zeros(image.shape[:2], np.bool_)
    inner[width:-width, width:-width] = True
    ground = np.median(image[~inner], axis=0)
    difference = cv2.absdiff(image, np.broadcast_to(np.rint(ground).astype(np.uint8), image.shape))
    distance = cv2.max(cv2.max(difference[..., 0], difference[..., 1]), difference[..., 2])
    levels = cv2.GaussianBlur(distance, (0, 0), _BLUR_PX)
    limit, marked = cv2.threshold(levels, 0, 1, cv2.THRESH_OTSU)
    if limit < _SMALLEST_CONTRAST or marked[~inner].mean() > _MARKED_BORDER:
        return None
    _, labels, stats, _ = cv2.connectedComponentsWithStats(marked)
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    if stats[largest, cv2.CC_STAT_AREA] < _SMALLEST_AREA * labels.size:
        return None
    red, green, blue = ground.tolist()
    return labels == largest, (red, green, blue)


def _angle(moments: dict[str, float]) -> float | None:
    """Return the angle of the main axis, towards the thinner end; None for a part that is about round."""
    mu20, mu11, mu02 = moments["mu20"], moments["mu11"], moments["mu02"]
    difference = math.hypot(mu20 - mu02, 2 * mu11)
    longest, shortest = (mu20 + mu02 + difference) / 2, (mu20 + mu02 - difference) / 2
    if longest < _SMALLEST_ELONGATION**2 * shortest:
        return None
    angle = 0.5 * math.atan2(2 * mu11, mu20 - mu02)
    c, s = math.cos(angle), math.sin(angle)
    third = (
        c**3 * moments["mu30"]
        + 3 * c**2 * s * moments["mu21"]
        + 3 * c * s**2 * moments["mu12"]
        + s**3 * moments["mu03"]
    )
    # The thinner end is the longer one, and so the side of the larger third powers.
    return angle if third >= 0.0 else angle - math.copysign(math.pi, angle)


@dataclass(frozen=True, slots=True)
class Turned:
    """The way from an image to the model's pixels, on which the part lies in the middle, along the x axis.

    Attributes:
        placement: Placement of the part on the image.
        scale: Pixels of the model for each pixel of the image.
        size: Size of the images that the model takes.
    """

    placement: Placement
    scale: float
    size: ModelSize

    def matrix(self, scale: float = 1.0) -> Float64Array:
        """Return the map from pixels of an image to pixels of the model, (2, 3).

        Args:
            scale: Scale of the image, which is 1 for the image itself.
        """
        factor, angle = self.scale / scale, self.placement.angle
        c, s = factor * math.cos(angle), factor * math.sin(angle)
        # Pixels have their values at their centres, which a scale moves.
        x, y = (scale * (value + 0.5) - 0.5 for value in self.placement[:2])
        middle_x, middle_y = (self.size.width_px - 1) / 2, (self.size.height_px - 1) / 2
        return np.array([[c, s, middle_x - c * x - s * y], [-s, c, middle_y + s * x - c * y]])

    def turn(self, image: UInt8Array, ground: tuple[float, float, float]) -> UInt8Array:
        """Turn an image.

        Args:
            image: Image, (H, W, 3) uint8 RGB.
            ground: Colour of the pixels outside of the image, RGB.

        Returns:
            (height, width, 3) uint8 RGB, at the model's size.
        """
        scale = min(1.0, self.scale)
        if scale < 1.0:
            # Area averaging before the rotation, which does not average.
            shape = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
            image = cv2.resize(image, shape, interpolation=cv2.INTER_AREA)
        return np.asarray(
            cv2.warpAffine(
                image,
                self.matrix(scale),
                (self.size.width_px, self.size.height_px),
                flags=cv2.INTER_CUBIC,
                borderMode=cv2.BORDER_CONSTANT,
                borderValue=ground,
            ),
            np.uint8,
        )

    def mask(self, marked: BoolArray) -> BoolArray:
        """Turn marked pixels of an image, by nearest neighbour.

        Args:
            marked: Mask of the image, (H, W) bool.

        Returns:
            (height, width) bool, at the model's size.
        """
        shape = (self.size.width_px, self.size.height_px)
        turned = cv2.warpAffine(marked.astype(np.uint8), self.matrix(), shape, flags=cv2.INTER_NEAREST)
        return np.asarray(turned, np.bool_)

    def over_image(self, anomaly_map: Float32Array, image_px: tuple[int, int]) -> Float32Array:
        """Turn a map back onto the image, at about the resolution of the model.

        Args:
            anomaly_map: Map of the model, (height, width) float32.
            image_px: Height and width of the image.

        Returns:
            Map, (h, w) float32, to be stretched over the image; 0 where the model sees nothing of it. It has the
            largest value of `anomaly_map`.
        """
        scale = min(1.0, self.scale)
        shape = (max(1, round(image_px[1] * scale)), max(1, round(image_px[0] * scale)))
        matrix = self.matrix(scale)
        back = cv2.warpAffine(
            anomaly_map, matrix, shape, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderValue=0.0
        )
        # Interpolation lowers the peak, and a defect must not fall below the threshold by it.
        peak = np.unravel_index(int(anomaly_map.argmax()), anomaly_map.shape)
        x, y = cv2.invertAffineTransform(matrix) @ (float(peak[1]), float(peak[0]), 1.0)
        row = min(max(round(float(y)), 0), shape[1] - 1)
        column = min(max(round(float(x)), 0), shape[0] - 1)
        back[row, column] = anomaly_map.max()
        return np.asarray(back, np.float32)
