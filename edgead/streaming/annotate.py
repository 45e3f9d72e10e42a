"""What people see of a verdict: its frame with heat map, a box around each defect, and the decision above it."""

from __future__ import annotations

import cv2
import numpy as np

from edgead.imaging.heatmap import overlay
from edgead.types import Float32Array, UInt8Array, Verdict

_GOOD, _REJECT, _LOST, _DARK = (20, 130, 60), (200, 30, 30), (90, 90, 90), (40, 40, 40)
_WHITE = (255, 255, 255)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_BAR_MIN_PX = 16


def annotate(image: UInt8Array, verdict: Verdict, anomaly_map: Float32Array) -> UInt8Array:
    """Draw a verdict over its frame: a new uint8 RGB image as wide, and higher by a bar that hides nothing.

    image: (H, W, 3) uint8 RGB. anomaly_map: (h, w) float32, stretched over it. Returns (H + B, W, 3) with the
    bar's height B a tenth of H, 16 at least.
    """
    annotated = overlay(image, anomaly_map, verdict.threshold)
    for box in verdict.regions:
        corners = (box.x_px, box.y_px), (box.x_px + box.width_px - 1, box.y_px + box.height_px - 1)
        cv2.rectangle(annotated, *corners, _WHITE, max(1, int(min(annotated.shape[:2])) // 240))
    word, sign = ("REJECT", ">") if verdict.is_anomalous else ("good", "<=")
    text = f"{word}  {verdict.anomaly_score:.4g} {sign} {verdict.threshold:.4g}"
    return _under_bar(annotated, text, _REJECT if verdict.is_anomalous else _GOOD)


def no_signal_image(height_px: int, width_px: int, reason: str) -> UInt8Array:
    """A dark uint8 RGB image that says there is no signal, and why; sized as `annotate` makes of such a frame."""
    image = np.full((height_px, width_px, 3), _DARK, np.uint8)
    return _under_bar(image, f"NO SIGNAL: {reason}", _LOST)


def _under_bar(image: UInt8Array, text: str, colour: tuple[int, int, int]) -> UInt8Array:
    """Put a bar with text above an image, the text as large as the bar allows."""
    height, width = image.shape[:2]
    bar = np.full((max(_BAR_MIN_PX, height // 10), width, 3), colour, np.uint8)
    (text_width, text_height), _ = cv2.getTextSize(text, _FONT, 1.0, 1)
    scale = min(0.5 * len(bar) / text_height, 0.94 * width / text_width)
    origin = (round(0.03 * width), round((len(bar) + text_height * scale) / 2))
    cv2.putText(bar, text, origin, _FONT, scale, _WHITE, max(1, round(1.6 * scale)), cv2.LINE_AA)
    return np.concatenate((bar, image))
