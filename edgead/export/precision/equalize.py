"""Equalisation: rewrites a float32 graph into one that computes the same and loses less when it is rounded to INT8.

A tensor of activations has one INT8 scale, which its largest channel sets. A channel with a tenth of that range keeps
a tenth of the steps. The channels are therefore brought closer to one range (Nagel et al., "Data-Free Quantization
Through Weight Equalization and Bias Correction", ICCV 2019, section 4.1, with ranges measured on images): the
convolution that computes a channel is divided by a number, and the weights that read the channel are multiplied by
it. See `edgead.export.precision.channels` for the tensors that share these numbers. Where the head or another operator
reads a tensor, one multiplication restores it.

Symmetric INT8 wastes its negative half on the output of ReLU6. If only convolutions without padding read the output,
its interval is moved: [0, 6] becomes [-3, 3]. 3 is subtracted from the bias of the convolution before it, and the
share of 3 is added to the biases of the convolutions that read it. The zeros of a padding would have to move too, so
a tensor stays if a padded convolution reads it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper, numpy_helper

from edgead.export.graph_sections import CONVOLUTIONS
from edgead.export.precision.channels import COMPUTES_FACTORS, channel_factors, channel_scales
from edgead.export.precision.quantize import layers_to_quantise
from edgead.types import Float32Array, Float64Array


def equalised(model: ModelProto, channel_maxima: Mapping[str, Float32Array]) -> ModelProto:
    """Rewrite a float32 graph so that INT8 rounds it more finely. Its tensors keep their names.

    Args:
        model: A float32 graph that edgead exported. It is not changed.
        channel_maxima: Absolute maximum of each channel, (C,) float32, of each of `tensors_to_quantise`, by name.

    Returns:
        The checked graph. Its outputs are those of the given graph, except for float32 rounding.

    Raises:
        PrecisionError: The graph does not have exactly one head.
    """
    rewriting = _Rewriting(model)
    rewriting.scale(channel_scales(model, channel_maxima))
    rewriting.centre({name: float(maxima.max()) for name, maxima in channel_maxima.items()})
    return rewriting.checked()


class _Rewriting:
    """A copy of a graph, with changes of its constants."""

    def __init__(self, model: ModelProto) -> None:
        self._model = ModelProto()
        self._model.CopyFrom(model)
        self._nodes = list(self._model.graph.node)
        self._uses = Counter(name for node in self._nodes for name in node.input)
        self._given = {weight.name: weight for weight in model.graph.initializer}
        # Changed constants are not in the copy yet, so its layers cannot be classified later.
        self._quantised = set(layers_to_quantise(model))
        self._changed: dict[str, Float64Array] = {}

    def scale(self, scales: Mapping[str, Float32Array]) -> None:
        """Divide each channel of some tensors by its scale, and undo it where another operator needs the channel."""
        nodes: list[NodeProto] = []
        restored: set[str] = set()
        for node in self._nodes:
            for position, name in enumerate(node.input):
                if name not in scales or self._undo(node, position, scales):
                    continue
                if name not in restored:
                    restored.add(name)
                    self._changed[f"{name}_scales"] = scales[name].astype(np.float64).reshape(-1, 1, 1)
                    nodes.append(helper.make_node("Mul", [name, f"{name}_scales"], [f"{name}_restored"]))
                node.input[position] = f"{name}_restored"
            nodes.append(node)
            if node.op_type in COMPUTES_FACTORS and (by := scales.get(node.output[0])) is not None:
                weights = self._values(node.input[1])
                self._change(node, 1, weights / _factors(node, weights.shape, by, of_inputs=False))
                if len(node.input) > 2:
                    self._change(node, 2, self._values(node.input[2]) / by)
        self._nodes = nodes

    def _undo(self, node: NodeProto, position: int, scales: Mapping[str, Float32Array]) -> bool:
        """Let a node undo the scales of an input, and return True; return False if they must be undone before it."""
        by = scales[node.input[position]]
        if node.op_type in CONVOLUTIONS and position == 0 and node.input[1] in self._given:
            weights = self._values(node.input[1])
            self._change(node, 1, weights * _factors(node, weights.shape, by, of_inputs=True))
            return True
        constant = channel_factors(node, self._given)
        if constant is not None:
            self._change(node, constant, self._values(node.input[constant]) * by.reshape(-1, 1, 1))
            return True
        # The output of any other operator has scales if it keeps those of its inputs.
        return node.op_type == "Shape" or (node.op_type not in COMPUTES_FACTORS and node.output[0] in scales)

    def centre(self, absolute_maxima: Mapping[str, float]) -> None:
        """Move the interval of each ReLU6 that only quantised convolutions without padding read."""
        producer = {name: node for node in self._nodes for name in node.output}
        readers: dict[str, list[NodeProto]] = {}
        for node in self._nodes:
            for name in node.input:
                readers.setdefault(name, []).append(node)
        for node in self._nodes:
            if (
                node.op_type != "Clip"
                or not self._given.keys() >= set(node.input[1:3])
                or len(node.input) < 3
            ):
                continue
            before, after = producer.get(node.input[0]), readers.get(node.output[0], [])
            if before is None or before.op_type != "Conv" or len(readers[node.input[0]]) > 1:
                continue
            # A graph of an untrusted bundle may have outputs that nobody reads.
            if not after or not all(
                _is_unpadded(reader) and reader.output[0] in self._quantised for reader in after
            ):
                continue
            shift = absolute_maxima[node.output[0]] / 2.0
            self._add_to_bias(before, -shift)
            for position in (1, 2):
                self._change(node, position, self._values(node.input[position]) - shift)
            for reader in after:
                self._add_to_bias(reader, shift * self._values(reader.input[1]).sum(axis=(1, 2, 3)))

    def checked(self) -> ModelProto:
        """Return the changed graph, without the constants that it no longer reads."""
        graph = self._model.graph
        used = {name for node in self._nodes for name in node.input}
        del graph.node[:], graph.initializer[:]
        graph.node.extend(self._nodes)
        graph.initializer.extend(
            weight for name, weight in self._given.items() if name in used and name not in self._changed
        )
        graph.initializer.extend(
            numpy_helper.from_array(values.astype(np.float32), name)
            for name, values in self._changed.items()
            if name in used
        )
        onnx.checker.check_model(self._model, full_check=True)
        return self._model

    def _values(self, name: str) -> Float64Array:
        """Values of a constant, with the changes so far."""
        if name in self._changed:
            return self._changed[name]
        return np.asarray(numpy_helper.to_array(self._given[name]), np.float64)

    def _change(self, node: NodeProto, position: int, values: Float64Array) -> None:
        """Give a node other values of a constant, under the constant's name unless other nodes read it too."""
        name = node.input[position]
        if self._uses[name] > 1:
            name = node.input[position] = f"{node.output[0]}_input_{position}"
        self._changed[name] = values

    def _add_to_bias(self, node: NodeProto, shift: Float64Array | float) -> None:
        """Add a number for each output channel to the bias of a convolution, and a bias if it has none."""
        bias = self._values(node.input[2]) if len(node.input) > 2 else 0.0
        if len(node.input) == 2:
            node.input.append(f"{node.output[0]}_input_2")
        channels = self._values(node.input[1]).shape[0]
        self._change(node, 2, bias + np.broadcast_to(shift, (channels,)))


def _factors(node: NodeProto, shape: tuple[int, ...], numbers: Float32Array, of_inputs: bool) -> Float64Array:
    """Arrange a number for each input or output channel of a convolution as factors of its weights."""
    by = numbers.astype(np.float64)
    if len(shape) == 1:
        return by
    # Weights are (outputs, inputs of a group, ...) for Conv, and (inputs, outputs of a group, ...) for ConvTranspose.
    if of_inputs == (node.op_type == "ConvTranspose"):
        return by.reshape(-1, 1, 1, 1)
    groups = len(by) // shape[1]
    factors: Float64Array = np.repeat(by.reshape(groups, shape[1]), shape[0] // groups, axis=0)
    return factors[..., None, None]


def _is_unpadded(node: NodeProto) -> bool:
    """Whether a convolution reads no zeros beside the tensor."""
    given = {attribute.name: attribute for attribute in node.attribute}
    pads = given["pads"].ints if "pads" in given else ()
    automatic = given["auto_pad"].s if "auto_pad" in given else b"NOTSET"
    return not any(pads) and automatic in (b"NOTSET", b"VALID")
