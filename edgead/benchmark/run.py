"""One benchmark: it opens the model, measures it, and makes the report."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from edgead.benchmark.clocks import camera_images, measure
from edgead.benchmark.comparison import check_comparable
from edgead.benchmark.machine import PowerMeter, clock_mhz
from edgead.benchmark.report import Conditions, Report
from edgead.errors import InputError
from edgead.files.records import utc_now
from edgead.imaging.view import WHOLE
from edgead.runtime.environment import this_environment

if TYPE_CHECKING:
    from edgead.runtime.model import Model


def run_benchmark(
    load: Callable[[], Model],
    conditions: Conditions,
    part: str | None = None,
    older: Report | None = None,
    on_round: Callable[[int], None] = lambda _: None,
) -> Report:
    """Measure a model.

    Args:
        load: Function that opens the model.
        conditions: What to measure.
        part: Name of the part whose golden images are scored; None for the only one.
        older: Report that the new one will be compared with, to refuse other conditions before the measurement.
        on_round: Function that is called with the number of each round when it begins.

    Returns:
        The report.

    Raises:
        EdgeadError: The model cannot be opened or fails, or `older` has other conditions.
    """
    start_s = time.perf_counter()
    with load() as model:
        opened_ms = 1e3 * (time.perf_counter() - start_s)
        used = model.used_threshold(part)
        if model.view != WHOLE and conditions.width_px is None:
            raise InputError(
                f"{model.description} has a view ({model.view})",
                hint="give the size of the camera's images with --image",
            )
        width_px, height_px = (
            conditions.width_px or model.size.width_px,
            conditions.height_px or model.size.height_px,
        )
        conditions = replace(conditions, width_px=width_px, height_px=height_px)
        backend = "onnxruntime" if model.bundle is None else model.bundle.manifest.backend
        environment = this_environment(conditions.threads, backend).to_json()
        if older is not None:
            check_comparable(older, conditions, environment)
        images = camera_images(model.golden_images(used.part), width_px, height_px)
        meter = PowerMeter()
        clocks, yardstick_ms = measure(
            model.session, model.size, used.value, model.view, images, conditions, on_round
        )
        return Report(
            model=model.description,
            size=f"{model.size.width_px}x{model.size.height_px}",
            conditions=conditions,
            clocks=clocks,
            yardstick_ms=tuple(round(value, 4) for value in yardstick_ms),
            opened_ms=round(opened_ms, 1),
            environment=environment,
            clock_mhz=clock_mhz(),
            power_w=meter.power_w(),
            measured_at=utc_now(),
        )
