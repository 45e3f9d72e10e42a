"""From a bundle to another one, where the run is not at hand: no torch is needed.

With the images that the model was trained from, a float32 bundle becomes one of any precision and backend, judged as
a run's would be. The bundle says by hash which images held its thresholds; those judge again, whatever folder they
lie in now, and the other good images there calibrate. So no image that was trained on can set a threshold.

Without images, a bundle of any precision is compiled for another target: its graph and its threshold stay, and the
engine is judged by the answers that the bundle carries. That is how a device makes its own engine.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from edgead.bundle import Bundle, check_out
from edgead.bundle.manifest import REBUILD
from edgead.data import Dataset, LoadedImages, Sample, load_images, open_dataset, spread_over
from edgead.engine.candidate import open_candidate
from edgead.engine.candidate_precisions import first_within_tolerance
from edgead.engine.fidelity import (
    PRECISIONS,
    FidelityReport,
    Precision,
    Tolerance,
    ToleranceLimits,
    judgement,
    require_each,
)
from edgead.engine.plan import Plan
from edgead.engine.precision_converter import ConvertedModel, PrecisionConverter
from edgead.engine.validation_images import ValidationImages, image_hash
from edgead.engine.write import Built, ModelDetails, answers, install
from edgead.errors import BundleError, DataError, ImageError, InputError
from edgead.imaging.preprocess import ModelSize, read_image, resize_to_model
from edgead.runtime.agreement import golden_fidelity
from edgead.runtime.base import Session
from edgead.runtime.onnxruntime import OnnxRuntimeSession
from edgead.types import UInt8Array

_log = logging.getLogger(__name__)

_GOLDEN = "the golden answers of the bundle that it was made from"


@dataclass(frozen=True, slots=True)
class FoundImages:
    """The images of one part of a bundle.

    good: (N, H, W, 3) uint8 RGB, those that hold its threshold. others: the other good ones. labelled: test images,
    None where there are none.
    """

    good: UInt8Array
    others: list[Sample]
    labelled: LoadedImages | None


@dataclass(frozen=True, slots=True)
class _Folder:
    """A dataset: its good images with a known hash, by that, and the others. part: whose it is, None until found."""

    path: Path
    dataset: Dataset
    found: dict[str, UInt8Array]
    others: list[Sample]
    part: str | None = None


def rebuild_bundle(bundle: Bundle, data: Sequence[Path], out: Path, plan: Plan) -> Bundle:
    """Build a bundle from a float32 one.

    Args:
        bundle: Bundle of precision fp32 on ONNX Runtime.
        data: Datasets that the model was trained on, one for each part.
        out: Directory to write, in place of the bundle that may be there.
        plan: What to build.

    Returns:
        The new bundle, opened.

    Raises:
        InputError: If the bundle is of another precision, or the directory holds something else.
        DataError: If the images that a threshold was set on are not all there.
        VerificationError: If what was built does not decide as the bundle.
        EdgeadError: For what `first_within_tolerance` raises.
    """
    check_out(out)
    manifest = bundle.manifest
    images = images_of(bundle, data)
    validation_images = {
        part: ValidationImages(of_part.good, of_part.labelled, plan.false_alarm_rate, plan.confidence)
        for part, of_part in images.items()
    }
    model = bundle.file("model.onnx").read_bytes()
    with OnnxRuntimeSession(model, size=manifest.size) as session:
        thresholds = {part: of_part.threshold(session) for part, of_part in validation_images.items()}
        compared = _compared(bundle, session, Plan().target.tolerances.fp32)
        golden = answers(session, validation_images)
    require_each(compared, "build from the run")
    exact = Built(model, "fp32", thresholds, _verification(bundle, compared), golden, files={}, verified=True)
    graphs = PrecisionConverter(
        model,
        plan.calibrating,
        out.name,
        np.concatenate([of_part.all for of_part in validation_images.values()]),
        spread(images, manifest.size),
    )
    with TemporaryDirectory(prefix="edgead-") as directory:
        built = first_within_tolerance(exact, validation_images, graphs, plan, manifest.size, Path(directory))
        return install(out, built, _details(bundle), plan.target.backend, plan.target_name)


def recompile_bundle(bundle: Bundle, out: Path, plan: Plan) -> Bundle:
    """Compile the graph of a bundle for another target. Precision, threshold and golden answers stay.

    Args:
        bundle: Bundle of any precision and backend.
        out: Directory to write, in place of the bundle that may be there.
        plan: What to build; only its target and head count.

    Returns:
        The new bundle, opened.

    Raises:
        InputError: If the directory holds something else.
        VerificationError: If the result does not give these answers within the tolerance.
        BackendError: If the library is missing, refuses the graph or fails.
    """
    check_out(out)
    manifest = bundle.manifest
    precision = _precision(bundle)
    golden = bundle.golden()
    converted = ConvertedModel(bundle.file("model.onnx").read_bytes(), precision, {})
    with (
        TemporaryDirectory(prefix="edgead-") as directory,
        open_candidate(converted, plan, manifest.size, Path(directory)) as candidate,
    ):
        _log.info("checking that it gives the %d answers that %s carries", len(golden.images), bundle.path)
        compared = _compared(bundle, candidate.session, plan.target.tolerances.of(precision))
        require_each(compared, "build from the run for this target, in a higher precision")
        files: dict[str, Path | bytes] = dict(candidate.files)
        if "calibration.json" in manifest.files:
            files["calibration.json"] = bundle.file("calibration.json")
        verification = _verification(bundle, compared)
        built = Built(
            converted.model, precision, manifest.thresholds, verification, golden, files, candidate.verified
        )
        return install(out, built, _details(bundle), plan.target.backend, plan.target_name)


def images_of(bundle: Bundle, data: Sequence[Path]) -> dict[str, FoundImages]:
    """Find the images of each part of a float32 bundle, by the images that its threshold was set on.

    Args:
        bundle: Bundle of precision fp32.
        data: Datasets, one for each part; a folder may have another name than at the training.

    Returns:
        The images by part.

    Raises:
        InputError: If the bundle is of another precision, or does not record which images set its thresholds.
        DataError: If these images are not all there, or a dataset belongs to no part.
    """
    manifest = bundle.manifest
    if manifest.precision != "fp32":
        raise InputError(
            f"{bundle.path} is {manifest.precision}, and another precision is made from fp32: give an fp32 bundle, or "
            "leave out --data and --precision to compile it as it is"
        )
    known = {part: _hashes_of(bundle, part) for part in manifest.thresholds}
    folders = []
    for path in data:
        _log.info("reading the images in %s", path)
        folders.append(_read(path, frozenset().union(*known.values()), manifest.size))
    images = {}
    for part, hashes in known.items():
        held = [len(hashes & folder.found.keys()) if folder.part is None else 0 for folder in folders]
        best = int(np.argmax(held))
        folder = folders[best]
        if not held[best] and any(folder.part is not None or folder.found for folder in folders):
            raise DataError(
                f"no --data holds the images that the threshold of {bundle.path} for {part} was set on: give the "
                "folder of that part too"
            )
        if held[best] != len(hashes):
            raise DataError(
                f"{folder.path} holds {held[best]} of the {len(hashes)} images that the threshold of "
                f"{bundle.path}{f' for {part}' if len(known) > 1 else ''} was set on: give the folder that the model "
                "was trained on, unchanged"
            )
        good = np.stack([folder.found[name] for name in sorted(hashes)])
        test = folder.dataset.test
        labelled = load_images(test, manifest.size, skip_broken=True) if test else None
        images[part] = FoundImages(good, folder.others, labelled)
        folders[best] = replace(folder, part=part)
    for folder in folders:
        if folder.part is None:
            raise DataError(f"{folder.path} is of no part of {bundle.path}: leave it out")
    return images


def spread(images: Mapping[str, FoundImages], size: ModelSize) -> Callable[[int], UInt8Array]:
    """Gives about so many of the other good images, (N, H, W, 3) uint8 RGB, spread over all parts."""
    return lambda count: (
        load_images(spread_over([part.others for part in images.values()], count), size).images
    )


def _details(bundle: Bundle) -> ModelDetails:
    manifest = bundle.manifest
    return ModelDetails(manifest.size, manifest.method, manifest.teacher, manifest.training)


def _compared(
    bundle: Bundle, session: Session, tolerance: Tolerance
) -> dict[str, tuple[FidelityReport, ToleranceLimits]]:
    """How far a session is from the golden answers of a bundle on each part, and how far it may be."""
    thresholds = bundle.manifest.thresholds
    return {
        part: (FidelityReport(fidelity), tolerance.limits(fidelity.n))
        for part, fidelity in golden_fidelity(bundle.golden(), session, thresholds).items()
    }


def _verification(
    bundle: Bundle, compared: Mapping[str, tuple[FidelityReport, ToleranceLimits]]
) -> dict[str, Any]:
    """What the new bundle says of these comparisons, and what stays so of the old one's: whose judgement it is."""
    earlier = bundle.manifest.verification
    kept = {"calibration": earlier["calibration"]} if "calibration" in earlier else {}
    parts = {}
    for part, measured in compared.items():
        validation_images = _validation_images_of(bundle, part)
        parts[part] = judgement(*measured) | (
            {} if validation_images is None else {"validation_images": validation_images}
        )
    return {**kept, "reference": _GOLDEN, "parts": parts}


