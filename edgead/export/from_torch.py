"""From a trained method to one ONNX graph: the only file outside models/ and train/ that knows torch.

A method says two things of itself, its `features` and its `head`, and nothing else is asked here, so no
method has a name in this file. The features are traced; the head is written as ONNX directly, one node that
every backend can find.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import onnxsim
import torch
from onnx import ModelProto
from torch import Tensor, nn

from edgead import __version__
from edgead.export.head.onnx_function import OPSET, append_head
from edgead.imaging.preprocess import ModelSize

if TYPE_CHECKING:
    from edgead.models.base import DistillationMethod


def onnx_from_method(method: DistillationMethod, size: ModelSize) -> ModelProto:
    """Write a method as one ONNX graph: uint8 images in, map and score out.

    method: in evaluation mode, on the CPU. size: of the images, fixed in the graph. The graph takes
    `images` (N, H, W, 3) uint8 RGB, N free, and gives `anomaly_map` (N, 1, H, W) and `anomaly_score` (N,),
    both float32. Batch normalisation is folded into the convolutions; the head is the model-local function
    `edgead::AnomalyMap`. Raises ValueError when the method is in training mode.
    """
    if method.training:
        raise ValueError("a method is exported in evaluation mode: call eval() first")
    # Simplified before the head is there, because the simplifier would dissolve the function into its
    # operators.
    features, _ = onnxsim.simplify(_traced_features(method, size))
    model = append_head(features, method.head)
    model.producer_name, model.producer_version = "edgead", __version__
    del model.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    return model


def _traced_features(method: DistillationMethod, size: ModelSize) -> ModelProto:
    # Two images, because of one the exporter would learn that the batch is always one.
    images = torch.zeros(2, size.height_px, size.width_px, 3, dtype=torch.uint8)
    with torch.no_grad():
        program = torch.onnx.export(
            _Features(method).eval(),
            (images,),
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            input_names=["images"],
            dynamic_shapes={"images": {0: torch.export.Dim("N")}},
            verbose=False,
        )
    assert program is not None  # it is None only for an exporter that is not asked for
    proto: ModelProto = program.model_proto
    return proto


class _Features(nn.Module):
    """Gives the features of a method as one flat tuple: teacher_1..K, student_1..K."""

    def __init__(self, method: DistillationMethod) -> None:
        super().__init__()
        self.method = method

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        teacher, student = self.method.features(images)
        return (*teacher, *student)
