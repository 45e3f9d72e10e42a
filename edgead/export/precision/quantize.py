"""Conversion of a float32 graph to INT8 with explicit Q/DQ nodes, placed where TensorRT fuses them.

The graph defines the quantisation: a pair of QuantizeLinear and DequantizeLinear rounds one tensor with one scale, so
every runtime rounds in the same way, and a builder makes no choice. All quantisation is symmetric with zero point 0.
Activations have one scale, and weights have one scale for each output channel. Biases and the head are not quantised.

Pairs are placed on the data input of every convolution that INT8 helps, and on the inputs of a residual addition except
one. If a convolution's output goes only into the addition, it stays in float: TensorRT computes that convolution and
the addition as one kernel, and a pair between them would prevent it (NVIDIA, "TensorRT Developer Guide", chapter
"Working with Quantized Types", Q/DQ layer-placement recommendations: quantise the residual input of skip connections).

The first and the last convolutions stay in float: those that read the image, those whose output the head reads, and
those from whose output no other convolution computes anything, with the additions behind them. They hold 2 to 6 per
cent of the multiplications. An image has 256 levels that lie between the 255 levels of symmetric INT8, and the outputs
of a last convolution are the features themselves, without a layer behind that averages their errors. Measured in
benchmarks/results/int8.md.

Of the others a build leaves those in float that do the most harm, see `edgead.export.precision.sensitivity`.

Depthwise and transposed convolutions stay in float. The pairs of a depthwise convolution move more bytes than its
weights save, and they make it slower on ONNX Runtime too. TensorRT for RTX dequantises the weights of a transposed
convolution at each inference. Builders of TensorRT 8.4 to 8.6 have no INT8 kernel for many of both. Measured in
benchmarks/results/engine_sizes.md.

Scales are rounded up to float16, so that a graph with float16 layers beside INT8 rounds as the graph whose shifts were
measured.

The arithmetic follows ONNX (operators QuantizeLinear, DequantizeLinear): round half to even, then clip.

Rounding shifts the mean of a convolution's output. Such shifts add up from layer to layer, where zero-mean noise would
cancel. The shift that calibration measured is therefore subtracted from the bias of each convolution (Nagel et al.,
"Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section 4.2, the empirical form).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgead.errors import PrecisionError
from edgead.export.graph_sections import CONVOLUTIONS, float_tensors, sections_of
from edgead.types import Float32Array, Quantize

INT8_MAX = 127
"""Largest quantised magnitude. Weights do not use -128, so that they stay symmetric."""


def tensors_to_quantise(model: ModelProto, quantize: Quantize = "all") -> tuple[str, ...]:
    """Return the names of the activations that get a Q/DQ pair, in the order of the graph. Each needs a clipping limit.

    Args:
        model: A float32 graph that edgead exported.
        quantize: `all` for teacher and student, `student` for the student alone.

    Raises:
        PrecisionError: The graph does not have exactly one head.
    """
    return tuple(dict.fromkeys(name for names in _sites(model, quantize).values() for name in names))


def layers_to_quantise(model: ModelProto, quantize: Quantize = "all") -> tuple[str, ...]:
    """Return the convolutions and additions that `int8_from_float32` quantises, each named by its output tensor.

    Args:
        model: A float32 graph that edgead exported.
        quantize: `all` for teacher and student, `student` for the student alone.

    Raises:
        PrecisionError: The graph does not have exactly one head.
    """
    return tuple(model.graph.node[index].output[0] for index in _sites(model, quantize))


def int8_from_float32(
    model: ModelProto,
    clipping_limits: Mapping[str, float],
    quantize: Quantize = "all",
    bias_corrections: Mapping[str, Float32Array] = MappingProxyType({}),
    excluded: Collection[str] = (),
) -> ModelProto:
    """Insert Q/DQ pairs into a float32 graph.

    Args:
        model: A float32 graph that edgead exported. It is not changed.
        clipping_limits: Clipping limit of each of `tensors_to_quantise`, by name.
        quantize: `all` for teacher and student, `student` for the student alone.
        bias_corrections: Values (C,) to subtract from the biases of convolutions, by the name of the output tensor; see
            `edgead.export.precision.bias_correction`.
        excluded: Layers from `layers_to_quantise` that stay in float32.

    Returns:
        The checked graph.

    Raises:
        PrecisionError: A clipping limit is missing, negative or not finite, weights are not finite, or the graph does
            not have exactly one head.
    """
    nodes = list(model.graph.node)
    sites = {
        index: names
        for index, names in _sites(model, quantize).items()
        if nodes[index].output[0] not in excluded
    }
    for name in (name for names in sites.values() for name in names):
        if not 0.0 <= clipping_limits.get(name, -1.0) < np.inf:
            raise PrecisionError(f"tensor {name!r} has no clipping limit", hint="calibrate again")
    weights = {weight.name: weight for weight in model.graph.initializer}
    writer = _Writer()
    for index, node in enumerate(nodes):
        changed = NodeProto()
        changed.CopyFrom(node)
        for position, name in enumerate(node.input):
            if name in sites.get(index, ()):
                changed.input[position] = writer.quantise(name, clipping_limits[name])
            elif index in sites and node.op_type == "Conv" and position == 1 and name in weights:
                values = numpy_helper.to_array(weights[name])
                changed.input[position] = writer.quantise_weight(name, values)
        if index in sites and node.output[0] in bias_corrections:
            writer.correct(changed, weights, bias_corrections[node.output[0]])
        writer.nodes.append(changed)
    quantised = ModelProto()
    quantised.CopyFrom(model)
    graph = quantised.graph
    used = {name for node in writer.nodes for name in node.input}
    del graph.node[:], graph.initializer[:]
    graph.node.extend(writer.nodes)
    graph.initializer.extend(weight for name, weight in weights.items() if name in used)
    graph.initializer.extend(writer.weights)
    onnx.checker.check_model(quantised, full_check=True)
    return quantised


def _sites(model: ModelProto, quantize: Quantize) -> dict[int, tuple[str, ...]]:
    """Activations to quantise at the inputs of each node, by the node's index."""
    sections, floats = sections_of(model), float_tensors(model)
    nodes = list(model.graph.node)
    producer = {name: node for node in nodes for name in node.output}
    uses = Counter(name for node in nodes for name in node.input)
    weights = {weight.name: weight for weight in model.graph.initializer}
    sites: dict[int, tuple[str, ...]] = {}
    computed = {name for index in sections.teacher | sections.student for name in nodes[index].output}
    inside = sections.student | sections.teacher if quantize == "all" else sections.student
    for index in sorted(inside - _last_nodes(nodes, sections.head)):
        node = nodes[index]
        if node.op_type in CONVOLUTIONS:
            is_first = node.input[0] not in computed
            if node.op_type == "Conv" and not is_first and not _is_depthwise(node, weights):
                sites[index] = (node.input[0],)
        elif (
            node.op_type == "Add" and floats.issuperset(node.input) and weights.keys().isdisjoint(node.input)
        ):
            fused = (
                name for name in node.input if producer[name].op_type in CONVOLUTIONS and uses[name] == 1
            )
            kept = next(fused, None)
            sites[index] = tuple(name for name in node.input if name != kept)
    return sites


