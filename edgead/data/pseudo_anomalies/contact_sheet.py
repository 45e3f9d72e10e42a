"""A contact sheet: good images, the same images with pseudo-anomalies, and the masks, side by side.

A person checks on it that pseudo-anomalies are visible, look plausible and do not cover the part. No number measures
this.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from edgead.files.atomic import replace_file
from edgead.types import BoolArray, UInt8Array

IMAGES_PER_SHEET = 8
# Length of the longer side of every image on the sheet.
_CELL_PX = 256
_GAP_PX = 8
_BAR_PX = 28
_PAPER, _INK = (255, 255, 255), (31, 41, 51)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_contact_sheet(good: UInt8Array, disturbed: UInt8Array, masks: BoolArray, file: Path) -> None:
    """Write a PNG with a row for each of the first `IMAGES_PER_SHEET` images.

    Args:
        good: Good images, (N, H, W, 3) uint8 RGB, N at least 1.
        disturbed: The same images with anomalies, (N, H, W, 3) uint8 RGB.
        masks: Masks of the anomalies, (N, H, W) bool, shown white. The caption of a mask is its share of the image.
        file: PNG file to write.

    Raises:
        ValueError: A shape or dtype does not fit.
        EdgeadError: The file cannot be written.
    """
    if good.ndim != 4 or good.shape[3] != 3 or not good.size or good.dtype != np.uint8:
        raise ValueError(
            f"good images are (N, H, W, 3) uint8 RGB, one at least, not {good.shape} {good.dtype}"
        )
    if disturbed.shape != good.shape or disturbed.dtype != np.uint8:
        raise ValueError(f"disturbed images are {good.shape} uint8, not {disturbed.shape} {disturbed.dtype}")
    if masks.shape != good.shape[:3] or masks.dtype != np.bool_:
        raise ValueError(f"masks are {good.shape[:3]} bool, not {masks.shape} {masks.dtype}")
    shown = slice(IMAGES_PER_SHEET)
    rows = [_row(*images) for images in zip(good[shown], disturbed[shown], masks[shown], strict=True)]
    _, data = cv2.imencode(".png", np.concatenate(rows)[..., ::-1])
    with replace_file(file) as partial:
        partial.write_bytes(data.tobytes())


def _row(good: UInt8Array, disturbed: UInt8Array, mask: BoolArray) -> UInt8Array:
    """Draw one image, its copy with an anomaly and its mask beside each other."""
    white = np.repeat(np.where(mask, np.uint8(255), np.uint8(0))[..., None], 3, axis=2)
    cells = (
        _cell(good, "good image", cv2.INTER_LINEAR),
        _cell(disturbed, "with an anomaly", cv2.INTER_LINEAR),
        _cell(white, f"changed pixels: {100 * mask.mean():.1f} %", cv2.INTER_NEAREST),
    )
    return np.concatenate(cells, axis=1)


def _cell(image: UInt8Array, caption: str, enlarge: int) -> UInt8Array:
    """Resize an image to the sheet's size, and add its caption above and a gap around."""
    height, width = image.shape[:2]
    scale = _CELL_PX / max(height, width)
    size = max(1, round(scale * width)), max(1, round(scale * height))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1.0 else enlarge)
    # A narrow image needs room for its caption too.
    right = max(_GAP_PX, _CELL_PX + _GAP_PX - size[0])
    cell = cv2.copyMakeBorder(small, _BAR_PX, 0, _GAP_PX, right, cv2.BORDER_CONSTANT, value=_PAPER)
    cv2.putText(cell, caption, (_GAP_PX, _BAR_PX - 8), _FONT, 0.5, _INK, 1, cv2.LINE_AA)
    return np.asarray(cell, np.uint8)
