"""Size and layers of an engine in each precision, for three GPUs at once: ``python benchmarks/engine_sizes.py``.

INT8 stands beside float32, beside float16 as for TensorRT 10, and beside float16 with the depthwise convolutions in
INT8 too, which edgead leaves in float. The memory traffic is the sum of the inputs, constants and outputs of all layers
for one image, as the builder lists them.

TensorRT for RTX builds the engines; it needs no GPU. Weights are random and INT8 is calibrated on two images of noise,
which does not change the sizes. An engine holds the weights and the compiled plan for all three GPUs. The result is
benchmarks/results/engine_sizes.md. The script fails if a lower precision saves too little, because then the engine has
kept 32-bit weights, although its graph has a lower precision. Each engine is built for one image and for up to four
images at a time, because a compiler that knows the number of images folds constants of the size of the activations.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import ModelProto

from edgead.engine.request import EngineRequest
from edgead.engine.settings import BatchProfile, TensorRTSettings
from edgead.engine.tensorrt_build import build_engine
from edgead.export.from_torch import onnx_from_method
from edgead.export.precision import quantize
from edgead.export.precision.calibration import calibrate
from edgead.export.precision.equalize import equalised
from edgead.export.precision.float16 import float16_from_float32
from edgead.export.precision.quantize import int8_from_float32
from edgead.imaging.preprocess import ModelSize
from edgead.models import create_method
from edgead.models.components.teacher import create_teacher
from edgead.types import UInt8Array

RESULTS = Path(__file__).parent / "results"
NOTE = """\
TensorRT for RTX supports INT8 for weights only. It fuses no Q/DQ pair into a convolution: each input of an INT8
convolution is rounded by a kernel of its own, and the output of each INT8 convolution is float32. So an INT8 engine
moves more memory than a float16 engine, and edgead builds none for it. INT8 stays for TensorRT, which fuses the pairs
and was not measured. Beside float16 no convolution is float32. Depthwise convolutions in INT8 move more memory than in
float16. Transposed convolutions stay in float in every row.

An engine also holds the source of its kernels, one text for each. How fast these engines are was not measured.
"""
TEACHERS = ("tf_efficientnet_lite0", "wide_resnet50_2")
GPUS = ("8.6", "8.9", "12.0")
SIZE = ModelSize(256, 256)
ITEM_BYTES = {"Float": 4, "Half": 2, "Int8": 1, "UInt8": 1, "Int32": 4, "Int64": 8, "Bool": 1}
BATCHES = (BatchProfile(1, 1, 1), BatchProfile(1, 1, 4))

LARGEST_RATIO = {("wide_resnet50_2", "fp16"): 0.52, ("wide_resnet50_2", "int8 beside fp16"): 0.31}
"""Largest accepted ratio to the engine in float32. The weights alone would give 0.5, and 0.25 if all were INT8.

