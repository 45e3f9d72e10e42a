"""Parse a graph with TensorRT-RTX's ONNX parser: LIBRARY GRAPH [builder].

The plugin is in the registry of the process, or with the last word in the builder's own alone.
TensorRT-RTX looks plugins up and creates them as TensorRT does, then ends the process, since its networks take none.
"""

import ctypes
import sys

import tensorrt_rtx


class Logger(tensorrt_rtx.ILogger):
    """Every line to standard output at once: the process may end at any moment."""

    def __init__(self) -> None:
        tensorrt_rtx.ILogger.__init__(self)

    def log(self, severity, line) -> None:
        print(severity.name, line, flush=True)


logger = Logger()
builder = tensorrt_rtx.Builder(logger)
network = builder.create_network(0)
if sys.argv[3:] == ["builder"]:
    builder.get_plugin_registry().load_library(sys.argv[1])
else:
    ctypes.CDLL(sys.argv[1])
print("parsed", tensorrt_rtx.OnnxParser(network, logger).parse_from_file(sys.argv[2]))
