"""Export of a trained method to one ONNX graph. No other module of this package imports torch.

The export uses only a method's `features` and `head`, so it works for every method. The features are traced. The head
is written as ONNX directly, as one node that every backend can find.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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
    """Export a method as one ONNX graph.

    The graph takes `images` (N, H, W, 3) uint8 RGB with a free N. It gives `anomaly_map` (N, 1, H, W) and
    `anomaly_score` (N,), both float32. Batch normalisation is folded into the convolutions. The head is the model-local
    function `edgead::AnomalyMap`.

    Args:
        method: Trained method, in evaluation mode and on the CPU.
        size: Size of the images, which is fixed in the graph.

    Returns:
        The checked graph.

    Raises:
        ValueError: The method is in training mode.
    """
    if method.training:
        raise ValueError("a method is exported in evaluation mode: call eval() first")
    # The simplifier would inline the head's function, so it runs before the head is appended.
    features, _ = onnxsim.simplify(_traced_features(method, size))
    model = append_head(features, method.head)
    model.producer_name, model.producer_version = "edgead", __version__
    del model.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    return model


def _traced_features(method: DistillationMethod, size: ModelSize) -> ModelProto:
    """Trace the features into a graph of images (N, H, W, 3) uint8 with a free N."""
    # With one example image the exporter would fix the batch size to one.
    images = torch.zeros(2, size.height_px, size.width_px, 3, dtype=torch.uint8)
    with torch.no_grad(), _activations_out_of_place(method):
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
    assert program is not None  # only the old exporter returns None
    proto: ModelProto = program.model_proto
    return proto


@contextmanager
def _activations_out_of_place(method: nn.Module) -> Iterator[None]:
    """Let activations write new tensors meanwhile. The graph is the same, and the exporter takes half the time."""
    in_place = [module for module in method.modules() if getattr(module, "inplace", False)]
    try:
        for module in in_place:
            setattr(module, "inplace", False)  # noqa: B010 - nn.Module has no such attribute for a type checker
        yield
    finally:
        for module in in_place:
            setattr(module, "inplace", True)  # noqa: B010


class _Features(nn.Module):
    """Module that gives the features of a method as one flat tuple: teacher_1..K, student_1..K."""

    def __init__(self, method: DistillationMethod) -> None:
        super().__init__()
        self.method = method

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        teacher, student = self.method.features(images)
        return (*teacher, *student)
