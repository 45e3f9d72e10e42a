"""Put the plugin into registries of TensorRT-RTX, one step after the other: STEP=LIBRARY...

A step is `process`, which opens the library as any program does, or the registry that TensorRT-RTX loads it
into: `global`, `builder`, `runtime`, `other` (another runtime). Prints for each step whether it was taken, which
registries have the plugin themselves, and what was complained of.
"""

import ctypes
import os
import sys

import tensorrt_rtx as trt


class Logger(trt.ILogger):
    """Keeps the errors."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.errors = []

    def log(self, severity, line) -> None:
        if severity == trt.ILogger.ERROR:
            self.errors.append(line)


logger = Logger()
builder, runtime, other = trt.Builder(logger), trt.Runtime(logger), trt.Runtime(logger)
registries = {
    "global": trt.get_plugin_registry(),
    "builder": builder.get_plugin_registry(),
    "runtime": runtime.get_plugin_registry(),
    "other": other.get_plugin_registry(),
}
for name in ("builder", "runtime", "other"):
    registries[name].parent_search_enabled = False
for step in sys.argv[1:]:
    name, library = step.split("=")
    logger.errors.clear()
    if name == "process":
        taken = ctypes.CDLL(library) is not None
    else:
        taken = registries[name].load_library(library) is not None
    complaints = " ".join(logger.errors)
    have = [
        name
        for name, registry in registries.items()
        if registry.get_creator("AnomalyMap", "1", "edgead") is not None
    ]
    print(name, "takes it:" if taken else "refuses it:", *have, complaints, flush=True)
# Without a GPU the end of its objects is a crash at times, and not what is looked at.
os._exit(0)
