"""From a prediction, which is numbers, to a verdict, which is a decision; the only place where they meet."""

from __future__ import annotations

import math
import time

import cv2
import numpy as np

from edgead.errors import BackendError
from edgead.types import Float32Array, Frame, Prediction, Region, Verdict


def verdict_from_prediction(
    frame: Frame, prediction: Prediction, threshold: float, part: str | None = None
) -> Verdict:
    """Decide on a frame from the prediction for it alone, (1, 1, H, W) map and (1,) score.

    threshold: of the part that is seen. part: its name.

    The latency ends here. Raises BackendError for a score that is not a finite number: compared with a
    threshold it would pass for a good part.
    """
    score = float(prediction.anomaly_score[0])
    if not math.isfinite(score):
        raise BackendError(
            f"the model scored frame {frame.index} of {frame.source} as {score}: no verdict can be given; "
            "rebuild the bundle with edgead build"
        )
    anomalous = score > threshold
    height_px, width_px = frame.image.shape[:2]
    region = (
        region_from_map(prediction.anomaly_map[0, 0], threshold, height_px, width_px) if anomalous else None
    )
    return Verdict(
        frame_index=frame.index,
        anomaly_score=score,
        threshold=threshold,
        is_anomalous=anomalous,
        latency_ms=(time.monotonic_ns() - frame.captured_at_ns) / 1e6,
        region=region,
        part=part,
    )


def region_from_map(
    anomaly_map: Float32Array, threshold: float, height_px: int, width_px: int
) -> Region | None:
    """The box around the part of the map above the threshold that holds the maximum, in pixels of the frame.

    anomaly_map: (h, w) float32, stretched over a frame of height_px x width_px. Pixels that touch at a corner
    belong together. Every frame pixel that a map pixel of the part covers, even in part, is inside. None
    where nothing is above.
    """
    rows, columns = anomaly_map.shape
    row, column = divmod(int(anomaly_map.argmax()), columns)
    if not anomaly_map[row, column] > threshold:
        return None
    _, labels, boxes, _ = cv2.connectedComponentsWithStats(
        (anomaly_map > threshold).astype(np.uint8), connectivity=8
    )
    left, top, width, height = (int(value) for value in boxes[labels[row, column], :4])
    x, right = left * width_px // columns, -(-(left + width) * width_px // columns)
    y, bottom = top * height_px // rows, -(-(top + height) * height_px // rows)
    return Region(x_px=x, y_px=y, width_px=right - x, height_px=bottom - y)