def _precision(bundle: Bundle) -> Precision:
    for precision in PRECISIONS:
        if bundle.manifest.precision == precision:
            return precision
    raise BundleError(f"{bundle.path} is of precision {bundle.manifest.precision[:80]!r}: {REBUILD}")


def _validation_images_of(bundle: Bundle, part: str) -> Any:
    """What a bundle says of which images hold the threshold of a part; None where it does not."""
    parts = bundle.manifest.verification.get("parts")
    judged = parts.get(part) if isinstance(parts, Mapping) else None
    return judged.get("validation_images") if isinstance(judged, Mapping) else None


def _hashes_of(bundle: Bundle, part: str) -> frozenset[str]:
    names = _validation_images_of(bundle, part)
    if not isinstance(names, list) or not names:
        raise InputError(f"{bundle.path} does not say which images hold its threshold: {REBUILD}")
    return frozenset(map(str, names))


def _read(path: Path, known: frozenset[str], size: ModelSize) -> _Folder:
    """Open a dataset, and tell its good images with a known hash from all others that can be read."""
    dataset = open_dataset(path)
    found: dict[str, UInt8Array] = {}
    others = []
    for sample in dataset.train:
        # One at a time: a dataset may be larger than the memory.
        try:
            image = resize_to_model(read_image(sample.path), size)
        except ImageError:
            continue
        name = image_hash(image)
        if name in known:
            found[name] = image
        else:
            others.append(sample)
    return _Folder(path, dataset, found, others)
