"""Golden answers of bundles that tests write by hand, and how far a session may be from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from edgead.bundle.golden import Golden, chart_from_image, pixels_from_chart
from edgead.bundle.manifest import content_hash
from edgead.imaging.preprocess import ModelSize
from edgead.runtime.onnxruntime import OnnxRuntimeSession
from edgead.types import Prediction

LIMITS = {
    "map_error_max": 0.02,
    "score_error_max": 0.01,
    "rank_correlation_min": 0.95,
    "decision_flips_max": 0,
    "auroc_loss_max": 0.01,
    "factors": 1,
}


def sign_manifest(content: dict[str, Any]) -> dict[str, Any]:
    """Give the content of a manifest the hash of its own content, as the program that wrote it would."""
    return {
        **content,
        "sha256": content_hash({key: value for key, value in content.items() if key != "sha256"}),
    }


def golden_of(
    answer: Callable[[np.ndarray], Prediction], images: np.ndarray, parts: Iterable[int] | None = None
) -> Golden:
    """Images and the answers to them, with the chart of the first; parts: number of each image's part, 0 for None."""
    chart = chart_from_image(images[0])
    pixels = pixels_from_chart(chart, ModelSize(*images.shape[1:3]))
    batch = np.concatenate([images, pixels[None]])
    part = np.array([*(np.zeros(len(images)) if parts is None else parts), 0], np.uint8)
    found = answer(batch)
    return Golden(batch, found.anomaly_map, found.anomaly_score, part, chart)


def golden_of_model(model: bytes, images: np.ndarray, parts: Iterable[int] | None = None) -> Golden:
    """The same with the answers of ONNX Runtime."""
    with OnnxRuntimeSession(model) as session:
        return golden_of(session.infer, images, parts)


def verification_of(*parts: str, n: int = 8, limits: Any = LIMITS) -> dict[str, Any]:
    """What a manifest says of the limits of each part."""
    return {"parts": {part: {"limits": limits, "n": n} for part in parts}}
