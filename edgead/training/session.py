"""A trained method behind the session protocol, so that the same code evaluates runs and bundles."""

from __future__ import annotations

import torch

from edgead.models.base import DistillationMethod
from edgead.models.components.head import AnomalyMapHead
from edgead.runtime.base import check_batch, graph_inputs, graph_outputs
from edgead.types import Closing, Prediction, UInt8Array


class TorchSession(Closing):
    """Scores images with a method, on the device of its weights.

    Args:
        method: The method; it is put into evaluation mode, and still belongs to the caller.

    Attributes:
        inputs: See Session.inputs.
        outputs: See Session.outputs.
    """

    def __init__(self, method: DistillationMethod) -> None:
        height, width = method.head.height, method.head.width
        self.inputs = graph_inputs(height, width)
        self.outputs = graph_outputs(height, width)
        self._method = method.eval()
        self._device = next(method.parameters()).device
        self._head: AnomalyMapHead | None = None

    @torch.no_grad()
    def infer(self, batch: UInt8Array) -> Prediction:
        """See Session.infer."""
        check_batch(batch, self._method.head.height, self._method.head.width)
        teacher, student = self._method.features(torch.from_numpy(batch).to(self._device))
        if self._head is None:
            sizes = [(x.shape[2], x.shape[3]) for x in teacher]
            self._head = AnomalyMapHead(self._method.head, sizes).to(self._device)
        anomaly_map, anomaly_score = self._head(teacher, student)
        return Prediction(anomaly_map.cpu().numpy(), anomaly_score.cpu().numpy())

    def close(self) -> None:
        """See Session.close. There is nothing to release, because the method belongs to the caller."""