Lite0 has no limit, because its kernels are larger than its weights.
"""


@dataclass(frozen=True, slots=True)
class Row:
    """Size of one engine.

    Attributes:
        teacher: Name of the teacher in timm.
        precision: Precision of the graph.
        max_batch: Largest number of images at a time.
        graph_bytes: Size of the ONNX file.
        engine_bytes: Size of the engine.
        layers: Number of layers of the engine.
        convolutions: Number of convolutions with float32, float16 and INT8 inputs.
        rounding: Number of kernels that round a tensor to INT8.
        traffic_bytes: Inputs, constants and outputs of all layers for one image.
        ratio: Size of the engine divided by the size of the float32 engine with the same batch.
        seconds: Time to compile the engine.
    """

    teacher: str
    precision: str
    max_batch: int
    graph_bytes: int
    engine_bytes: int
    layers: int
    convolutions: tuple[int, int, int]
    rounding: int
    traffic_bytes: int
    ratio: float
    seconds: float


def graphs(teacher: str) -> Iterator[tuple[str, ModelProto]]:
    """Export RD with random weights in each precision.

    Args:
        teacher: Name of the teacher in timm.

    Yields:
        Precision and graph.
    """
    torch.manual_seed(0)
    method = create_method("rd", create_teacher(teacher, "random"), SIZE, "per-position", "unaligned").eval()
    exact = onnx_from_method(method, SIZE)
    del method
    yield "fp32", exact
    yield "fp16", float16_from_float32(exact)
    noise = np.random.default_rng(0).integers(0, 256, (2, SIZE.height_px, SIZE.width_px, 3), np.uint8)
    yield "int8 beside fp32", _int8(exact, noise)
    yield "int8 beside fp16", float16_from_float32(_int8(exact, noise))
    weights = {weight.name: weight for weight in exact.graph.initializer}
    depthwise = quantize._is_depthwise
    if not any(node.op_type == "Conv" and depthwise(node, weights) for node in exact.graph.node):
        return
    quantize._is_depthwise = lambda node, weights: False
    try:
        everything = _int8(exact, noise)
    finally:
        quantize._is_depthwise = depthwise
    yield "int8 beside fp16, also depthwise", float16_from_float32(everything)


def _int8(exact: ModelProto, images: UInt8Array) -> ModelProto:
    """Calibrate a graph on some images and convert it to INT8."""
    calibration = calibrate(exact, images, "minmax")
    equal = equalised(exact, calibration.channel_maxima)
    return int8_from_float32(equal, calibration.clipping_limits)


def measure(teacher: str) -> list[Row]:
    """Build the engines of a teacher one after the other.

    Args:
        teacher: Name of the teacher in timm.

    Returns:
        Sizes of the engines.
    """
    rows: list[Row] = []
    exact: dict[int, int] = {}
    for precision, graph in graphs(teacher):
        with tempfile.TemporaryDirectory() as directory:
            model = Path(directory) / "model.onnx"
            model.write_bytes(graph.SerializeToString())
            for batch in BATCHES:
                built = build_engine(
                    model,
                    EngineRequest(
                        backend="tensorrt-rtx",
                        precision=precision,
                        target="engine-sizes",
                        batch=batch,
                        settings=TensorRTSettings(compute_capabilities=GPUS),
                        gpu=None,
                    ),
                    directory=Path(directory),
                    timing_caches=Path(directory),
                )
                size = built.path.stat().st_size
                ratio = size / exact.setdefault(batch.max, size)
                rows.append(
                    Row(
                        teacher,
                        precision,
                        batch.max,
                        model.stat().st_size,
                        size,
                        *figures(json.loads(built.layers or '{"Layers": []}')["Layers"]),
                        ratio,
                        built.seconds,
                    )
                )
                print(rows[-1], flush=True)
    return rows


def figures(layers: list[dict[str, Any]]) -> tuple[int, tuple[int, int, int], int, int]:
    """Count the layers of an engine.

    Args:
        layers: Layers as the builder lists them, see `edgead.engine.engine_layers`.

    Returns:
        The fields `layers`, `convolutions`, `rounding` and `traffic_bytes` of a row.
    """
    types = [
        layer["Inputs"][0]["Datatype"] for layer in layers if layer["LayerType"] in ("correlation", "deconv")
    ]
    traffic = sum(
        ITEM_BYTES[tensor["Datatype"]] * abs(math.prod(tensor["Dimensions"]))
        for layer in layers
        for key in ("Inputs", "Constants", "Outputs")
        for tensor in layer[key]
    )
    convolutions = (types.count("Float"), types.count("Half"), types.count("Int8"))
    return len(layers), convolutions, sum("Roun" in layer["Name"] for layer in layers), traffic


def table(rows: list[Row]) -> str:
    """Return a Markdown table.

    Args:
        rows: Sizes of the engines.

    Returns:
        Text of several lines.
    """
    lines = [
        "| RD with | precision | images at once | ONNX, bytes | engine, bytes | of fp32 | layers "
        "| convolutions in fp32, fp16, int8 | kernels that round | traffic of an image, MB | built in |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.teacher} | {row.precision} | {'1' if row.max_batch == 1 else f'1 to {row.max_batch}'} "
        f"| {row.graph_bytes:,} | {row.engine_bytes:,} | {row.ratio:.3f} | {row.layers} "
        f"| {', '.join(map(str, row.convolutions))} | {row.rounding} | {row.traffic_bytes / 1e6:.1f} "
        f"| {row.seconds:.1f} s |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    """Build the engines, write the table, and check the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--teachers", nargs="+", default=list(TEACHERS), choices=TEACHERS)
    arguments = parser.parse_args()
    rows = [row for teacher in arguments.teachers for row in measure(teacher)]
    versions = ", ".join(f"{name} {version(name)}" for name in ("edgead", "tensorrt-rtx", "torch", "onnx"))
    gpus = ", ".join(f"SM{gpu.replace('.', '')}" for gpu in GPUS)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "engine_sizes.md").write_text(
        "# Size and layers of engines by precision\n\n"
        f"`{' '.join(['python', *sys.argv])}` on {len(os.sched_getaffinity(0))} shared CPU cores, without a GPU; "
        f"{versions}. One engine each for {gpus}, images of {SIZE.height_px}x{SIZE.width_px}, "
        f"random weights.\n\n{table(rows)}\n\n{NOTE}"
    )
    print(table(rows))
    for row in rows:
        limit = LARGEST_RATIO.get((row.teacher, row.precision))
        if limit and row.ratio > limit:
            sys.exit(f"{row.teacher} in {row.precision} is {row.ratio:.3f} of fp32, over {limit}")


if __name__ == "__main__":
    main()
