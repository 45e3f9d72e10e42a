"""Sensitivity of layers to INT8: each layer is quantised alone, and its anomaly maps are compared with float32.

The sensitive layers differ between networks, so they are measured instead of chosen by a rule.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
from onnx import ModelProto

from edgead.export.precision.quantize import int8_from_float32, layers_to_quantise
from edgead.runtime.onnxruntime import OnnxRuntimeSession
from edgead.types import Float32Array, UInt8Array

_log = logging.getLogger(__name__)

SHARE = 0.9
"""Share of the total harm that the sensitive layers cause together."""


def sensitive_layers(
    model: ModelProto,
    clipping_limits: Mapping[str, float],
    bias_corrections: Mapping[str, Float32Array],
    images: UInt8Array,
) -> tuple[str, ...]:
    """Find the fewest layers that cause `SHARE` of the harm of INT8, and log the progress.

    The harm of a layer is the mean squared error of the anomaly maps if only this layer is quantised.

    Args:
        model: The float32 graph.
        clipping_limits: Clipping limits of its calibration, by tensor.
        bias_corrections: Bias corrections of its calibration, by layer.
        images: Calibration images, (N, H, W, 3) uint8 RGB, N >= 1, without validation images.

    Returns:
        The layers, the most harmful first; each is named by its output tensor.

    Raises:
        PrecisionError: The graph cannot be quantised, see `int8_from_float32`.
        BackendError: ONNX Runtime cannot run the graph.
    """
    layers = layers_to_quantise(model)
    with OnnxRuntimeSession(model.SerializeToString()) as session:
        exact = session.infer(images).anomaly_map
    harm = {}
    for done, layer in enumerate(layers):
        if done % 20 == 0:
            _log.info("measuring how sensitive each layer is: %d of %d", done, len(layers))
        alone = int8_from_float32(
            model, clipping_limits, bias_corrections=bias_corrections, excluded=set(layers) - {layer}
        )
        with OnnxRuntimeSession(alone.SerializeToString()) as session:
            error = session.infer(images).anomaly_map.astype(np.float64) - exact
        harm[layer] = float((error**2).mean())
    return fewest(harm, SHARE)


def fewest(harm: Mapping[str, float], share: float) -> tuple[str, ...]:
    """Find the fewest names that cause a share of the total harm.

    Args:
        harm: Harm of each name, at least 0.
        share: Share of the sum of all harm, 0 to 1.

    Returns:
        The names, the most harmful first; none if the sum is 0.
    """
    chosen: list[str] = []
    left = share * sum(harm.values())
    for name in sorted(harm, key=lambda name: -harm[name]):
        if left <= 0.0:
            break
        chosen.append(name)
        left -= harm[name]
    return tuple(chosen)
