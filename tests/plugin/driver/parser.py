"""Parse a graph with TensorRT-RTX's ONNX parser, whose registry has the plugin: LIBRARY GRAPH.

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
ctypes.CDLL(sys.argv[1])
print("parsed", tensorrt_rtx.OnnxParser(network, logger).parse_from_file(sys.argv[2]))
