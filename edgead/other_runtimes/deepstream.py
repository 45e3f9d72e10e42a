"""A bundle as the files of DeepStream's element `nvinfer`, which compiles the graph on its device.

    DIRECTORY/
      nvinfer.txt     configuration of the element
      model.onnx      the graph, with the input that the element gives: float32 planes
      README.md       what the application does: scores and thresholds

The element scales a frame with the GPU and gives float32 planes (N, 3, H, W), whatever the network takes. So the graph
gets such an input: a transposition is put before the cast that each graph begins with. Values stay 0 to 255, and the
normalisation stays inside the graph.

Source of the keys: NVIDIA, `gstnvinfer_property_parser.h` of DeepStream 6 to 9, and "Gst-nvinfer" of its documentation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgead.bundle import Bundle, Manifest
from edgead.errors import BundleError, InputError, vendor_errors
from edgead.files.atomic import check_directory, check_empty, replace_directory, write_errors
from edgead.files.packages import require_packages
from edgead.imaging.view import WHOLE
from edgead.other_runtimes.client_notes import decision_notes

CONFIG = "nvinfer.txt"
_MARK = "# Written by edgead export-deepstream."
_MODES = {"fp32": 0, "fp16": 2}


def export_deepstream(bundle: Bundle, out: Path) -> None:
    """Write a bundle for DeepStream, or replace an earlier export.

    Args:
        bundle: Opened bundle.
        out: Directory to write: missing, empty, or an earlier export.

    Raises:
        InputError: `nvinfer` cannot run the bundle, or `out` holds something else.
        MissingExtraError: The package onnx is missing.
        BundleError: The bundle is damaged.
        EdgeadError: A file cannot be written.
    """
    manifest = bundle.manifest
    if manifest.precision not in _MODES:
        raise InputError(
            f"{bundle.path} is {manifest.precision}, and nvinfer takes INT8 only with a calibration table of TensorRT",
            hint=f"build a bundle with --precision fp16 and export it, or run {bundle.path} with edgead stream",
        )
    if manifest.view != WHOLE:
        raise InputError(
            f"{bundle.path} has a view ({manifest.view}), and nvinfer sees the whole frame, stretched",
            hint="train without a view and crop the frames before nvinfer, or run the bundle with edgead stream",
        )
    _check_out(out)
    require_packages("build", "edgead export-deepstream", "onnx")
    graph = _with_planes(bundle.graph(), str(bundle.path / "model.onnx"))
    with replace_directory(out) as partial, write_errors(out):
        (partial / "model.onnx").write_bytes(graph)
        (partial / CONFIG).write_text(_config(manifest), encoding="utf-8")
        (partial / "README.md").write_text(_readme(manifest), encoding="utf-8")


def _check_out(out: Path) -> None:
    """Refuse a directory with other files."""
    check_directory(out)
    config = out / CONFIG
    if not (config.is_file() and config.read_bytes().startswith(_MARK.encode())):
        check_empty(out, "export for DeepStream", hidden_too=True)


def _with_planes(content: bytes, name: str) -> bytes:
    """Return the graph with float32 planes as input, and a score of one dimension for each image."""
    import onnx
    from onnx import TensorProto, helper

    hint = "rebuild the bundle with 'edgead build'"
    with vendor_errors(f"onnx cannot read {name}", hint):
        model = onnx.load_from_string(content)
    graph = model.graph
    (images,) = graph.input
    batch, height, width, channels = images.type.tensor_type.shape.dim
    readers = [node for node in graph.node if images.name in node.input]
    if any(node.op_type != "Cast" for node in readers):
        raise BundleError(f"{name} does not begin with a cast of its images", hint=hint)
    for node in readers:
        node.input[0] = "deepstream_images"
    planes = [batch.dim_param, channels.dim_value, height.dim_value, width.dim_value]
    images.CopyFrom(helper.make_tensor_value_info(images.name, TensorProto.FLOAT, planes))
    graph.node.insert(
        0, helper.make_node("Transpose", [images.name], ["deepstream_images"], perm=[0, 2, 3, 1])
    )
    _add_dimension(graph, batch.dim_param)
    with vendor_errors(f"onnx refuses the changed graph of {name}", hint):
        onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def _add_dimension(graph: Any, batch: str) -> None:
    """Give the score a dimension beside the batch: an application describes tensors without the batch."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    score = next(output for output in graph.output if output.name == "anomaly_score")
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == score.name:
                    names[index] = "deepstream_score"
    graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "deepstream_axis"))
    graph.node.append(helper.make_node("Unsqueeze", ["deepstream_score", "deepstream_axis"], [score.name]))
    score.CopyFrom(helper.make_tensor_value_info(score.name, TensorProto.FLOAT, [batch, 1]))


def _config(manifest: Manifest) -> str:
    """Return the text of the configuration."""
    size, precision = manifest.size, manifest.precision
    properties = {
        "gpu-id": 0,
        "gie-unique-id": 1,
        "process-mode": 1,
        "onnx-file": "model.onnx",
        # The name that nvinfer itself gives the engine that it compiles if there is none.
        "model-engine-file": f"model.onnx_b1_gpu0_{precision}.engine",
        "batch-size": 1,
        "network-mode": _MODES[precision],
        "network-type": 100,
        "infer-dims": f"3;{size.height_px};{size.width_px}",
        "model-color-format": 0,
        "net-scale-factor": 1,
        "maintain-aspect-ratio": 0,
        "output-blob-names": "anomaly_map;anomaly_score",
        "output-tensor-meta": 1,
    }
    lines = [_MARK, "", "[property]", *(f"{key}={value}" for key, value in properties.items())]
    return "\n".join([*lines, ""])


def _readme(manifest: Manifest) -> str:
    """Return the text of ``README.md``."""
    size = manifest.size
    return f"""# nvinfer

{manifest.method}, {manifest.precision}, built by edgead {manifest.edgead_version}. Start the element with this file:

    nvinfer config-file-path={CONFIG}

`nvinfer` scales each frame to {size.width_px} x {size.height_px} and gives RGB from 0 to 255. The graph normalises. The
element compiles `model.onnx` if there is no engine beside it, which takes minutes, and writes the engine there.

For several cameras set `batch-size` to their number, here and at `nvstreammux`, and change the number after `_b` in
`model-engine-file`.

## Result

The network type is 100, so the element attaches no objects. A probe on its source pad finds an `NvDsInferTensorMeta`
at each frame, with the float32 layers `anomaly_map` (1 x {size.height_px} x {size.width_px}) and `anomaly_score` (1).

## Decision

{decision_notes(manifest)}

**Set the threshold anew in this pipeline.** The element scales frames with a filter of the GPU, and TensorRT computes
otherwise than the runtime that the bundle was verified with. The thresholds above are a start: take the scores of good
parts in the pipeline.
"""
