"""A null session: a deterministic stand-in for a model, so that loops, sinks and demos run where no model is.

It ships with the package for the same reason that a web client ships a mock transport: whoever builds on
the `Session` protocol can test their code without training anything. The brighter a pixel, the more
anomalous it calls it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from edgead.errors import BackendError
from edgead.runtime.base import check_batch, graph_inputs, graph_outputs
from edgead.types import Closing, Prediction, TensorSpec, UInt8Array

if TYPE_CHECKING:
    from edgead.imaging.preprocess import ModelSize


class FakeSession(Closing):
    """A `Session` whose map is the brightness of the image: mean of the three channels over 255, so 0 to 1.

    Where a score is given, the map is scaled so that its maximum is that score (the map of a black image is the score
    everywhere), as every real graph's is.

    Args:
        size: Size of the images that it takes.
        score: None for the maximum of the map; a number gives every image this score; a callable gets one image
            (H, W, 3) uint8 and returns its score.

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

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """One input: `images`, uint8, (N, H, W, 3), RGB."""
        return graph_inputs(self._height_px, self._width_px)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """`anomaly_map` float32 (N, 1, H, W) and `anomaly_score` float32 (N,)."""
        return graph_outputs(self._height_px, self._width_px)

    def infer(self, batch: UInt8Array) -> Prediction:
        """Score a batch of (N, H, W, 3) uint8 RGB; raises as `Session.infer` says."""
        if self._closed:
            raise BackendError("the session is closed: open the bundle again")
        check_batch(batch, self._height_px, self._width_px)
        brightness = batch.sum(axis=3, dtype=np.float32)[:, None] / np.float32(3 * 255)
        if self._score is not None:
            for image, anomaly_map in zip(batch, brightness, strict=True):
                score = self._score(image) if callable(self._score) else self._score
                peak = anomaly_map.max()
                anomaly_map[:] = anomaly_map * np.float32(score / peak) if peak > 0 else score
        return Prediction(anomaly_map=brightness, anomaly_score=brightness.max(axis=(1, 2, 3)))

    def close(self) -> None:
        """Refuse every later `infer`."""
        self._closed = True
