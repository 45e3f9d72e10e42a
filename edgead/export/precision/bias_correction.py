"""Measurement of the shift that INT8 rounding adds to the mean of each convolution's output; see `quantize.py`.

One graph computes every quantised convolution twice from the same float32 input: once exactly, and once with rounded
input and weights. Each shift is therefore that of one convolution alone and does not depend on the choice of quantised
layers, so one measurement serves every choice.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, ValueInfoProto, helper, numpy_helper

from edgead.export.graph_sections import CONVOLUTIONS
from edgead.runtime.onnxruntime import tensor_values
from edgead.types import Float32Array, UInt8Array

_AXES = "shift_axes"


def measured_bias_corrections(
    exact: ModelProto, quantised: ModelProto, images: UInt8Array
) -> dict[str, Float32Array]:
    """Measure the shift, quantised minus exact output, of each channel of each quantised convolution.

    The shift of an image is the mean over its positions, and the result is the median over the images.

    Args:
        exact: The float32 graph.
        quantised: The same graph converted by `int8_from_float32` without bias corrections.
        images: Calibration images, (N, H, W, 3) uint8 RGB, N >= 1.

    Returns:
        Shifts, (C,) float32, by the name of the convolution's output tensor.

    Raises:
        BackendError: ONNX Runtime cannot run the graph.
    """
    copies = _with_rounded_copies(exact, quantised)
    names = [output.name for output in copies.graph.output[len(exact.graph.output) :]]
    of_image: dict[str, list[Float32Array]] = {name: [] for name in names}
    for values in tensor_values(copies.SerializeToString(), images, names):
        for name, value in values.items():
            of_image[name].append(value)
    return {
        name.removesuffix("_shift"): np.median(found, axis=0).astype(np.float32)
        for name, found in of_image.items()
    }


def _with_rounded_copies(exact: ModelProto, quantised: ModelProto) -> ModelProto:
    """Add a rounded copy beside each convolution of the float32 graph, and the mean difference of both as an output."""
    rounding = {
        node.output[0]: node
        for node in quantised.graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear")
    }
    after = {node.output[0]: node for node in quantised.graph.node}
    known = {weight.name for weight in exact.graph.initializer}
    model = ModelProto()
    model.CopyFrom(exact)
    graph = model.graph
    del graph.node[:]
    graph.initializer.extend(weight for weight in quantised.graph.initializer if weight.name not in known)
    graph.initializer.append(numpy_helper.from_array(np.array([0, 2, 3]), _AXES))
    added: set[str] = set()

    def add(name: str) -> None:
        """Add the rounding nodes that compute this tensor, unless they were added before."""
        node = rounding.get(name)
        if node is not None and name not in added:
            added.add(name)
            add(node.input[0])
            graph.node.append(node)

    for node in exact.graph.node:
        graph.node.append(node)
        rounded = after[node.output[0]]
        if node.op_type not in CONVOLUTIONS or rounded.input[0] == node.input[0]:
            continue
        name = node.output[0]
        for tensor in rounded.input:
            add(tensor)
        copy = NodeProto()
        copy.CopyFrom(rounded)
        copy.name, copy.output[0] = f"{name}_copy", f"{name}_copy"
        graph.node.append(copy)
        graph.node.append(helper.make_node("Sub", [f"{name}_copy", name], [f"{name}_difference"]))
        graph.node.append(
            helper.make_node("ReduceMean", [f"{name}_difference", _AXES], [f"{name}_shift"], keepdims=0)
        )
        graph.output.append(ValueInfoProto(name=f"{name}_shift"))
    return model
