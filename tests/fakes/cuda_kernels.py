"""The CUDA kernels on host memory: launches are planned as for a GPU and computed in float64."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence

import numpy as np

from edgead.imaging.anomaly_map import anomaly_map
from edgead.plugin.launches import Launch, Scale, launches
from tests.fakes.cuda_driver import StandInDriver


class StandInKernels:
    """A stand-in for `AnomalyMapKernels`; a stream of the stand-in driver runs or captures its work."""

    def __init__(self, driver: StandInDriver) -> None:
        self._driver = driver

    def plan(self, *arguments) -> tuple[Launch, Launch]:
        return launches(*arguments, 16)

    def enqueue(self, planned: Sequence[Launch], stream: int) -> None:
        first, _ = planned
        self._driver.journal.append(("kernels", stream))
        assert self._driver.queue(stream, lambda: run(first))


def run(launch: Launch) -> None:
    a = launch.arguments
    half = launch.kernel.endswith("half")
    scales = list(a.scale[: a.scales])
    teacher, student = (
        [feature(getattr(scale, side), scale, a.batch, half) for scale in scales]
        for side in ("teacher", "student")
    )
    # exponent is -1 / (2 sigma^2)
    sigma = math.sqrt(-0.5 / a.exponent) if a.radius else 0.0
    fusion = "multiply" if a.multiply else "add"
    weights = [scale.weight for scale in scales]
    maps, scores = anomaly_map(
        teacher, student, a.height, a.width, fusion, sigma, bool(a.align_corners), weights
    )
    floats(a.anomaly_map, maps.size)[:] = maps.ravel()
    floats(a.anomaly_score, a.batch)[:] = scores


def feature(address: int, scale: Scale, batch: int, half: bool) -> np.ndarray:
    shape = (batch, scale.channels, scale.height, scale.width)
    if not half:
        return floats(address, math.prod(shape)).reshape(shape)
    return (
        np.ctypeslib.as_array((ctypes.c_uint16 * math.prod(shape)).from_address(address))
        .view("f2")
        .reshape(shape)
    )


def floats(address: int, count: int) -> np.ndarray:
    return np.ctypeslib.as_array((ctypes.c_float * count).from_address(address))
