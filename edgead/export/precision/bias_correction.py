"""Measurement of the shift that INT8 rounding adds to the mean of each convolution's output; see `quantize.py`.

Each shift is that of one convolution alone (`edgead.export.precision.rounded_copies`) and does not depend on the choice
of quantised layers, so one measurement serves every choice.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, ValueInfoProto, helper, numpy_helper

from edgead.export.graph_sections import CONVOLUTIONS
from edgead.export.precision.rounded_copies import with_rounded_copies
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
    copies, layers = with_rounded_copies(exact, quantised)
    convolutions = {node.output[0] for node in exact.graph.node if node.op_type in CONVOLUTIONS}
    graph = copies.graph
    graph.initializer.append(numpy_helper.from_array(np.array([0, 2, 3]), _AXES))
    names = [f"{name}_shift" for name in layers if name in convolutions]
    for name in names:
        error = f"{name.removesuffix('_shift')}_error"
        graph.node.append(helper.make_node("ReduceMean", [error, _AXES], [name], keepdims=0))
        graph.output.append(ValueInfoProto(name=name))
    of_image: dict[str, list[Float32Array]] = {name: [] for name in names}
    for values in tensor_values(copies.SerializeToString(), images, names):
        for name, value in values.items():
            of_image[name].append(value)
    return {
        name.removesuffix("_shift"): np.median(found, axis=0).astype(np.float32)
        for name, found in of_image.items()
    }
