"""Latency of the bundles of a comparison, measured once for each model and machine."""

from __future__ import annotations

import logging
import os
import platform
from pathlib import Path
from statistics import median, quantiles

import numpy as np

from edgead.bundle import Bundle
from edgead.comparison.grid import Cell, read_json
from edgead.files.parsing import write_json
from edgead.runtime import open_session
from edgead.runtime.timing import inference_times_ms

_log = logging.getLogger(__name__)

WARM_UP = 5
LATENCY_RUNS = 30


def latency_ms(cell: Cell, bundle: Bundle, machine: str) -> float:
    """Return the median latency of a cell's bundle.

    The figures are kept in the file latency.json of the cell, so they are measured once for each model and machine.

    Args:
        cell: The cell.
        bundle: Bundle of the cell.
        machine: Description of this machine.

    Returns:
        Median wall time of one image in milliseconds.

    Raises:
        RunError: If latency.json is broken.
        EdgeadError: If the bundle cannot be opened, or latency.json cannot be written.
    """
    file = cell.folder / "latency.json"
    asked = {"machine": machine, "model_sha256": bundle.manifest.files["model.onnx"].sha256}
    known = read_json(file, dict)
    if known is None or asked.items() - known.items():
        _log.info("%s: latency of one image", cell)
        known = {**asked, **latency_of(bundle)}
        write_json(file, known)
    return float(known["median_ms"])


def latency_of(bundle: Bundle) -> dict[str, float]:
    """Measure the wall time of one image in the session of a bundle, over 30 runs.

    The time starts with a uint8 RGB image at the model's size and ends with map and score. It does not include reading
    and resizing the image.

    Args:
        bundle: Opened bundle.

    Returns:
        Median, 10th and 90th percentile in milliseconds: `median_ms`, `p10_ms` and `p90_ms`.

    Raises:
        BackendError: If the session cannot be opened, or cannot score the image.
        BundleError: If a file of the bundle has changed.
    """
    size = bundle.manifest.size
    # The values of the pixels do not change the latency.
    image = np.random.default_rng(0).integers(0, 256, (1, size.height_px, size.width_px, 3), np.uint8)
    with open_session(bundle) as session:
        taken_ms = inference_times_ms(session, image, warm_up=WARM_UP, runs=LATENCY_RUNS)
    tenths = quantiles(taken_ms, n=10)
    return {"median_ms": median(taken_ms), "p10_ms": tenths[0], "p90_ms": tenths[-1]}


def machine_text() -> str:
    """Return the processor of this machine and the number of cores that this process may use."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.machine()}, {len(os.sched_getaffinity(0))} cores"
