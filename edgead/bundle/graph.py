"""The check of an ONNX file before a runtime sees it: structure, operators and sizes, without the package onnx.

ONNX Runtime and TensorRT run whatever a graph contains. A loop without end, a file beside the model, or a tensor that
declares more than the file holds must not reach them. The check reads the structure of the file (`edgead.bundle.wire`),
and not its weights.

Source: `onnx.proto` of ONNX 1.18.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod

from edgead.bundle.operators import OPERATORS, OPSETS, OPTIONAL_INPUTS
from edgead.bundle.wire import Kind, WireError, count_ints, fields_of, packed_ints, printable_text
from edgead.errors import BundleError

MAX_GRAPH_BYTES = 2**31 - 1
"""Largest ONNX file: protobuf itself reads no larger one."""

MAX_NODES = 20_000
MAX_ELEMENTS = 2**29
"""Largest number of elements of a tensor in the file."""

MAX_ATTRIBUTE = 2**16
"""Largest whole number in an attribute, such as a padding or a stride."""

_REBUILD = "rebuild the bundle with 'edgead build'"

_MODEL: Mapping[int, Kind] = {
    1: "int", 2: "text", 3: "text", 4: "text", 5: "int", 6: "text", 7: "message", 8: "messages", 14: "messages",
}  # fmt: skip
_OPSET: Mapping[int, Kind] = {1: "text", 2: "int"}
_GRAPH: Mapping[int, Kind] = {
    1: "messages", 2: "text", 5: "messages", 10: "text", 11: "messages", 12: "messages", 13: "messages",
    16: "messages",
}  # fmt: skip
_VALUE: Mapping[int, Kind] = {1: "text", 2: "message", 3: "text", 4: "messages"}
_TYPE: Mapping[int, Kind] = {1: "message", 6: "text"}
_TENSOR_TYPE: Mapping[int, Kind] = {1: "int", 2: "message"}
_SHAPE: Mapping[int, Kind] = {1: "messages"}
_DIMENSION: Mapping[int, Kind] = {1: "int", 2: "text", 3: "text"}
_NODE: Mapping[int, Kind] = {
    1: "texts", 2: "texts", 3: "text", 4: "text", 5: "messages", 6: "text", 7: "text", 8: "text", 9: "messages",
}  # fmt: skip
_ATTRIBUTE: Mapping[int, Kind] = {
    1: "text", 2: "float", 3: "int", 4: "bytes", 5: "message", 7: "floats", 8: "ints", 13: "text", 20: "int",
}  # fmt: skip
_TENSOR: Mapping[int, Kind] = {
    1: "ints", 2: "int", 4: "floats", 5: "ints", 7: "ints", 8: "text", 9: "bytes", 12: "text", 14: "int",
    16: "messages",
}  # fmt: skip
# Reasons for fields that ONNX has and a bundle may not have. Every other unknown field is refused as such.
_REFUSED: Mapping[str, Mapping[int, str]] = {
    "the model": {20: "training information", 25: "functions"},
    "the graph": {15: "sparse weights"},
    "an attribute": {
        6: "a subgraph",
        11: "subgraphs",
        10: "tensors",
        22: "a sparse tensor",
        23: "sparse tensors",
    },
    "a tensor": {3: "a segment", 6: "texts", 13: "its data in another file"},
}
_BITS = {1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 16: 16}
"""Bits of an element by the number of its type in `TensorProto.DataType`: integers, bool and floats."""


def check_graph(content: bytes, name: str) -> None:
    """Refuse an ONNX file that edgead does not write.

    Args:
        content: Content of the file.
        name: Path of the file, for messages.

    Raises:
        BundleError: The file is no ONNX file, is larger than `MAX_GRAPH_BYTES`, or has an operator that is not in
            `OPERATORS`, another opset than `OPSETS`, a function, a subgraph, or a tensor whose data is outside of the
            file or of another length than its shape. The message names the operator or the field.
    """
    try:
        if len(content) > MAX_GRAPH_BYTES:
            raise WireError(f"it is larger than {MAX_GRAPH_BYTES} bytes")
        graph: memoryview | None = None
        opsets: dict[str, int] = {}
        for number, value in _fields(memoryview(content), _MODEL, "the model"):
            if number == 7:
                graph = _message(value)
            elif number == 8:
                domain, version = _opset(_message(value))
                opsets[domain] = version
        if graph is None:
            raise WireError("it has no graph")
        if set(opsets) != {""} or opsets[""] not in OPSETS:
            found = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in opsets.items())
            raise WireError(
                f"its operator sets are {found[:200] or 'not given'}, not ai.onnx {OPSETS[0]} to {OPSETS[-1]}"
            )
        _check_graph(graph)
    except WireError as error:
        raise BundleError(f"{name} is no graph that edgead writes ({error})", hint=_REBUILD) from error


def _check_graph(graph: memoryview) -> None:
    nodes = 0
    for number, value in _fields(graph, _GRAPH, "the graph"):
        if number == 1:
            nodes += 1
            _check_node(_message(value))
        elif number == 5:
            _check_tensor(_message(value))
        elif number in (11, 12, 13):
            _check_value(_message(value))
    if nodes > MAX_NODES:
        raise WireError(f"it has {nodes} nodes, more than {MAX_NODES}")


def _check_value(value: memoryview) -> None:
    """Check the names in an input, an output or the declared type of a tensor, which must be a tensor."""
    for number, content in fields_of(value, _VALUE, "a value"):
        if number == 1:
            printable_text(content)
        elif number == 2:
            _check_type(_message(content))


def _check_type(content: memoryview) -> None:
    for number, tensor in fields_of(content, _TYPE, "a type"):
        for inner, shape in fields_of(_message(tensor), _TENSOR_TYPE, "a type") if number == 1 else ():
            for _, dimension in fields_of(_message(shape), _SHAPE, "a shape") if inner == 2 else ():
                for last, name in fields_of(_message(dimension), _DIMENSION, "a dimension"):
                    if last != 1:
                        printable_text(name)


def _check_node(node: memoryview) -> None:
    operator = domain = overload = ""
    attributes, nameless = [], False
    for number, value in _fields(node, _NODE, "a node"):
        if number == 5:
            attributes.append(_message(value))
        elif number in (1, 2, 3, 4, 7, 8):
            text = printable_text(value)
            nameless = nameless or (number <= 2 and not text)
            if number == 4:
                operator = text
            elif number == 7:
                domain = text
            elif number == 8:
                overload = text
    if domain or operator not in OPERATORS or overload:
        shown = f"{domain}::{operator}" if domain else operator
        raise WireError(f"it has the operator {shown[:80]!r}, which edgead does not run")
    if nameless and operator not in OPTIONAL_INPUTS:
        raise WireError(f"an input or output of a {operator} has no name")
    # After the operator, so that the message names a Loop and not its subgraph.
    for attribute in attributes:
        _check_attribute(attribute)


def _check_attribute(attribute: memoryview) -> None:
    for number, value in _fields(attribute, _ATTRIBUTE, "an attribute"):
        if number in (1, 4):
            printable_text(value)
        elif number == 5:
            _check_tensor(_message(value))
        elif number in (3, 8) and any(abs(one) > MAX_ATTRIBUTE for one in packed_ints(value)):
            raise WireError(f"an attribute contains a number above {MAX_ATTRIBUTE}")


def _check_tensor(tensor: memoryview) -> None:
    """Check that a tensor has its data inside, of the length that type and shape imply."""
    shape: list[int] = []
    data_type, bits, elements = 0, 0, 0
    for number, value in _fields(tensor, _TENSOR, "a tensor"):
        if number == 1:
            shape += packed_ints(value)
        elif number == 2:
            data_type = value if isinstance(value, int) else 0
        elif number == 14 and value:
            raise WireError("a tensor has its data in another file")
        elif number == 4:
            elements += len(_message(value)) // 4
        elif number in (5, 7):
            elements += count_ints(value)
        elif number == 8:
            printable_text(value)
        elif number == 9:
            bits = 8 * len(_message(value))
    if data_type not in _BITS:
        raise WireError(f"a tensor has elements of the type {data_type}")
    count = prod(shape)
    if min(shape, default=0) < 0 or count > MAX_ELEMENTS:
        raise WireError(f"a tensor has the shape {shape!r:.100}")
    if (bits and elements) or (count != elements and count * _BITS[data_type] != bits):
        raise WireError(f"a tensor of the shape {shape!r:.100} has data of another length")


def _opset(opset: memoryview) -> tuple[str, int]:
    """Domain and version of an operator set; the standard domain has the empty name, as the exporters write it."""
    domain, version = "", 0
    for number, value in fields_of(opset, _OPSET, "an operator set"):
        if number == 1:
            domain = printable_text(value)
        elif isinstance(value, int):
            version = value
    return domain, version


def _fields(
    message: memoryview, known: Mapping[int, Kind], name: str
) -> Iterator[tuple[int, int | memoryview]]:
    """Read the fields of a message; a field that a bundle may not have is refused by its meaning."""
    refused = _REFUSED.get(name, {})
    for number, value in fields_of(message, {**known, **dict.fromkeys(refused, "messages")}, name):
        if number in refused:
            raise WireError(f"{name} has {refused[number]}")
        yield number, value


def _message(value: int | memoryview) -> memoryview:
    """Narrow the type of a field that has a length."""
    assert isinstance(value, memoryview)
    return value
