"""`linear` beside `rd`: time of an image on ONNX Runtime, and size and layers of their engines.

    OMP_NUM_THREADS=1 python benchmarks/linear.py

Both graphs have the default teacher at 256 pixels and random students, which are as fast and as large as trained ones.
The two models take turns, and the CPU time of one thread counts, so that other work on the machine changes little.
TensorRT for RTX builds the engines for SM86, SM89 and SM120 without a GPU, so their times are not measured here; the
memory traffic is the sum of the inputs, constants and outputs of all layers, as in engine_sizes.py. The result is
linear.json in benchmarks/results/.
"""

from __future__ import annotations

import json
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from engine_sizes import GPUS, figures
from onnx import ModelProto

from edgead.engine.request import EngineRequest
from edgead.engine.settings import BatchProfile, TensorRTSettings
from edgead.engine.tensorrt_build import build_engine
from edgead.export.from_torch import onnx_from_method
from edgead.export.precision.float16 import float16_from_float32
from edgead.files.parsing import write_json
from edgead.imaging.preprocess import ModelSize
from edgead.models import METHODS, create_method
from edgead.models.components.teacher import DEFAULT_TEACHER
from edgead.models.linear import LinearReconstruction

RESULTS = Path(__file__).parent / "results"
SIZE = ModelSize(256, 256)
IMAGES, WARM_UP = 100, 20


def graph_of(name: str) -> ModelProto:
    """Export a method with the default teacher and an untrained student."""
    teacher = METHODS[name].create_teacher(DEFAULT_TEACHER, "random")
    method = create_method(name, teacher, SIZE, METHODS[name].losses[0]).eval()
    if isinstance(method, LinearReconstruction):
        # The means of an untrained student are zeros, which would be folded away.
        method.kept[:, ::2] = 1.0
        method.means[:, 1::2] = torch.randn_like(method.means[:, 1::2])
    return onnx_from_method(method, SIZE)


def latencies(graphs: dict[str, ModelProto]) -> dict[str, float]:
    """Measure the median CPU time of an image on one thread, in ms, of several graphs in turns."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    sessions = {
        name: onnxruntime.InferenceSession(
            graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        for name, graph in graphs.items()
    }
    image = np.random.default_rng(0).integers(0, 256, (1, SIZE.height_px, SIZE.width_px, 3), np.uint8)
    times: dict[str, list[float]] = {name: [] for name in graphs}
    for _ in range(WARM_UP + IMAGES):
        for name, session in sessions.items():
            started_at = time.process_time()
            session.run(None, {"images": image})
            times[name].append(1e3 * (time.process_time() - started_at))
    return {name: float(np.median(found[WARM_UP:])) for name, found in times.items()}


def engine_of(graph: ModelProto, precision: str) -> dict[str, float]:
    """Build an engine for one image, and count its bytes, layers and traffic."""
    with tempfile.TemporaryDirectory() as directory:
        model = Path(directory) / "model.onnx"
        model.write_bytes(graph.SerializeToString())
        request = EngineRequest(
            backend="tensorrt-rtx",
            precision=precision,
            target="linear",
            batch=BatchProfile(1, 1, 1),
            settings=TensorRTSettings(compute_capabilities=GPUS),
            gpu=None,
        )
        built = build_engine(model, request, directory=Path(directory), timing_caches=Path(directory))
        layers, _, _, traffic = figures(json.loads(built.layers or '{"Layers": []}')["Layers"])
        return {
            "onnx_bytes": model.stat().st_size,
            "engine_bytes": built.path.stat().st_size,
            "layers": layers,
            "traffic_bytes": traffic,
        }


def main() -> None:
    """Measure both methods and write the results."""
    graphs = {name: graph_of(name) for name in ("rd", "linear")}
    found = {
        "versions": {name: version(name) for name in ("torch", "onnxruntime", "tensorrt-rtx")},
        "cpu_ms": latencies(graphs),
        "engines": {
            name: {
                "fp32": engine_of(graph, "fp32"),
                "fp16": engine_of(float16_from_float32(graph), "fp16"),
            }
            for name, graph in graphs.items()
        },
    }
    write_json(RESULTS / "linear.json", found)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
