"""Which layers INT8 harms most: each is quantised alone, and the anomaly maps are compared with the float32 ones.

A measurement and not a rule of thumb, because it differs from network to network.
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
"""Of the harm, that the layers called sensitive do together."""


def sensitive_layers(
    model: ModelProto,
    clipping_limits: Mapping[str, float],
    bias_corrections: Mapping[str, Float32Array],
    images: UInt8Array,
) -> tuple[str, ...]:
    """Find the fewest layers that make up `SHARE` of the harm of INT8. The steps are logged.

    The harm of a layer is the mean squared error of the anomaly maps if only this layer is quantised.

    Args:
        model: The float32 graph.
        clipping_limits: Clipping limits of its calibration, by tensor.
        bias_corrections: Bias corrections of its calibration, by layer.
        images: Calibration images, (N, H, W, 3) uint8 RGB, N >= 1; none of the validation images.

    Returns:
        The layers, the most harmful first; each is named by its output tensor.

    Raises:
        PrecisionError: If the graph cannot be quantised, see `int8_from_float32`.
        BackendError: If ONNX Runtime cannot run the graph.
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
    """The fewest names whose harm is this share of the sum, the most harmful first; none where there is no harm."""
    chosen: list[str] = []
    left = share * sum(harm.values())
    for name in sorted(harm, key=lambda name: -harm[name]):
        if left <= 0.0:
            break
        chosen.append(name)
        left -= harm[name]
    return tuple(chosen)
