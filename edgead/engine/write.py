"""Last step of every build: makes the golden answers and the manifest, and writes the bundle."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgead.bundle import Bundle, Manifest, write_bundle
from edgead.bundle.golden import GOLDEN_PAIRS, Golden, chart_from_image, golden_bytes, pixels_from_chart
from edgead.bundle.threshold_changes import ThresholdChange
from edgead.engine.fidelity import Precision
from edgead.engine.validation_images import ValidationImages
from edgead.imaging.preprocess import ModelSize
from edgead.imaging.view import WHOLE, View
from edgead.runtime.agreement import BATCH
from edgead.runtime.base import Session
from edgead.runtime.environment import this_environment
from edgead.scoring.threshold import Threshold
from edgead.types import Backend, UInt8Array

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Built:
    """Result of a build.

    Attributes:
        model: Content of the ONNX file.
        precision: Precision of the graph.
        thresholds: Thresholds by part.
        verification: Measures of the verification and their limits, JSON values.
        golden: Golden images and answers.
        files: Other files of the bundle, by name.
        verified: True if the file that runs on the target was verified; False if its graph was verified instead.
        changes: Changes of the thresholds since an earlier build that set them.
    """

    model: bytes
    precision: Precision
    thresholds: Mapping[str, Threshold]
    verification: Mapping[str, Any]
    golden: Golden
    files: Mapping[str, Path | bytes]
    verified: bool
    changes: Mapping[str, tuple[ThresholdChange, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelDetails:
    """Description of the trained model for the manifest.

    Attributes:
        size: Size of the images that the model takes, in pixels.
        method: Name of the method.
        teacher: Name of the teacher.
        training: Figures of the training, JSON values.
        bit_depth: Depth of the values of image files with samples of 16 bits; None for the depth of the files.
        view: Part of an image that the model inspects, and the way to its size.
    """

    size: ModelSize
    method: str
    teacher: str
    training: Mapping[str, Any]
    bit_depth: int | None = None
    view: View = WHOLE


def answers(session: Session, validation_images: Mapping[str, ValidationImages]) -> Golden:
    """Score the golden images: good images of each part, their synthetic defects, and the chart.

    Each part gives other ones of its first four validation images, because their defects are of four kinds.

    Args:
        session: Session that gives the answers.
        validation_images: Validation images by part.

    Returns:
        The golden images and answers.
    """
    pairs = max(1, GOLDEN_PAIRS // len(validation_images))
    images: list[UInt8Array] = []
    parts: list[int] = []
    for number, of_part in enumerate(validation_images.values()):
        first = number * pairs % max(1, min(GOLDEN_PAIRS, len(of_part.good)) - pairs + 1)
        chosen = slice(first, first + pairs)
        images += [*of_part.good[chosen], *of_part.defects[chosen]]
        parts += [number] * (len(images) - len(parts))
    chart = chart_from_image(images[0])
    batch = np.stack([*images, pixels_from_chart(chart, ModelSize(*images[0].shape[:2]))])
    found = [session.infer(batch[start : start + BATCH]) for start in range(0, len(batch), BATCH)]
    return Golden(
        images=batch,
        anomaly_map=np.concatenate([prediction.anomaly_map for prediction in found]),
        anomaly_score=np.concatenate([prediction.anomaly_score for prediction in found]),
        # The chart is made from an image of the first part, so it is compared with the threshold of this part.
        part=np.array([*parts, 0], np.uint8),
        chart=chart,
    )


def install(out: Path, built: Built, model: ModelDetails, backend: Backend, target_name: str) -> Bundle:
    """Write a bundle, whole or not at all.

    Args:
        out: Directory to write. An existing bundle there is replaced.
        built: Result of the build.
        model: Description of the trained model.
        backend: Backend that runs the bundle.
        target_name: Name of the target.

    Returns:
        The bundle, opened.

    Raises:
        InputError: If the directory holds anything other than a bundle, see `write_bundle`.
    """
    _log.info("writing %s", out)
    manifest = Manifest(
        method=model.method,
        teacher=model.teacher,
        backend=backend,
        target=target_name,
        precision=built.precision,
        size=model.size,
        bit_depth=model.bit_depth,
        view=model.view,
        thresholds=built.thresholds,
        changes=built.changes,
        training=model.training,
        verification=built.verification,
        verified=built.verified,
        verified_on=this_environment(backend=backend if built.verified else "onnxruntime").to_json(),
    )
    files = {"model.onnx": built.model, "golden.npz": golden_bytes(built.golden), **built.files}
    return write_bundle(out, manifest, files)
