"""Builds a bundle from another bundle, without the run and without torch.

With the images of the training, a float32 bundle can become a bundle of any precision and backend. The verification is
the same as for a run. The bundle records the hashes of its validation images, so they are found again in any folder.
The other good images of the folder calibrate. If the images are cross-fitted, all good images do both, and the bundle
records the ratios of their scores.

Without images, a bundle of any precision is compiled for another target. Its graph and its thresholds stay, and the
engine is compared with the golden answers of the bundle. This is how a device builds its own engine.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgead.bundle import Bundle, check_out
from edgead.bundle.manifest import REBUILD
from edgead.bundle.threshold_changes import built_thresholds, rate_of_build
from edgead.bundle.validation_records import recorded_of
from edgead.engine.candidate import half_beside_int8, open_candidate
from edgead.engine.candidate_precisions import fastest_within_tolerance
from edgead.engine.fidelity import PRECISIONS, FidelityReport, Precision, Tolerance, judgement
from edgead.engine.found_images import images_of, spread
from edgead.engine.plan import Plan
from edgead.engine.precision_converter import ConvertedModel, PrecisionConverter
from edgead.engine.reference import Compared
from edgead.engine.refusal import require_each
from edgead.engine.validation_images import ValidationImages
from edgead.engine.write import Built, ModelDetails, answers, install
from edgead.errors import BundleError
from edgead.files.cache import temporary_directory
from edgead.runtime.agreement import golden_fidelity
from edgead.runtime.base import Session
from edgead.runtime.golden_check import multiplied_scales
from edgead.runtime.onnxruntime import OnnxRuntimeSession

_log = logging.getLogger(__name__)

_GOLDEN = "the golden answers of the bundle that it was built from"


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
    began_s = time.monotonic()
    check_out(out)
    manifest = bundle.manifest
    if manifest.changes:
        _log.warning(
            "the thresholds that edgead threshold set in %s are set again from the images of their build, for its "
            "false-alarm rate",
            bundle.path,
        )
    images = images_of(bundle, data)
    validation_images = {
        part: ValidationImages(
            of_part.good,
            of_part.labelled,
            *plan.rate_and_confidence(*rate_of_build(manifest, part)),
            of_part.ratios,
        )
        for part, of_part in images.items()
    }
    model = bundle.graph()
    with OnnxRuntimeSession(model, size=manifest.size) as session:
        scores = {part: of_part.scores(session) for part, of_part in validation_images.items()}
        thresholds = {part: of_part.threshold(scores[part]) for part, of_part in validation_images.items()}
        compared = _compared(bundle, session, Plan().target.tolerances.fp32)
        golden = answers(session, validation_images)
    require_each(compared, "the graph", "build from the run")
    exact = Built(model, "fp32", thresholds, _verification(bundle, compared), golden, files={}, verified=True)
    graphs = PrecisionConverter(
        model,
        plan.calibrating,
        out.name,
        np.concatenate([of_part.all for of_part in validation_images.values()]),
        spread(images, manifest.size),
        half_beside_int8(plan),
    )
    with temporary_directory() as directory:
        built = fastest_within_tolerance(
            exact, validation_images, graphs, plan, manifest.size, directory, began_s
        )
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
        require_each(compared, precision, "build from the run for this target, in a higher precision")
        files: dict[str, Path | bytes] = dict(candidate.files)
        if "calibration.json" in manifest.files:
            files["calibration.json"] = bundle.read("calibration.json")
        verification = _verification(bundle, compared)
        built = Built(
            converted.model,
            precision,
            manifest.thresholds,
            verification,
            golden,
            files,
            candidate.verified,
            manifest.changes,
        )
        return install(out, built, _details(bundle), plan.target.backend, plan.target_name)


def _details(bundle: Bundle) -> ModelDetails:
    old = bundle.manifest
    return ModelDetails(old.size, old.method, old.teacher, old.training, old.bit_depth, old.view)


def _compared(bundle: Bundle, session: Session, tolerance: Tolerance) -> Compared:
    """Measure the differences between a session and the golden answers of a bundle; return them and limits by part."""
    thresholds = built_thresholds(bundle.manifest)
    factors = multiplied_scales(bundle, thresholds)
    return {
        part: (FidelityReport(fidelity), tolerance.limits(fidelity.n, factors[part]))
        for part, fidelity in golden_fidelity(bundle.golden(), session, thresholds, factors).items()
    }


def _verification(bundle: Bundle, compared: Compared) -> dict[str, Any]:
    """Return the record of the comparisons for the new bundle, with the calibration and image hashes of the old one."""
    earlier = bundle.manifest.verification
    kept = {"calibration": earlier["calibration"]} if "calibration" in earlier else {}
    parts = {
        part: judgement(*measured) | recorded_of(bundle.manifest, part) for part, measured in compared.items()
    }
    return {**kept, "reference": _GOLDEN, "parts": parts}


def _precision(bundle: Bundle) -> Precision:
    for precision in PRECISIONS:
        if bundle.manifest.precision == precision:
            return precision
    raise BundleError(
        f"{bundle.path} has the unknown precision {bundle.manifest.precision[:80]!r}", hint=REBUILD
    )
