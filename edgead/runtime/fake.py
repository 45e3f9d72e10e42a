"""A fake session: a deterministic replacement for a model, so that loops, sinks and demos run without one.

It is part of the package so that users of the `Session` protocol can test their code without a training, as a web
client ships a mock transport. The brighter a pixel is, the more anomalous it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from edgead.errors import BackendError
from edgead.runtime.base import SizedSession, check_batch
from edgead.types import Prediction, UInt8Array

if TYPE_CHECKING:
    from edgead.imaging.preprocess import ModelSize


class FakeSession(SizedSession):
    """A `Session` that gives the brightness of an image as its map: the mean of the three channels / 255, in 0 to 1.

    If a score is given, the map is scaled to it, so that the maximum of the map is the score as in every real graph.
    The map of a black image has the score in every pixel.

    Args:
        size: Size of the images that the session takes.
        score: Score of every image, or a callable that takes one image (H, W, 3) uint8 and returns its score; None for
            the maximum of the map.

    Example:
        >>> import edgead, numpy
        >>> with edgead.FakeSession(edgead.ModelSize(64, 64), score=0.5) as session:
        ...     prediction = session.infer(numpy.zeros((1, 64, 64, 3), numpy.uint8))
        >>> float(prediction.anomaly_score[0])
        0.5
    """

    def __init__(self, size: ModelSize, score: float | Callable[[UInt8Array], float] | None = None) -> None:
        self._height_px, self._width_px = size.height_px, size.width_px
        self._score = score
        self._closed = False

    def infer(self, batch: UInt8Array) -> Prediction:
        """See `Session.infer`."""
        if self._closed:
            raise BackendError("the session is closed", hint="open the bundle again")
        check_batch(batch, self._height_px, self._width_px)
        # Not `sum`, which takes ten times as long for an axis of three.
        red, green, blue = np.moveaxis(batch, 3, 0)
        brightness = (np.add(red, green, dtype=np.float32) + blue)[:, None] / np.float32(3 * 255)
        if self._score is not None:
            for image, anomaly_map in zip(batch, brightness, strict=True):
                score = self._score(image) if callable(self._score) else self._score
                peak = anomaly_map.max()
                anomaly_map[:] = anomaly_map * np.float32(score / peak) if peak > 0 else score
        return Prediction(anomaly_map=brightness, anomaly_score=brightness.max(axis=(1, 2, 3)))

    def close(self) -> None:
        """Close the session; a later `infer` raises BackendError."""
        self._closed = True
