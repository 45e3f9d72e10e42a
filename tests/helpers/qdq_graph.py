"""A graph of one quantised convolution with extreme weights, and its answers by integers in NumPy.

Every product of its 8-bit values is as large as it can be, so a kernel that adds two of them in 16 bits saturates.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

HEIGHT, WIDTH, CHANNELS = 32, 64, 16
STEP = np.float32(1 / 127)
"""Quantisation step of the activations, whose largest value is 1."""

OUT_STEP = np.float32(CHANNELS * 2 / 127)


def extreme_weights() -> np.ndarray:
    """(CHANNELS, 1) int8 of 127 and -127: the first half adds, the second takes away."""
    return np.where(np.arange(CHANNELS) < CHANNELS // 2, 127, -127).astype(np.int8)[:, None]


def qdq_graph() -> ModelProto:
    """images -> 16 planes of -1 or 1 by brightness -> Q/DQ -> 1x1 convolution with int8 weights -> Q/DQ -> map."""
    node = helper.make_node
    nodes = [
        node("Cast", ["images"], ["cast"], to=TensorProto.FLOAT),
        node("Transpose", ["cast"], ["planes"], perm=[0, 3, 1, 2]),
        node("Conv", ["planes", "spread_w", "spread_b"], ["spread"]),
        node("QuantizeLinear", ["spread", "step", "zero"], ["spread_q"]),
        node("DequantizeLinear", ["spread_q", "step", "zero"], ["spread_dq"]),
        node("DequantizeLinear", ["weights_q", "weights_step", "weights_zero"], ["weights"], axis=0),
        node("Conv", ["spread_dq", "weights", "bias"], ["sum"]),
        node("QuantizeLinear", ["sum", "out_step", "zero"], ["sum_q"]),
        node("DequantizeLinear", ["sum_q", "out_step", "zero"], ["sum_dq"]),
        # ONNX Runtime does not fuse a pair that gives an output of the graph.
        node("Relu", ["sum_dq"], ["anomaly_map"]),
        node("GlobalMaxPool", ["anomaly_map"], ["pooled"]),
        node("Squeeze", ["pooled", "axes"], ["anomaly_score"]),
    ]
    # Brightness 0 to 255 becomes -1 to 1 in the first half of the planes, and 1 to -1 in the second.
    sign = np.where(np.arange(CHANNELS) < CHANNELS // 2, 1.0, -1.0)
    constants = {
        "spread_w": np.repeat(sign[:, None] / (3 * 127.5), 3, axis=1)[..., None, None].astype(np.float32),
        "spread_b": (-sign).astype(np.float32),
        "step": STEP,
        "zero": np.int8(0),
        "weights_q": extreme_weights().T[..., None, None],
        "weights_step": np.array([1 / 127], np.float32),
        "weights_zero": np.zeros(1, np.int8),
        "bias": np.zeros(1, np.float32),
        "out_step": OUT_STEP,
        "axes": np.array([1, 2, 3], np.int64),
    }
    graph = helper.make_graph(
        nodes,
        "qdq",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", HEIGHT, WIDTH, 3])],
        [
            helper.make_tensor_value_info("anomaly_map", TensorProto.FLOAT, ["N", 1, HEIGHT, WIDTH]),
            helper.make_tensor_value_info("anomaly_score", TensorProto.FLOAT, ["N"]),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def exact_map(images: np.ndarray) -> np.ndarray:
    """The map (N, 1, H, W) float64 of grey images, with sums in 64-bit integers."""
    brightness = images[..., 0].astype(np.float64) / 127.5 - 1.0
    planes = np.stack([brightness] * (CHANNELS // 2) + [-brightness] * (CHANNELS // 2), axis=1)
    quantised = np.clip(np.rint(planes / STEP), -128, 127).astype(np.int64)
    sums = np.einsum("nchw,c->nhw", quantised, extreme_weights()[:, 0].astype(np.int64))
    real = sums * (float(STEP) / 127)
    return np.clip(np.rint(real / OUT_STEP), 0, 127)[:, None] * float(OUT_STEP)


def grey_images() -> np.ndarray:
    """One image of each of eight brightnesses, the two extremes among them, (8, H, W, 3) uint8."""
    levels = np.array([0, 1, 60, 127, 128, 200, 254, 255], np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (len(levels), HEIGHT, WIDTH, 3)).copy()
