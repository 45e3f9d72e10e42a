"""From a prediction, which is numbers, to a verdict, which is a decision; the only place where they meet."""

from __future__ import annotations

import math
import time

from edgead.errors import BackendError
from edgead.imaging.regions import regions_from_map
from edgead.types import Frame, Prediction, Verdict


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
    regions = (
        regions_from_map(prediction.anomaly_map[0, 0], threshold, height_px, width_px) if anomalous else ()
    )
    return Verdict(
        frame_index=frame.index,
        anomaly_score=score,
        threshold=threshold,
        is_anomalous=anomalous,
        latency_ms=(time.monotonic_ns() - frame.captured_at_ns) / 1e6,
        regions=regions,
        part=part,
    )
