"""The INT8 graph of a float32 graph, as a build makes it: calibrated, equalised, with corrected biases."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto

from edgead.export.precision.calibration import calibrate
from edgead.export.precision.clipping import Algorithm
from edgead.export.precision.equalize import equalised
from edgead.export.precision.quantize import int8_from_float32


def int8_graph(model: ModelProto, images: np.ndarray, algorithm: Algorithm = "minmax") -> ModelProto:
    """images: Calibration images, (N, H, W, 3) uint8 RGB."""
    calibration = calibrate(model, images, algorithm)
    return int8_from_float32(
        equalised(model, calibration.channel_maxima),
        calibration.clipping_limits,
        bias_corrections=calibration.bias_corrections,
    )
