"""A model small enough to check by hand, and a bundle of it: the map is the brightness, the score its maximum."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgead.bundle import Manifest, write_bundle
from edgead.bundle.golden import golden_bytes
from edgead.imaging.preprocess import ModelSize
from edgead.imaging.view import WHOLE, View
from edgead.scoring.threshold import Threshold
from tests.helpers.golden_answers import golden_of_model, verification_of


def brightness_model(
    height: int | str = 32, width: int | str = 64, dtype: int = TensorProto.UINT8, gain: float = 1.0
) -> onnx.ModelProto:
    """images (N, height, width, 3) -> anomaly_map = gain * mean channel / 255, anomaly_score = its maximum."""
    constants = {
        "channels": np.array([3], np.int64),
        "map_axis": np.array([1], np.int64),
        "image_axes": np.array([1, 2, 3], np.int64),
        "scale": np.array(gain / 255, np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "channels"], ["grey"], keepdims=0),
        helper.make_node("Unsqueeze", ["grey", "map_axis"], ["plane"]),
        helper.make_node("Mul", ["plane", "scale"], ["anomaly_map"]),
        helper.make_node("ReduceMax", ["anomaly_map", "image_axes"], ["anomaly_score"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info("images", dtype, ["N", height, width, 3])],
        [
            helper.make_tensor_value_info("anomaly_map", TensorProto.FLOAT, ["N", 1, height, width]),
            helper.make_tensor_value_info("anomaly_score", TensorProto.FLOAT, ["N"]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def write_brightness_bundle(
    path: Path,
    size: ModelSize,
    threshold: Threshold | dict[str, Threshold],
    gain: float = 1.0,
    held_out: dict[str, float] | None = None,
    ratio: float | None = None,
    record: Mapping[str, object] | None = None,
    view: View = WHOLE,
) -> Path:
    """Write the bundle of the model for images of `size`, and return its path; of washers, or of the parts given.

    `held_out` are the scores of the held-out images of every part, by the ID of the image. With a ratio they are
    cross-fitted. `record` is the record of a build for every part.
    """
    thresholds = threshold if isinstance(threshold, dict) else {"washer": threshold}
    verification = verification_of(*thresholds)
    if held_out is not None:
        for judged in verification["parts"].values():
            judged |= {"validation_images": list(held_out), "validation_scores": list(held_out.values())}
            judged |= {} if ratio is None else {"validation_ratios": [ratio] * len(held_out)}
    for judged in verification["parts"].values():
        judged |= record or {}
    manifest = Manifest(
        method="rd",
        teacher="none",
        backend="onnxruntime",
        target="cpu",
        precision="fp32",
        size=size,
        view=view,
        thresholds=thresholds,
        training={},
        verification=verification,
        verified=True,
        verified_on={},
    )
    model = brightness_model(size.height_px, size.width_px, gain=gain).SerializeToString()
    shape = (len(thresholds), size.height_px, size.width_px, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    golden = golden_bytes(golden_of_model(model, images, range(len(thresholds))))
    write_bundle(path, manifest, {"model.onnx": model, "golden.npz": golden})
    return path
