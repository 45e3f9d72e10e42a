"""Annotated frames: the image with heat map, a box around each defect, and the decision in a bar above it."""

from __future__ import annotations

import cv2
import numpy as np

from edgead.imaging.heatmap import overlay
from edgead.text import printable
from edgead.types import Float32Array, UInt8Array, Verdict

_GOOD, _REJECT, _LOST, _DARK = (20, 130, 60), (200, 30, 30), (90, 90, 90), (40, 40, 40)
_WHITE = (255, 255, 255)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_BAR_MIN_PX = 16


def annotate(image: UInt8Array, verdict: Verdict, anomaly_map: Float32Array) -> UInt8Array:
    """Draw a verdict over its frame, with the decision in a bar above the image.

    Args:
        image: Frame, (H, W, 3) uint8 RGB; it is not changed.
        verdict: Decision on the frame.
        anomaly_map: Anomaly map, (h, w) float32; it is resized to the frame.

    Returns:
        A new image, (H + B, W, 3) uint8 RGB. The bar's height B is a tenth of H, at least 16 pixels.
    """
    annotated = overlay(image, anomaly_map, verdict.threshold)
    for box in verdict.regions:
        corners = (box.x_px, box.y_px), (box.x_px + box.width_px - 1, box.y_px + box.height_px - 1)
        cv2.rectangle(annotated, *corners, _WHITE, max(1, int(min(annotated.shape[:2])) // 240))
    word, sign = ("REJECT", ">") if verdict.is_anomalous else ("good", "<=")
    text = f"{word}  {verdict.anomaly_score:.4g} {sign} {verdict.threshold:.4g}"
    return _under_bar(annotated, text, _REJECT if verdict.is_anomalous else _GOOD)


def no_verdict_image(height_px: int, width_px: int, text: str) -> UInt8Array:
    """Draw the image that is shown while there is no verdict.

    Args:
        height_px: Height of the source's frames in pixels.
        width_px: Width of the source's frames in pixels.
        text: Reason for the missing verdict.

    Returns:
        A dark uint8 RGB image of the size that `annotate` returns for such a frame.
    """
    image = np.full((height_px, width_px, 3), _DARK, np.uint8)
    return _under_bar(image, printable(text), _LOST)


def _under_bar(image: UInt8Array, text: str, colour: tuple[int, int, int]) -> UInt8Array:
    """Put a bar above an image, with text as large as the bar allows."""
    height, width = image.shape[:2]
    bar = np.full((max(_BAR_MIN_PX, height // 10), width, 3), colour, np.uint8)
    (text_width, text_height), _ = cv2.getTextSize(text, _FONT, 1.0, 1)
    scale = min(0.5 * len(bar) / text_height, 0.94 * width / text_width)
    origin = (round(0.03 * width), round((len(bar) + text_height * scale) / 2))
    cv2.putText(bar, text, origin, _FONT, scale, _WHITE, max(1, round(1.6 * scale)), cv2.LINE_AA)
    return np.concatenate((bar, image))
