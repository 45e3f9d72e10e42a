"""Records of a bundle about the good images that set its thresholds: IDs, scores, statistics, and ratios of scores.

A manifest keeps them beside the verification, which may have any content, so they are checked here.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import Any

from edgead.bundle.directory import Bundle
from edgead.bundle.manifest import REBUILD, Manifest
from edgead.errors import BundleError, InputError
from edgead.imaging.image_statistics import IMAGE_STATISTICS
from edgead.scoring.cross_fitting import check_ratios

KEYS = (
    "validation_images",
    "validation_scores",
    "validation_ratios",
    *(f"validation_{name}" for name in IMAGE_STATISTICS),
)
"""Keys of the records of a part."""


def recorded_of(manifest: Manifest, part: str) -> dict[str, Any]:
    """Return the unchecked records of a part.

    Args:
        manifest: Manifest of a bundle.
        part: Name of one of its parts.

    Returns:
        Recorded values by key; only the keys that are there.
    """
    parts = manifest.verification.get("parts")
    judged = parts.get(part) if isinstance(parts, Mapping) else None
    return {key: judged[key] for key in KEYS if key in judged} if isinstance(judged, Mapping) else {}


def is_cross_fitted(manifest: Manifest, part: str) -> bool:
    """Return whether the model was trained on the images that set the threshold of a part.

    Args:
        manifest: Manifest of a bundle.
        part: Name of one of its parts.
    """
    return "validation_ratios" in recorded_of(manifest, part)


def held_out_scores(bundle: Bundle, part: str) -> dict[str, float]:
    """Read the scores of the held-out or cross-fitted images that the build recorded.

    Args:
        bundle: Opened bundle.
        part: Name of one of its parts.

    Returns:
        Score of each image, by the ID of the image.

    Raises:
        BundleError: The bundle records no scores, or other values.
    """
    record = recorded_of(bundle.manifest, part)
    names, scores = record.get("validation_images"), record.get("validation_scores")
    if not isinstance(names, list) or not isinstance(scores, list) or not len(names) == len(scores) > 0:
        raise BundleError(f"{bundle.path} does not record the scores of its held-out images", hint=REBUILD)
    if not all(type(name) is str for name in names) or not all(
        type(score) in (int, float) for score in scores
    ):
        raise BundleError(f"{bundle.path} records held-out scores that are no numbers", hint=REBUILD)
    return {name: float(score) for name, score in zip(names, scores, strict=True)}


def good_values(bundle: Bundle, part: str) -> dict[str, list[float]]:
    """Read the scores and the statistics of the good images of the build, to compare later images with them.

    Args:
        bundle: Opened bundle.
        part: Name of one of its parts.

    Returns:
        Values by quantity: "score" and the names of `edgead.imaging.image_statistics`. Unknown values, and quantities
        that the bundle does not record, are left out.

    Raises:
        BundleError: A recorded value is no number.
    """
    record = recorded_of(bundle.manifest, part)
    found: dict[str, list[float]] = {}
    for name, key in (
        ("score", "validation_scores"),
        *((name, f"validation_{name}") for name in IMAGE_STATISTICS),
    ):
        values = record.get(key, [])
        if not isinstance(values, list) or not all(type(one) in (int, float, NoneType) for one in values):
            raise BundleError(f"{bundle.path} records {key} that are no numbers", hint=REBUILD)
        if values:
            found[name] = [float(one) for one in values if one is not None]
    return found


def score_ratios(bundle: Bundle, part: str) -> dict[str, float] | None:
    """Read the ratios of cross-fitted scores and scores of the model.

    Args:
        bundle: Opened bundle.
        part: Name of one of its parts.

    Returns:
        Ratio of each image, by the ID of the image; None if the images are held out.

    Raises:
        BundleError: There is another number of ratios than of images, or a ratio is out of range.
    """
    if not is_cross_fitted(bundle.manifest, part):
        return None
    record = recorded_of(bundle.manifest, part)
    names, ratios = record.get("validation_images"), record["validation_ratios"]
    if not isinstance(names, list) or not isinstance(ratios, list):
        raise BundleError(f"{bundle.path} records cross-fitted images that are no lists", hint=REBUILD)
    try:
        check_ratios(ratios, len(names))
    except InputError as error:
        raise BundleError(f"{bundle.path} for {part}: {error.what}", hint=REBUILD) from error
    return {str(name): float(ratio) for name, ratio in zip(names, ratios, strict=True)}
