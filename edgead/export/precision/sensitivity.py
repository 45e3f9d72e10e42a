"""Which layers INT8 harms most: each is quantised alone, and the anomaly maps are compared with the float32 ones.

A measurement and not a rule of thumb, because it differs from network to network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from onnx import ModelProto

from edgead.export.precision.quantize import int8_from_float, layers_to_quantise
from edgead.runtime.onnxruntime import OnnxRuntimeSession
from edgead.types import Float32Array, UInt8Array

SHARE = 0.9
"""Of the harm, that the layers called sensitive do together."""


def sensitive_layers(
    model: ModelProto,
    ranges: Mapping[str, float],
    shifts: Mapping[str, Float32Array],
    images: UInt8Array,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[str, ...]:
    """The fewest layers that make up `SHARE` of the harm, the most harmful first, each by the tensor that it gives.

    The harm of a layer is the mean squared error of the anomaly maps where it alone is quantised. model: the float32
    graph. ranges, shifts: of its calibration. images: (N, H, W, 3) uint8 RGB, N >= 1; not the judges. progress: called
    with a line now and then. Raises what `int8_from_float` and the session raise.
    """
    layers = layers_to_quantise(model)
    with OnnxRuntimeSession(model.SerializeToString()) as session:
        exact = session.infer(images).anomaly_map
    harm = {}
    for done, layer in enumerate(layers):
        if done % 20 == 0:
            progress(f"measuring how sensitive each layer is: {done} of {len(layers)}")
        alone = int8_from_float(model, ranges, shifts=shifts, spared=set(layers) - {layer})
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
