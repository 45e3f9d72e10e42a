"""From a float32 bundle to one of lower precision, where the run is not at hand: no torch is needed.

The bundle says by hash which pictures held its threshold; those judge again, whatever folder they lie in now,
and the other good pictures there calibrate. So no picture that was trained on can set a threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from edgead.bundle import Bundle, Manifest, check_target
from edgead.data import Sample, load_pictures, open_dataset
from edgead.engine.lower import Lowering
from edgead.engine.verified import Judges, VerifiedGraph, install, picture_hash, verified_lower
from edgead.errors import DataError, InputError, PictureError
from edgead.manifest import REBUILD
from edgead.preprocess import ModelSize, read_picture, resize_to_model
from edgead.threshold import threshold_from_normal_scores
from edgead.types import UInt8Array


def rebuild_bundle(
    bundle: Bundle,
    data: Path,
    target: Path,
    lowering: Lowering,
    false_alarm_rate: float = 0.01,
    confidence: float = 0.95,
    progress: Callable[[str], None] = lambda _: None,
) -> Bundle:
    """Build a bundle of lower precision from a float32 one, and return it opened.

    data: the dataset that the model was trained on. The rest as in `build_bundle`. Raises InputError for a
    bundle or a precision that does not serve, DataError when the pictures that held the threshold are not all
    there, VerificationError when the graph is over budget, and what `lower` raises.
    """
    threshold_from_normal_scores([0.0], false_alarm_rate, confidence)
    check_target(target)
    manifest = bundle.manifest
    if manifest.precision != "fp32" or lowering.precision == "fp32":
        raise InputError(
            f"{bundle.path} is {manifest.precision} and cannot become {lowering.precision}: "
            "give an fp32 bundle and --precision fp16 or int8"
        )
    known = manifest.verification.get("judges")
    if not isinstance(known, list) or not known:
        raise InputError(f"{bundle.path} does not say which pictures hold its threshold: {REBUILD}")
    progress(f"reading the pictures in {data}")
    hashes = frozenset(map(str, known))
    good, others = _divided(open_dataset(data).train, hashes, manifest.size)
    if len(good) != len(hashes):
        raise DataError(
            f"{data} holds {len(good)} of the {len(hashes)} pictures that the threshold of {bundle.path} was set "
            "on: give the folder that the model was trained on, unchanged"
        )
    judges = Judges(good, false_alarm_rate, confidence)

    def training_images(count: int) -> UInt8Array:
        step = max(1, -(-len(others) // count))
        return load_pictures(others[::step], manifest.size).images

    exact = VerifiedGraph(bundle.file("model.onnx").read_bytes(), manifest.threshold, {}, {})
    built = verified_lower(exact, lowering, target.name, judges, training_images, progress)
    lowered = Manifest(
        method=manifest.method,
        teacher=manifest.teacher,
        backend=manifest.backend,
        precision=lowering.precision,
        size=manifest.size,
        threshold=built.threshold,
        training=manifest.training,
        verification=built.verification,
    )
    progress(f"writing {target}")
    return install(target, lowered, built, judges)


def _divided(
    samples: Sequence[Sample], known: frozenset[str], size: ModelSize
) -> tuple[UInt8Array, list[Sample]]:
    """The pictures with a known hash, each once, and the samples of all others that can be read."""
    found: dict[str, UInt8Array] = {}
    others = []
    for sample in samples:
        # One at a time: a dataset may be larger than the memory.
        try:
            image = resize_to_model(read_picture(sample.path), size)
        except PictureError:
            continue
        name = picture_hash(image)
        if name in known:
            found[name] = image
        else:
            others.append(sample)
    good = np.stack([found[name] for name in sorted(found)]) if found else np.empty(0, np.uint8)
    return good, others
