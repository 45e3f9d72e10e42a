"""A bundle of RD with random weights, which change neither the time nor the memory of an inference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from edgead.bundle import Bundle, Manifest, write_bundle
from edgead.bundle.golden import golden_bytes
from edgead.export.from_torch import onnx_from_method
from edgead.export.head.model_file import file_from_graph
from edgead.imaging.preprocess import ModelSize
from edgead.models import create_method
from edgead.models.components.teacher import create_teacher
from edgead.scoring.threshold import Threshold
from tests.helpers.golden_answers import golden_of_model, verification_of


def write_random_bundle(path: Path, teacher: str, size: ModelSize) -> Bundle:
    """Write a float32 bundle for ONNX Runtime, with 8 golden images of noise and the chart, and open it."""
    torch.manual_seed(0)
    method = create_method("rd", create_teacher(teacher, "random"), size, "per-position")
    model = file_from_graph(onnx_from_method(method.eval(), size))
    images = np.random.default_rng(0).integers(0, 256, (8, size.height_px, size.width_px, 3), np.uint8)
    manifest = Manifest(
        method="rd",
        teacher=teacher,
        backend="onnxruntime",
        target="cpu",
        precision="fp32",
        size=size,
        thresholds={"part": Threshold(1e3, 0.01, 0.95, 0.96, 320, 299)},
        training={},
        verification=verification_of("part"),
        verified=True,
        verified_on={},
    )
    files = {"model.onnx": model, "golden.npz": golden_bytes(golden_of_model(model, images))}
    return write_bundle(path, manifest, files)
