"""A model small enough to check by hand: its map is the brightness of each pixel, its score the brightest."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


def brightness_model(
    height: int | str = 32, width: int | str = 64, dtype: int = TensorProto.UINT8
) -> onnx.ModelProto:
    """images (N, height, width, 3) -> anomaly_map = mean channel / 255, anomaly_score = its maximum."""
    constants = {
        "channels": np.array([3], np.int64),
        "map_axis": np.array([1], np.int64),
        "picture_axes": np.array([1, 2, 3], np.int64),
        "white": np.array(255, np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "channels"], ["grey"], keepdims=0),
        helper.make_node("Unsqueeze", ["grey", "map_axis"], ["plane"]),
        helper.make_node("Div", ["plane", "white"], ["anomaly_map"]),
        helper.make_node("ReduceMax", ["anomaly_map", "picture_axes"], ["anomaly_score"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info("images", dtype, ["N", height, width, 3])],
        [
            helper.make_tensor_value_info("anomaly_map", TensorProto.FLOAT, ["N", 1, height, width]),
            helper.make_tensor_value_info("anomaly_score", TensorProto.FLOAT, ["N"]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model


@pytest.fixture
def make_model() -> Callable[..., onnx.ModelProto]:
    return brightness_model


@pytest.fixture
def pictures() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (3, 32, 64, 3), dtype=np.uint8)
