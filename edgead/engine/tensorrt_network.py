"""Parses an ONNX file into a TensorRT network, in the process that compiles it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgead.errors import BackendError, GraphRefusedError
from edgead.runtime.tensorrt.feature_record import FeatureRecord
from edgead.runtime.tensorrt.library import Library


def parsed_network(
    library: Library, builder: Any, graph: Path, features: FeatureRecord | None
) -> tuple[Any, Any]:
    """Parse a graph.

    Args:
        library: Library that compiles the graph.
        builder: Builder of the library.
        graph: ONNX file.
        features: Outputs of a graph that ends in features; None for a graph that ends in map and score.

    Returns:
        The network, and the parser, which owns the weights of the network.

    Raises:
        GraphRefusedError: If the parser rejects the graph.
        BackendError: If it finds other inputs or outputs than expected.
    """
    trt, outputs = library.module, _outputs(features)
    flag = trt.NetworkDefinitionCreationFlag
    network = builder.create_network(
        1 << int(flag.STRONGLY_TYPED if library.strongly_typed else flag.EXPLICIT_BATCH)
    )
    parser = trt.OnnxParser(network, library.logger)
    if not parser.parse_from_file(str(graph)):
        reasons = "; ".join(
            _parser_error(library, parser.get_error(index)) for index in range(parser.num_errors)
        )
        raise GraphRefusedError(
            f"{library.name} does not take the graph ({reasons[:600] or library.said()})",
            hint="build with another --head or --precision, or for another --target",
        )
    # A parser may read garbage as an empty graph, and 8.6 ignores the axes of a ReduceMax of opset 18.
    taken = [_tensor(network.get_input(index)) for index in range(network.num_inputs)]
    given = sorted(_tensor(network.get_output(index)) for index in range(network.num_outputs))
    if taken != ["images UINT8 of 4 axes"] or given != outputs:
        raise BackendError(
            f"{library.name} finds the inputs {', '.join(taken) or 'none'} and the outputs "
            f"{', '.join(given) or 'none'} in the graph, not images UINT8 of 4 axes and {', '.join(outputs)}",
            hint="export it again with 'edgead build'",
        )
    return network, parser


def _outputs(features: FeatureRecord | None) -> list[str]:
    """List the outputs that a graph must have, sorted by name, in the format of `_tensor`."""
    if features is None:
        return ["anomaly_map FLOAT of 4 axes", "anomaly_score FLOAT of 1 axes"]
    dtypes = {"float32": "FLOAT", "float16": "HALF"}
    return sorted(f"{spec.name} {dtypes[spec.dtype]} of {len(spec.shape)} axes" for spec in features.outputs)


def _tensor(tensor: Any) -> str:
    """Describe a tensor of the network: name, type and number of axes."""
    return f"{tensor.name} {tensor.dtype.name} of {len(tensor.shape)} axes"


def _parser_error(library: Library, error: Any) -> str:
    """Describe an error of the parser in one line, with its node as far as the version reports it."""
    where = f"node {error.node()}"
    if library.names_nodes:
        where = f"node {error.node_name() or error.node()} ({error.node_operator() or 'no operator'})"
    return (
        f"{where}: {' '.join(error.desc().split())}" if error.node() >= 0 else " ".join(error.desc().split())
    )
