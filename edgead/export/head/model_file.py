"""The graph as a file, `model.onnx`: standard operators only, which every runtime opens.

In memory the head is one node, so that a change of precision and a plugin find it. In the file its function is inlined,
and an entry of the model's metadata keeps the attributes of the node and the names of its features. With this entry the
node is put back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import onnx
from onnx import ModelProto, ValueInfoProto

from edgead.bundle.graph import check_graph
from edgead.errors import BundleError
from edgead.export.head.inline import without_head_function
from edgead.export.head.onnx_function import DOMAIN, OP_TYPE, append_head, spec_of_node
from edgead.files.parsing import RecordError, json_text, parse_json
from edgead.files.records import record_errors, record_from
from edgead.types import HeadSpec

METADATA_KEY = "edgead_head"
"""Key of the entry in `metadata_props` of the model."""

_MAX_ENTRY_BYTES = 2**16
_REBUILD = "rebuild the bundle with 'edgead build'"


@dataclass(frozen=True, slots=True)
class _Entry:
    """The entry of the metadata: attributes of the head, and its inputs, teacher_1..K and then student_1..K."""

    head: HeadSpec
    features: tuple[str, ...]


def file_from_graph(model: ModelProto) -> bytes:
    """Return the content of `model.onnx`.

    Args:
        model: A graph that edgead exported, in any precision. It is not changed.

    Returns:
        Content of the file, with the head as standard operators.

    Raises:
        BundleError: The graph does not have exactly one head, or has an operator that no bundle may have.
    """
    heads = [node for node in model.graph.node if (node.domain, node.op_type) == (DOMAIN, OP_TYPE)]
    if len(heads) != 1:
        raise BundleError(
            f"the graph has {len(heads)} nodes {DOMAIN}::{OP_TYPE} where it should have one",
            hint="export it with 'edgead build'",
        )
    standard = without_head_function(model)
    entry = standard.metadata_props.add()
    entry.key, entry.value = (
        METADATA_KEY,
        json_text(asdict(_Entry(spec_of_node(heads[0]), tuple(heads[0].input))), indent=None),
    )
    content: bytes = standard.SerializeToString()
    try:
        check_graph(content, "the exported graph")
    except BundleError as error:
        raise BundleError(error.what, hint="choose another teacher or method") from error
    return content


def graph_from_file(content: bytes) -> ModelProto:
    """Read a `model.onnx`, and put the node of the head back.

    Args:
        content: Content of the file.

    Returns:
        The graph with the head as one node and its function. A graph without the entry of edgead stays as it is.

    Raises:
        BundleError: The file is no ONNX file, or its entry does not fit the graph.
    """
    try:
        model = onnx.load_from_string(content)
        entries = [entry.value for entry in model.metadata_props if entry.key == METADATA_KEY]
        if not entries:
            return model
        with record_errors(BundleError, "the head of model.onnx is not as its metadata says", _REBUILD):
            return _with_head_node(model, record_from(_Entry, parse_json(entries[0], _MAX_ENTRY_BYTES)))
    except BundleError:
        raise
    except Exception as error:  # the errors of onnx and protobuf have no common base class below this one
        reason = " ".join(str(error).split())[:300]
        raise BundleError(f"model.onnx is no graph that edgead writes ({reason})", hint=_REBUILD) from error


def _with_head_node(model: ModelProto, entry: _Entry) -> ModelProto:
    """Replace the nodes between the features and the outputs by the node of the head."""
    outputs = [value.name for value in model.graph.output]
    if outputs != ["anomaly_map", "anomaly_score"]:
        raise RecordError(f"the outputs are {outputs!r:.200}")
    # The matrices of the head grow with these numbers.
    if entry.head.sigma > max(entry.head.height, entry.head.width):
        raise RecordError(f"sigma is {entry.head.sigma}, more than the map's size")
    lengths = model.graph.output[0].type.tensor_type.shape.dim
    if [length.dim_value for length in lengths][2:] != [entry.head.height, entry.head.width]:
        raise RecordError(f"the map is not {entry.head.height}x{entry.head.width}")
    features = _features(model, entry)
    inside = _tensors_between(model, entry.features, outputs)
    _remove(model.graph.node, lambda node: node.output[0] in inside)
    _remove(model.graph.value_info, lambda value: value.name in inside)
    used = {name for node in model.graph.node for name in node.input}
    _remove(model.graph.initializer, lambda weight: weight.name not in used)
    _remove(model.metadata_props, lambda one: one.key == METADATA_KEY)
    del model.graph.output[:]
    model.graph.output.extend(features)
    return append_head(model, entry.head)


def _features(model: ModelProto, entry: _Entry) -> list[ValueInfoProto]:
    """Return the features with their inferred shapes; RecordError if one has no fixed size, or exceeds the image."""
    # The size of an upsampling is computed in the graph, from the shape of its input.
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    batch = model.graph.input[0].type.tensor_type.shape.dim[0]
    values = {value.name: value for value in (*inferred.input, *inferred.value_info)}
    found = []
    for name in entry.features:
        value = values.get(name)
        lengths = [] if value is None else [d.dim_value for d in value.type.tensor_type.shape.dim]
        if value is None or len(lengths) != 4 or min(lengths[1:]) < 1:
            raise RecordError(f"the feature {name[:80]!r} has no fixed channels, height and width")
        if lengths[2] > entry.head.height or lengths[3] > entry.head.width or lengths[1] > 2**16:
            raise RecordError(f"the feature {name[:80]!r} is larger than the map")
        value.type.tensor_type.shape.dim[0].CopyFrom(batch)
        found.append(value)
    return found


def _tensors_between(model: ModelProto, first: Iterable[str], last: Iterable[str]) -> set[str]:
    """Names of the computed tensors that the tensors `last` depend on, and `last`, without the tensors `first`."""
    producer = {name: node for node in model.graph.node for name in node.output}
    found: set[str] = set()
    waiting, ends = list(last), set(first)
    while waiting:
        name = waiting.pop()
        if name in producer and name not in ends | found:
            found.add(name)
            waiting.extend(producer[name].input)
    return found


def _remove(field: Any, unwanted: Callable[[Any], bool]) -> None:
    """Remove some messages of a repeated field in place, because a copy of the weights would need their memory."""
    for index in reversed(range(len(field))):
        if unwanted(field[index]):
            del field[index]
