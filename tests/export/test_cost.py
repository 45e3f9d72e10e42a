"""Parameters and operations of a graph, against a count by hand and against PyTorch's own counter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.utils.flop_counter import FlopCounterMode

from edgead.errors import BundleError
from edgead.export.cost import Cost, cost_of
from edgead.export.from_torch import onnx_from_method
from edgead.export.precision.quantize import int8_from_float32, tensors_to_quantise
from edgead.imaging.preprocess import ModelSize
from edgead.types import HeadSpec
from tests.helpers.toy_graph import toy_graph
from tests.helpers.toy_method import ToyMethod

# toy_graph: 32 x 64 pixels; teacher and student of 8 channels at 8 x 16.
FIRST = 3 * 32 * 64 * 3  # 1x1, 3 to 3 channels
TEACHER = 8 * 8 * 16 * (3 * 4 * 4)  # 4x4 stride 4, 3 to 8 channels
DOWN = 6 * 4 * 8 * (8 * 3 * 3)  # 3x3 stride 2, 8 to 6
MAIN = 6 * 4 * 8 * (6 * 3 * 3)  # 3x3, 6 to 6
UP = 6 * 4 * 8 * (8 * 2 * 2)  # transposed 2x2 stride 2, 6 to 8
# Three sums over 8 channels of 8 x 16 positions, as products with a row of ones; (32, 8) (8, 16) and (32, 16) (16, 64).
HEAD = 3 * 8 * (8 * 16) + 32 * 16 * 8 + 32 * 64 * 16
WEIGHTS = 3 * 3 + (8 * 3 * 4 * 4 + 8) + 6 * 8 * 3 * 3 + (6 * 6 * 3 * 3 + 6) + 6 * 8 * 2 * 2


def test_a_graph_counted_by_hand():
    assert cost_of(toy_graph()) == Cost(WEIGHTS, 2 * (FIRST + TEACHER + DOWN + MAIN + UP + HEAD))


def test_int8_counts_as_float32():
    model = toy_graph()
    quantised = int8_from_float32(model, dict.fromkeys(tensors_to_quantise(model), 4.0))
    assert any(node.op_type == "DequantizeLinear" for node in quantised.graph.node)
    assert cost_of(quantised) == cost_of(model)


def test_an_exported_method_counts_as_torch_counts_it():
    size = ModelSize(64, 96)
    method = ToyMethod(HeadSpec(64, 96)).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        method.features(torch.zeros(1, 64, 96, 3, dtype=torch.uint8))
    convolutions = [m for m in method.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.ConvTranspose2d)]
    # Folding batch normalisation gives each convolution a bias.
    parameters = sum(m.weight.numel() + m.out_channels for m in convolutions)
    # The head on two scales, 8 channels at 16 x 24 and 12 at 8 x 12.
    head = 3 * 8 * 16 * 24 + 64 * 24 * 16 + 64 * 96 * 24 + 3 * 12 * 8 * 12 + 64 * 12 * 8 + 64 * 96 * 12
    found = cost_of(onnx_from_method(method, size))
    assert found == Cost(parameters, counter.get_total_flops() + 2 * head)


def layer(op_type: str, given: list[int], weight: list[int], **attributes: object):
    value = helper.make_tensor_value_info
    node = helper.make_node(op_type, ["x", "w"], ["y"], **attributes)
    graph = helper.make_graph(
        [node],
        "layer",
        [value("x", TensorProto.FLOAT, ["N", *given])],
        [value("y", TensorProto.FLOAT, [None] * (len(given) + 1))],
        [numpy_helper.from_array(np.zeros(weight, np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.mark.parametrize(
    ("model", "multiply_adds"),
    [
        # Depthwise: one input channel for each of 4 outputs of 6 x 6.
        (layer("Conv", [4, 8, 8], [4, 1, 3, 3], group=4), 4 * 6 * 6 * 9),
        # Each of 4 x 5 x 5 inputs is spread over 3 outputs of its group and 2 x 2 positions, padded away or not.
        (layer("ConvTranspose", [4, 5, 5], [4, 3, 2, 2], group=2, pads=[1, 1, 0, 0]), 4 * 5 * 5 * 3 * 4),
        (layer("MatMul", [7, 5], [5, 3]), 7 * 3 * 5),
        (layer("Gemm", [5], [5, 3]), 1 * 3 * 5),
        (layer("Gemm", [5], [1, 3], transA=1), 5 * 3 * 1),
    ],
    ids=["depthwise", "transposed", "matmul", "gemm", "gemm-transposed"],
)
def test_each_kind_of_layer(model, multiply_adds):
    assert cost_of(model).flop == 2 * multiply_adds


def test_a_shape_that_is_not_fixed_is_refused():
    model = layer("Conv", [4, 8, 8], [4, 4, 3, 3])
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    with pytest.raises(BundleError) as refusal:
        cost_of(model)
    assert "Conv 'y'" in refusal.value.what