def _last_nodes(nodes: list[NodeProto], head: int) -> frozenset[int]:
    """Indices of the convolutions whose output the head reads, and of all nodes that no convolution depends on."""
    read: set[str] = set()
    # The head also reads through the multiplication that undoes an equalisation.
    features = set(nodes[head].input)
    features |= {node.input[0] for node in nodes if node.op_type == "Mul" and features & set(node.output)}
    last = set()
    for index in reversed(range(len(nodes))):
        node = nodes[index]
        is_convolution = node.op_type in CONVOLUTIONS
        if read.isdisjoint(node.output) or (is_convolution and features & set(node.output)):
            last.add(index)
        if is_convolution or not read.isdisjoint(node.output):
            read.update(node.input)
    return frozenset(last)


def _is_depthwise(node: NodeProto, weights: Mapping[str, TensorProto]) -> bool:
    """Whether each group of a convolution has one input channel, and there are several groups."""
    groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    return groups > 1 and node.input[1] in weights and weights[node.input[1]].dims[1] == 1


class _Writer:
    """Nodes of the quantised graph in order, and the new constants that they take."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []
        self._dequantised: dict[str, str] = {}

    def quantise(self, name: str, largest: float) -> str:
        """Name of the dequantised activation. The first call adds its Q/DQ pair."""
        if name not in self._dequantised:
            scale, zero = self._scale(name, self._steps(np.float32(largest)))
            self.nodes.append(
                helper.make_node(
                    "QuantizeLinear", [name, scale, zero], [f"{name}_q"], name=f"{name}_quantise"
                )
            )
            self._dequantise(name, f"{name}_q", scale, zero)
        return self._dequantised[name]

    def quantise_weight(self, name: str, values: Float32Array) -> str:
        """Name of the dequantised weights. The first call adds them as int8 with one scale for each output channel."""
        if name not in self._dequantised:
            if not np.isfinite(values).all():
                raise PrecisionError(
                    f"weights {name!r} hold values that are not finite", hint="train the run again"
                )
            scales = self._steps(np.abs(values).max(axis=tuple(range(1, values.ndim))))
            steps = np.rint(values / scales.reshape(-1, *[1] * (values.ndim - 1)))
            quantised = np.clip(steps, -INT8_MAX, INT8_MAX).astype(np.int8)
            self.weights.append(numpy_helper.from_array(quantised, f"{name}_q"))
            scale, zero = self._scale(name, scales)
            self._dequantise(name, f"{name}_q", scale, zero, axis=0)
        return self._dequantised[name]

    def correct(self, node: NodeProto, weights: Mapping[str, TensorProto], shift: Float32Array) -> None:
        """Subtract the shift (C,) from the bias of a convolution, or add a bias if it has none."""
        bias = numpy_helper.to_array(weights[node.input[2]]) if len(node.input) > 2 else np.float32(0.0)
        name = f"{node.output[0]}_bias"
        self.weights.append(numpy_helper.from_array(np.asarray(bias - shift, np.float32), name))
        del node.input[2:]
        node.input.append(name)

    def _steps(self, largest: npt.NDArray[np.float32] | np.float32) -> Float32Array:
        """Quantisation step for a largest magnitude. All zeros get the step 1, because a step of 0 is not allowed."""
        steps = np.asarray(largest, np.float32) / np.float32(INT8_MAX)
        scales: Float32Array = np.where(steps > 0.0, steps, 1.0).astype(np.float32)
        return _rounded_up(scales)

    def _scale(self, name: str, scales: Float32Array) -> tuple[str, str]:
        self.weights.append(numpy_helper.from_array(scales, f"{name}_scale"))
        self.weights.append(numpy_helper.from_array(np.zeros(scales.shape, np.int8), f"{name}_zero"))
        return f"{name}_scale", f"{name}_zero"

    def _dequantise(self, name: str, quantised: str, scale: str, zero: str, axis: int | None = None) -> None:
        self._dequantised[name] = f"{name}_dq"
        along = {} if axis is None else {"axis": axis}
        self.nodes.append(
            helper.make_node(
                "DequantizeLinear",
                [quantised, scale, zero],
                [self._dequantised[name]],
                name=f"{name}_dequantise",
                **along,
            )
        )


def _rounded_up(scales: Float32Array) -> Float32Array:
    """Round positive numbers up to float16. A larger step clips nothing, and a small one must not become 0.

    Numbers above the range of float16 stay. Their tensors do not become float16.
    """
    with np.errstate(over="ignore"):
        half = scales.astype(np.float16)
    half = np.where(half < scales, np.nextafter(half, np.float16(np.inf)), half)
    return np.where(np.isfinite(half), half, scales).astype(np.float32)
