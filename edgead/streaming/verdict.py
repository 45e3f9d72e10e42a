"""Conversion of a prediction (numbers) into a verdict (a decision); streams decide nowhere else."""

from __future__ import annotations

import time

from edgead.imaging.regions import regions_from_map
from edgead.scoring.decision import decide
from edgead.types import Frame, Prediction, Verdict


def verdict_from_prediction(
    frame: Frame,
    prediction: Prediction,
    threshold: float,
    part: str | None = None,
    *,
    taken_ns: int,
    live: bool,
) -> Verdict | None:
    """Decide on a frame. The latency and the age of the frame end here.

    Args:
        frame: Frame that was scored.
        prediction: Prediction for this frame alone: map (1, 1, H, W) and score (1,), float32.
        threshold: Decision threshold of the part.
        part: Name of the part.
        taken_ns: Time at which the frame was taken from the queue, from `time.monotonic_ns`.
        live: Whether the frame is of a live source. The age of an image of a file is not known.

    Returns:
        The verdict, with regions if the frame is anomalous; None if the map or the score is not finite.
    """
    score, anomaly_map = float(prediction.anomaly_score[0]), prediction.anomaly_map[0, 0]
    anomalous = decide(anomaly_map, score, threshold)
    if anomalous is None:
        return None
    height_px, width_px = frame.image.shape[:2]
    regions = regions_from_map(anomaly_map, threshold, height_px, width_px) if anomalous else ()
    now_ns = time.monotonic_ns()
    return Verdict(
        frame_index=frame.index,
        anomaly_score=score,
        threshold=threshold,
        is_anomalous=anomalous,
        latency_ms=(now_ns - taken_ns) / 1e6,
        regions=regions,
        part=part,
        age_ms=(now_ns - frame.captured_at_ns) / 1e6 if live else None,
    )
