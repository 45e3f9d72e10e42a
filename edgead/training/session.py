"""A trained method behind the session protocol, so that the same code evaluates runs and bundles."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from edgead.models.base import DistillationMethod
from edgead.models.components.head import AnomalyMapHead
from edgead.runtime.base import SizedSession, check_batch
from edgead.training.features import without_gradients
from edgead.types import Prediction, UInt8Array


class TorchSession(SizedSession):
    """Scores images with a method, on the device of its weights.

    Args:
        method: The method; it is put into evaluation mode, and still belongs to the caller.
    """

    def __init__(self, method: DistillationMethod) -> None:
        self._height_px, self._width_px = method.head.height, method.head.width
        self._method = method.eval()
        self._device = next(method.parameters()).device
        self._head: AnomalyMapHead | None = None

    @torch.no_grad()
    def infer(self, batch: UInt8Array) -> Prediction:
        """See Session.infer."""
        check_batch(batch, self._height_px, self._width_px)
        once = without_gradients(len(batch), self._device)
        found = []
        for start in range(0, len(batch), once):
            images = torch.from_numpy(batch[start : start + once]).to(self._device)
            found.append(self._prediction(*self._method.features(images)))
        return Prediction(
            np.concatenate([one.anomaly_map for one in found]),
            np.concatenate([one.anomaly_score for one in found]),
        )

    @torch.no_grad()
    def infer_from(self, batch: UInt8Array, teacher_features: list[Tensor]) -> Prediction:
        """Score images whose teacher features are known, for one student after another.

        Args:
            batch: (N, H, W, 3) uint8 RGB.
            teacher_features: Features that `DistillationMethod.teacher_features` returned for the same images.

        Returns:
            Maps and scores, as `infer` gives them.
        """
        images = torch.from_numpy(batch).to(self._device)
        student = self._method.student_features(images, teacher_features)
        return self._prediction(*self._method.head_features(teacher_features, student))

    def _prediction(self, teacher: list[Tensor], student: list[Tensor]) -> Prediction:
        if self._head is None:
            sizes = [(x.shape[2], x.shape[3]) for x in teacher]
            self._head = AnomalyMapHead(self._method.head, sizes).to(self._device)
        anomaly_map, anomaly_score = self._head(teacher, student)
        return Prediction(anomaly_map.cpu().numpy(), anomaly_score.cpu().numpy())

    def close(self) -> None:
        """See Session.close. There is nothing to release, because the method belongs to the caller."""
