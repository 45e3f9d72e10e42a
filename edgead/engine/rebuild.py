"""Builds a bundle from another bundle, without the run and without torch.

With the images of the training, a float32 bundle can become a bundle of any precision and backend. The verification is
the same as for a run. The bundle records the hashes of its validation images, so they are found again in any folder.
The other good images of the folder calibrate. Therefore no image that the model was trained on can set a threshold.

Without images, a bundle of any precision is compiled for another target. Its graph and its thresholds stay, and the
engine is compared with the golden answers of the bundle. This is how a device builds its own engine.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgead.bundle import Bundle, check_out
from edgead.bundle.manifest import REBUILD, Manifest
from edgead.data import Dataset, LoadedImages, Sample, load_images, open_dataset, read_sample, spread_over
from edgead.engine.candidate import half_beside_int8, open_candidate
from edgead.engine.candidate_precisions import fastest_within_tolerance
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
from edgead.files.cache import temporary_directory
from edgead.imaging.preprocess import ModelSize, resize_to_model
from edgead.runtime.agreement import golden_fidelity
from edgead.runtime.base import Session
from edgead.runtime.onnxruntime import OnnxRuntimeSession
from edgead.types import UInt8Array

_log = logging.getLogger(__name__)

_GOLDEN = "the golden answers of the bundle that it was built from"


@dataclass(frozen=True, slots=True)
class FoundImages:
    """Images of one part of a bundle.

    Attributes:
        good: Good images that the threshold was set on, (N, H, W, 3) uint8 RGB.
        others: Samples of the other good images.
        labelled: Test images; None if there are none.
    """

    good: UInt8Array
    others: list[Sample]
    labelled: LoadedImages | None


@dataclass(frozen=True, slots=True)
class _Folder:
    """A dataset: its good images with a known hash, by hash, the other good ones, and its part (None if unknown)."""

    path: Path
    dataset: Dataset
    found: dict[str, UInt8Array]
    others: list[Sample]
    part: str | None = None


def rebuild_bundle(bundle: Bundle, data: Sequence[Path], out: Path, plan: Plan) -> Bundle:
    """Build a bundle from a float32 bundle.

    Args:
        bundle: Bundle of precision fp32 on ONNX Runtime.
        data: Folders of the datasets that the model was trained on, one for each part.
        out: Directory to write. An existing bundle there is replaced.
        plan: Target, precisions and options of the build.

    Returns:
        The new bundle, opened.

    Raises:
        InputError: If the bundle has another precision, or the directory holds anything other than a bundle.
        DataError: If images that a threshold was set on are missing.
        VerificationError: If the result does not make the decisions of the bundle.
        EdgeadError: Any error that `fastest_within_tolerance` raises.
    """
    check_out(out)
    size = bundle.manifest.size
    images = images_of(bundle, data)
    validation_images = {
        part: ValidationImages(of_part.good, of_part.labelled, plan.false_alarm_rate, plan.confidence)
        for part, of_part in images.items()
    }
    model = bundle.graph()
    with OnnxRuntimeSession(model, size=size) as session:
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
        spread(images, size),
        half_beside_int8(plan),
    )
    with temporary_directory() as directory:
        built = fastest_within_tolerance(exact, validation_images, graphs, plan, size, directory)
        return install(out, built, _details(bundle), plan.target.backend, plan.target_name)


def recompile_bundle(bundle: Bundle, out: Path, plan: Plan) -> Bundle:
    """Compile the graph of a bundle for another target. Precision, thresholds and golden answers stay the same.

    Args:
        bundle: Bundle of any precision and backend.
        out: Directory to write. An existing bundle there is replaced.
        plan: Plan of the build, of which only the target and the head are used.

    Returns:
        The new bundle, opened.

    Raises:
        InputError: If the directory holds anything other than a bundle, or the backend does not support the precision.
        VerificationError: If the answers of the result are not within the tolerance of the golden answers.
        BackendError: If the library is missing, rejects the graph or fails.
        BundleError: If the bundle has an unknown precision.
    """
    check_out(out)
    manifest = bundle.manifest
    precision = _precision(bundle)
    plan.target.check_precisions((precision,), f"{bundle.path} is {precision}")
    golden = bundle.golden()
    converted = ConvertedModel(bundle.graph(), precision, {})
    with (
        temporary_directory() as directory,
        open_candidate(converted, plan, manifest.size, directory) as candidate,
    ):
        _log.info("comparing with the %d golden answers of %s", len(golden.images), bundle.path)
        compared = _compared(bundle, candidate.session, plan.target.tolerances.of(precision))
        require_each(compared, "build from the run for this target, in a higher precision")
        files: dict[str, Path | bytes] = dict(candidate.files)
        if "calibration.json" in manifest.files:
            files["calibration.json"] = bundle.read("calibration.json")
        verification, model, verified = _verification(bundle, compared), converted.model, candidate.verified
        built = Built(model, precision, manifest.thresholds, verification, golden, files, verified)
        return install(out, built, _details(bundle), plan.target.backend, plan.target_name)


def images_of(bundle: Bundle, data: Sequence[Path]) -> dict[str, FoundImages]:
    """Find the images of each part of a float32 bundle, by the hashes of the images that its threshold was set on.

    Args:
        bundle: Bundle of precision fp32.
        data: Folders of datasets, one for each part. A folder may have another name than at the training.

    Returns:
        The images by part.

    Raises:
        InputError: If the bundle has another precision, or does not record which images its thresholds were set on.
        DataError: If some of these images are missing, or a dataset belongs to no part.
    """
    manifest = bundle.manifest
    if manifest.precision != "fp32":
        raise InputError(
            f"{bundle.path} is {manifest.precision}, and another precision can only be built from fp32",
            hint="give an fp32 bundle, or leave out --data and --precision to compile it as it is",
        )
    known = {part: _hashes_of(bundle, part) for part in manifest.thresholds}
    folders = []
    for path in data:
        _log.info("reading the images in %s", path)
        folders.append(_read(path, frozenset().union(*known.values()), manifest))
    images = {}
    for part, hashes in known.items():
        held = [len(hashes & folder.found.keys()) if folder.part is None else 0 for folder in folders]
        best = int(np.argmax(held))
        folder = folders[best]
        if not held[best] and any(folder.part is not None or folder.found for folder in folders):
            raise DataError(
                f"no --data holds the images that the threshold of {bundle.path} for {part} was set on",
                hint="give the folder of that part too",
            )
        if held[best] != len(hashes):
            raise DataError(
                f"{folder.path} holds {held[best]} of the {len(hashes)} images that the threshold of "
                f"{bundle.path}{f' for {part}' if len(known) > 1 else ''} was set on",
                hint="give the folder that the model was trained on, unchanged",
            )
        good = np.stack([folder.found[name] for name in sorted(hashes)])
        test = folder.dataset.test
        labelled = load_images(test, manifest.size, skip_broken=True) if test else None
        images[part] = FoundImages(good, folder.others, labelled)
        folders[best] = replace(folder, part=part)
    for folder in folders:
        if folder.part is None:
            raise DataError(f"{folder.path} belongs to no part of {bundle.path}", hint="leave it out")
    return images


def spread(images: Mapping[str, FoundImages], size: ModelSize) -> Callable[[int], UInt8Array]:
    """Make the function that loads the calibration images of a `PrecisionConverter`.

    Args:
        images: Images by part.
        size: Size of the images that the model takes, in pixels.

    Returns:
        Function that takes an approximate number and returns other good images, (N, H, W, 3) uint8 RGB, spread evenly
        over all parts.
    """
    return lambda count: (
        load_images(spread_over([part.others for part in images.values()], count), size).images
    )


def _details(bundle: Bundle) -> ModelDetails:
    old = bundle.manifest
    return ModelDetails(old.size, old.method, old.teacher, old.training, old.bit_depth)


def _compared(
    bundle: Bundle, session: Session, tolerance: Tolerance
) -> dict[str, tuple[FidelityReport, ToleranceLimits]]:
    """Measure the differences between a session and the golden answers of a bundle; return them and limits by part."""
    thresholds = bundle.manifest.thresholds
    return {
        part: (FidelityReport(fidelity), tolerance.limits(fidelity.n))
        for part, fidelity in golden_fidelity(bundle.golden(), session, thresholds).items()
    }


def _verification(
    bundle: Bundle, compared: Mapping[str, tuple[FidelityReport, ToleranceLimits]]
) -> dict[str, Any]:
    """Return the record of the comparisons for the new bundle, with the calibration and image hashes of the old one."""
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
    raise BundleError(
        f"{bundle.path} has the unknown precision {bundle.manifest.precision[:80]!r}", hint=REBUILD
    )


def _validation_images_of(bundle: Bundle, part: str) -> Any:
    """Return the unchecked image hashes that a bundle records for a part; None if it records none."""
    parts = bundle.manifest.verification.get("parts")
    judged = parts.get(part) if isinstance(parts, Mapping) else None
    return judged.get("validation_images") if isinstance(judged, Mapping) else None


def _hashes_of(bundle: Bundle, part: str) -> frozenset[str]:
    """Return the hashes of the images that the threshold of a part was set on, or raise InputError."""
    names = _validation_images_of(bundle, part)
    if not isinstance(names, list) or not names:
        raise InputError(f"{bundle.path} does not record the validation images of {part}", hint=REBUILD)
    return frozenset(map(str, names))


def _read(path: Path, known: frozenset[str], manifest: Manifest) -> _Folder:
    """Open a dataset, and separate its good images with a known hash from the other readable ones."""
    dataset = open_dataset(path).at_bit_depth(manifest.bit_depth)
    found: dict[str, UInt8Array] = {}
    others = []
    for sample in (*dataset.train, *dataset.validation):
        # Images are read one at a time, because a dataset may be larger than the memory.
        try:
            image = resize_to_model(read_sample(sample), manifest.size)
        except ImageError:
            continue
        name = image_hash(image)
        if name in known:
            found[name] = image
        else:
            others.append(sample)
    return _Folder(path, dataset, found, others)
