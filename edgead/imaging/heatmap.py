"""An anomaly map as colours over its image. All views of edgead use this overlay.

The colours are scaled by the threshold, never by the maximum of the image, so a colour means the same on every image of
a stream or a report. A good part has no colour or a faint blue one. Only pixels above the threshold are lit, from
orange at the threshold to bright yellow, with an outline around them.
"""

from __future__ import annotations

import cv2
import numpy as np

from edgead.types import Float32Array, UInt8Array

# Position on the scale (0.5 is the threshold, 1 its double), colour (R, G, B), and opacity of the colour.
_BELOW = ((0.0, (40, 90, 255), 0.0), (0.25, (40, 90, 255), 0.0), (0.5, (40, 150, 255), 0.30))
_ABOVE = ((0.5, (255, 90, 0), 0.45), (0.75, (255, 30, 20), 0.55), (1.0, (255, 235, 60), 0.65))
_OUTLINE = (255, 255, 255)
_STEPS = 128


def overlay(image: UInt8Array, anomaly_map: Float32Array, threshold: float) -> UInt8Array:
    """Lay an anomaly map over its image.

    Args:
        image: Image of any size, (H, W, 3) uint8 RGB. It is not changed.
        anomaly_map: Map of the image, (h, w) float32. It is resized bilinearly to the image.
        threshold: Decision threshold on the values of the map. Values of twice the threshold or more have the brightest
            colour.

    Returns:
        New image, (H, W, 3) uint8 RGB. Pixels with values up to the threshold are not lit.

    Raises:
        ValueError: A shape or dtype does not fit.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"an image must be (H, W, 3) uint8 RGB, not {image.shape} {image.dtype}")
    if anomaly_map.ndim != 2:
        raise ValueError(f"a map to overlay must be (h, w), not {anomaly_map.shape}")
    height, width = image.shape[:2]
    values = np.asarray(anomaly_map, dtype=np.float32)
    if values.shape != (height, width):
        values = cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR)
    lit = values > threshold
    # The scale ends at twice the threshold. A threshold of 0 or less has no useful double, so the scale is 1 long.
    span = threshold if threshold > 0.0 else 1.0
    steps = np.clip((values - threshold) * (_STEPS / span), -_STEPS, _STEPS - 1).astype(np.int16)
    # The conversion to integers rounds towards zero, so the exact comparison decides the side of the threshold:
    # otherwise a good part could look rejected.
    index = np.where(lit, np.maximum(steps, 0), np.minimum(steps, -1)) + _STEPS
    scale = cv2.merge([index.astype(np.uint8)] * 3)
    blended = cv2.add(
        cv2.multiply(image, cv2.LUT(scale, _REMAINDER), scale=1.0 / 255.0), cv2.LUT(scale, _COLOUR)
    )
    outlines, _ = cv2.findContours(lit.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(blended, outlines, -1, _OUTLINE, thickness=max(1, min(height, width) // 360))
    return np.asarray(blended, dtype=np.uint8)


def _tables() -> tuple[UInt8Array, UInt8Array]:
    """Return, for each level, the colour times its opacity and the weight of the image: (1, 256, 3) uint8 each."""
    colour, remainder = [], []
    for stops in (_BELOW, _ABOVE):
        first, last = stops[0][0], stops[-1][0]
        positions = np.linspace(first, last, _STEPS)
        at = [stop[0] for stop in stops]
        cover = np.interp(positions, at, [stop[2] for stop in stops])[:, None]
        rgb = np.stack([np.interp(positions, at, [stop[1][c] for stop in stops]) for c in range(3)], axis=1)
        colour.append(rgb * cover)
        remainder.append(np.repeat(255.0 * (1.0 - cover), 3, axis=1))
    as_table = [np.rint(np.concatenate(part))[None].astype(np.uint8) for part in (colour, remainder)]
    return as_table[0], as_table[1]


_COLOUR, _REMAINDER = _tables()
