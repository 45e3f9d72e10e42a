"""A graph as edgead exports one, by hand and without torch: teacher, student with a residual addition, head."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from edgead.export.head.model_file import file_from_graph
from edgead.export.head.onnx_function import append_head
from edgead.types import HeadSpec

HEIGHT, WIDTH = 32, 64


def toy_graph(seed: int = 0, weight_scale: float = 1.0) -> ModelProto:
    """One scale of 8 channels at stride 4; weight_scale: of the student's first convolution."""
    rng = np.random.default_rng(seed)

    def weight(name: str, *shape: int, scale: float = 1.0) -> TensorProto:
        values = rng.normal(0.0, scale / np.sqrt(np.prod(shape[1:])), shape)
        return numpy_helper.from_array(values.astype(np.float32), name)

    node = helper.make_node
    nodes = [
        node("Cast", ["images"], ["cast"], to=TensorProto.FLOAT),
        node("Transpose", ["cast"], ["planes"], perm=[0, 3, 1, 2]),
        node("Div", ["planes", "half_range"], ["scaled"]),
        node("Sub", ["scaled", "one"], ["normalised"]),
        # A first convolution is never quantised. This one changes nothing, so the next one is easy to check by hand.
        node("Conv", ["normalised", "first_w"], ["image"]),
        node("Conv", ["image", "teacher_w", "teacher_b"], ["conv_t"], strides=[4, 4]),
        node("Relu", ["conv_t"], ["teacher"]),
        node("Conv", ["teacher", "down_w"], ["down"], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Relu", ["down"], ["embedding"]),
        node("Conv", ["embedding", "main_w", "main_b"], ["main"], pads=[1, 1, 1, 1]),
        node("Add", ["main", "embedding"], ["sum"]),
        node("Relu", ["sum"], ["residual"]),
        node("ConvTranspose", ["residual", "up_w"], ["up"], strides=[2, 2]),
        node("Resize", ["up", "", "scales"], ["student"], mode="nearest"),
    ]
    weights = [
        numpy_helper.from_array(np.float32(127.5), "half_range"),
        numpy_helper.from_array(np.float32(1.0), "one"),
        numpy_helper.from_array(np.ones(4, np.float32), "scales"),
        numpy_helper.from_array(np.eye(3, dtype=np.float32)[..., None, None], "first_w"),
        weight("teacher_w", 8, 3, 4, 4),
        weight("teacher_b", 8),
        weight("down_w", 6, 8, 3, 3, scale=weight_scale),
        weight("main_w", 6, 6, 3, 3),
        weight("main_b", 6),
        weight("up_w", 6, 8, 2, 2),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", HEIGHT, WIDTH, 3])
    features = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 8, HEIGHT // 4, WIDTH // 4])
        for name in ("teacher", "student")
    ]
    graph = helper.make_graph(nodes, "toy", [images], features, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return append_head(model, HeadSpec(HEIGHT, WIDTH, sigma=1.0))


def toy_file(seed: int = 0, weight_scale: float = 1.0) -> bytes:
    """The content of its model.onnx."""
    return file_from_graph(toy_graph(seed, weight_scale))


def toy_images(count: int, seed: int = 0) -> np.ndarray:
    """Images for it, (N, H, W, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (count, HEIGHT, WIDTH, 3), np.uint8)


def values_of(model: ModelProto, images: np.ndarray, *names: str) -> list[np.ndarray]:
    """The values of tensors inside a graph, by ONNX's own reference evaluator and not by a runtime of ours."""
    from onnx.reference import ReferenceEvaluator

    tapped = ModelProto()
    tapped.CopyFrom(model)
    # The head is not needed for what lies before it.
    del tapped.graph.output[:], tapped.functions[:]
    kept = [node for node in tapped.graph.node if node.domain == ""]
    del tapped.graph.node[:]
    tapped.graph.node.extend(kept)
    # The evaluator has Q/DQ from opset 19 on, where they compute what they do in 18.
    tapped.opset_import[0].version = 19
    tapped.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    return ReferenceEvaluator(tapped).run(list(names), {"images": images})


def initialisers(model: ModelProto) -> dict[str, np.ndarray]:
    """All constants of a graph, by name."""
    return {weight.name: numpy_helper.to_array(weight) for weight in model.graph.initializer}
