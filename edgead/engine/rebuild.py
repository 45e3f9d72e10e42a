"""From a bundle to another one, where the run is not at hand: no torch is needed.

With the pictures that the model was trained from, a float32 bundle becomes one of any precision and backend, judged as
a run's would be. The bundle says by hash which pictures held its threshold; those judge again, whatever folder they lie
in now, and the other good pictures there calibrate. So no picture that was trained on can set a threshold.

Without pictures, a bundle of any precision is compiled for another target: its graph and its threshold stay, and the
engine is judged by the answers that the bundle carries. That is how a device makes its own engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from edgead.agreement import agreement_of
from edgead.bundle import Bundle, check_target
from edgead.data import LoadedPictures, Sample, load_pictures, open_dataset
from edgead.engine.candidate import open_candidate
from edgead.engine.lower import Lowered
from edgead.engine.plan import Plan
from edgead.engine.verified import Built, Judges, answers, build_verified, install, picture_hash
from edgead.engine.verify import PRECISIONS, Comparison, Precision, require
from edgead.errors import BundleError, DataError, InputError, PictureError
from edgead.manifest import REBUILD
from edgead.preprocess import ModelSize, read_picture, resize_to_model
from edgead.runtime.onnxruntime import OnnxRuntimeSession
from edgead.types import Prediction, UInt8Array

_GOLDEN = "the golden answers of the bundle that it was made from"


def rebuild_bundle(
    bundle: Bundle, data: Path, target: Path, plan: Plan, progress: Callable[[str], None] = lambda _: None
) -> Bundle:
    """Build a bundle from a float32 one, and return it opened.

    data: the dataset that the model was trained on. The rest as in `build_bundle`. Raises InputError for a
    bundle that does not serve, DataError when the pictures that held the threshold are not all there, and what
    `build_verified` raises.
    """
    check_target(target)
    manifest = bundle.manifest
    good, others, labelled = pictures_of(bundle, data, progress)
    judges = Judges(good, labelled, plan.false_alarm_rate, plan.confidence)

    model = bundle.file("model.onnx").read_bytes()
    golden = bundle.golden()
    with OnnxRuntimeSession(model, size=manifest.size) as session:
        threshold = judges.threshold(session)
        comparison = Comparison(
            agreement_of(
                Prediction(golden.anomaly_map, golden.anomaly_score),
                session.infer(golden.images),
                manifest.threshold.value,
            )
        )
        golden = answers(session, judges.examples())
    limits = Plan().recipe.budgets.fp32.limits(manifest.threshold.value, comparison.agreement.n)
    require(comparison, limits, "build from the run")
    verification = {
        **_kept(manifest.verification),
        "reference": _GOLDEN,
        **comparison.measures(),
        "limits": asdict(limits),
    }
    exact = Built(model, "fp32", threshold, verification, golden, files={}, verified=True)
    with TemporaryDirectory(prefix="edgead-") as directory:
        built = build_verified(
            exact,
            judges,
            plan,
            target.name,
            spread(others, manifest.size),
            manifest.size,
            Path(directory),
            progress,
        )
        progress(f"writing {target}")
        return install(
            target, built, plan, manifest.size, manifest.method, manifest.teacher, manifest.training
        )


def recompile_bundle(
    bundle: Bundle, target: Path, plan: Plan, progress: Callable[[str], None] = lambda _: None
) -> Bundle:
    """Compile the graph of a bundle for another target, and return the new bundle opened.

    plan: its recipe and head alone count. Precision, threshold and golden answers stay. Raises VerificationError when
    the engine does not give these answers within the budget, BackendError as it occurs.
    """
    check_target(target)
    manifest = bundle.manifest
    precision = _precision(bundle)
    golden = bundle.golden()
    lowered = Lowered(bundle.file("model.onnx").read_bytes(), precision, {})
    with (
        TemporaryDirectory(prefix="edgead-") as directory,
        open_candidate(lowered, plan, manifest.size, Path(directory), progress) as candidate,
    ):
        progress(f"checking that it gives the {len(golden.images)} answers that {bundle.path} carries")
        limits = plan.recipe.budgets.of(precision).limits(manifest.threshold.value, len(golden.images))
        expected = Prediction(golden.anomaly_map, golden.anomaly_score)
        found = candidate.session.infer(golden.images)
        comparison = Comparison(agreement_of(expected, found, manifest.threshold.value))
        require(comparison, limits, "build from the run for this target, in a higher precision")
        verification = {
            **_kept(manifest.verification),
            "reference": _GOLDEN,
            **comparison.measures(),
            "limits": asdict(limits),
        }
        files: dict[str, Path | bytes] = dict(candidate.files)
        if "calibration.json" in manifest.files:
            files["calibration.json"] = bundle.file("calibration.json")
        built = Built(
            lowered.model, precision, manifest.threshold, verification, golden, files, candidate.verified
        )
        progress(f"writing {target}")
        return install(
            target, built, plan, manifest.size, manifest.method, manifest.teacher, manifest.training
        )


def pictures_of(
    bundle: Bundle, data: Path, progress: Callable[[str], None]
) -> tuple[UInt8Array, list[Sample], LoadedPictures | None]:
    """The pictures that hold the threshold of a float32 bundle, the other good ones, and the labelled test pictures.

    Raises InputError for a bundle of another precision or that does not say which they were, DataError when they are
    not all in `data`.
    """
    manifest = bundle.manifest
    if manifest.precision != "fp32":
        raise InputError(
            f"{bundle.path} is {manifest.precision}, and another precision is made from fp32: give an fp32 bundle, or "
            "leave out --data and --precision to compile it as it is"
        )
    known = manifest.verification.get("judges")
    if not isinstance(known, list) or not known:
        raise InputError(f"{bundle.path} does not say which pictures hold its threshold: {REBUILD}")
    progress(f"reading the pictures in {data}")
    hashes = frozenset(map(str, known))
    dataset = open_dataset(data)
    good, others = _divided(dataset.train, hashes, manifest.size)
    if len(good) != len(hashes):
        raise DataError(
            f"{data} holds {len(good)} of the {len(hashes)} pictures that the threshold of {bundle.path} was set "
            "on: give the folder that the model was trained on, unchanged"
        )
    labelled = load_pictures(dataset.test, manifest.size, skip_broken=True) if dataset.test else None
    return good, others, labelled


def spread(samples: Sequence[Sample], size: ModelSize) -> Callable[[int], UInt8Array]:
    """Gives at most so many pictures of all these samples, (N, H, W, 3) uint8 RGB, evenly spread over them."""

    def images(count: int) -> UInt8Array:
        step = max(1, -(-len(samples) // count))
        return load_pictures(samples[::step], size).images

    return images


def _kept(verification: Mapping[str, Any]) -> dict[str, Any]:
    """What of a verification is still so in a bundle that is made from the bundle: whose judgement it is, no more."""
    return {name: verification[name] for name in ("judges", "calibration") if name in verification}


def _precision(bundle: Bundle) -> Precision:
    for precision in PRECISIONS:
        if bundle.manifest.precision == precision:
            return precision
    raise BundleError(f"{bundle.path} is of precision {bundle.manifest.precision[:80]!r}: {REBUILD}")


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
