"""Scores of good and labelled images for the threshold of a bundle, and the threshold that a rule makes of them.

No training and no torch: a device does this with its own camera's images.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgead.bundle import Bundle
from edgead.bundle.manifest import REBUILD, Manifest
from edgead.bundle.threshold_changes import Rule, ThresholdChange, rate_of_build
from edgead.bundle.validation_records import held_out_scores, is_cross_fitted
from edgead.data import GOOD, Sample, cut_sample, open_dataset, read_sample
from edgead.data.images import image_hash
from edgead.data.layouts import folders_in, images_in
from edgead.errors import BackendError, DataError, ImageError, InputError
from edgead.files.progress import ScoringState, log_state
from edgead.files.records import utc_now
from edgead.runtime.base import Session
from edgead.runtime.framed import infer_images
from edgead.scoring.decision import NOT_FINITE
from edgead.scoring.operating_points import LabelledScores
from edgead.scoring.outstanding import log_outstanding
from edgead.scoring.threshold import Threshold, check_value, threshold_from_normal_scores

_log = logging.getLogger(__name__)

BATCH = 8


@dataclass(frozen=True, slots=True)
class GoodAndDefects:
    """Samples of good images and of defects.

    Attributes:
        good: Images of good parts.
        defects: Images of defects; empty if only good images are given.
    """

    good: tuple[Sample, ...]
    defects: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class Wish:
    """The rule that sets a threshold, and its number.

    Attributes:
        rule: Rule that chooses the threshold.
        wanted: Wanted recall, false-alarm rate or value; None for "best-f1", and for the rate of the build.
        confidence: Confidence that a false-alarm rate is kept; None for the confidence of the build.
        join: Whether the held-out or cross-fitted scores of the build count beside the good images.

    Raises:
        InputError: A number is out of range.
    """

    rule: Rule
    wanted: float | None = None
    confidence: float | None = None
    join: bool = False

    def __post_init__(self) -> None:
        if self.rule == "value":
            check_value(0.0 if self.wanted is None else self.wanted)
        if self.rule == "recall" and not 0.0 < (self.wanted or 0.0) <= 1.0:
            raise InputError(
                f"the recall is {self.wanted}", hint="give --recall above 0 and at most 1, such as 0.95"
            )
        if self.rule == "false-alarm-rate":
            # The check of the rate and the confidence is the one of the threshold itself.
            rate, confidence = self.wanted, self.confidence
            threshold_from_normal_scores(
                [0.0], 0.01 if rate is None else rate, 0.95 if confidence is None else confidence
            )


def samples_of_folders(good: Path, defects: Path | None) -> GoodAndDefects:
    """List the images of folders.

    Args:
        good: Folder of images of good parts, in it or in its folder `good`.
        defects: Folder of images of defects, in it or in a folder for each kind, without a folder `good`; None for no
            defects.

    Returns:
        The samples.

    Raises:
        DataError: A folder is missing or holds no image.
    """
    found = open_dataset(good, "folder").train
    if defects is None:
        return GoodAndDefects(found, ())
    if not defects.is_dir():
        raise DataError(f"{defects} is not a folder", hint="give a folder of images of defects")
    folders = (folder for folder in folders_in(defects) if folder.name != GOOD)
    bad = tuple(Sample(path, 1, folder.name) for folder in (defects, *folders) for path in images_in(folder))
    if not bad:
        raise DataError(f"no image in {defects}", hint="put images of defects there")
    return GoodAndDefects(found, bad)


def samples_of_dataset(data: Path, layout: str) -> GoodAndDefects:
    """List the test images of a dataset. Its training images do not count, because the model knows them.

    Args:
        data: Folder of the dataset.
        layout: Layout of the folder, or "auto".

    Returns:
        The samples.

    Raises:
        DataError: The dataset cannot be used, or lacks test images of good parts or of defects.
    """
    test = open_dataset(data, layout).test
    good = tuple(sample for sample in test if sample.label == 0)
    defects = tuple(sample for sample in test if sample.label == 1)
    if not good or not defects:
        missing = "good parts" if defects else "defects" if good else "good parts or defects"
        raise DataError(
            f"{data} has no test images of {missing}", hint="add them, or give --good DIR and --defects DIR"
        )
    return GoodAndDefects(good, defects)


def score_images(
    session: Session, samples: Sequence[Sample], manifest: Manifest, skip_broken: bool
) -> tuple[dict[str, float], dict[str, str]]:
    """Score images; of images with equal pixels, one counts.

    Args:
        session: Session of the bundle.
        samples: Images to score.
        manifest: Manifest of the bundle, which has the size and the bit depth of its images.
        skip_broken: Whether to skip and log image files that cannot be read.

    Returns:
        Score and file of each image, by the ID of the image.

    Raises:
        ImageError: An image cannot be read, and `skip_broken` is False.
        DataError: No image can be read.
        BackendError: A map or a score is not finite.
    """
    scores: dict[str, float] = {}
    files: dict[str, str] = {}
    read = 0
    for start in range(0, len(samples), BATCH):
        images = {}
        for sample in samples[start : start + BATCH]:
            seen = replace(sample, bit_depth=manifest.bit_depth, view=manifest.view)
            try:
                framed = cut_sample(seen, read_sample(seen), manifest.size)
            except ImageError as error:
                if not skip_broken:
                    raise ImageError(
                        error.what, hint=f"{error.hint}, or skip such files with --skip-broken"
                    ) from error
                _log.warning("skipped: %s", error)
                continue
            read += 1
            images[name := image_hash(framed[1])] = framed
            files[name] = str(sample.path)
        if images:
            found = infer_images(session, list(images.values()))
            for name, (score, joined) in zip(images, found, strict=True):
                if not (np.isfinite(score) and np.isfinite(joined).all()):
                    raise BackendError(f"an image gets no score ({NOT_FINITE})", hint=REBUILD)
                scores[name] = float(score)
        log_state(_log, ScoringState(min(start + BATCH, len(samples)), len(samples)))
    if not scores:
        raise DataError(f"none of {len(samples)} images can be read", hint="check the folder")
    if len(scores) < read:
        _log.warning("%d images have the same pixels as others and do not count", read - len(scores))
    return scores, files


def with_cross_fitted(bundle: Bundle, part: str, good: dict[str, float]) -> dict[str, float]:
    """Replace the scores of cross-fitted images, which the model was trained on, by their cross-fitted scores.

    Args:
        bundle: Opened bundle.
        part: Name of one of its parts.
        good: Scores of good images by ID.

    Returns:
        Scores by ID, in the same order.

    Raises:
        BundleError: The bundle is cross-fitted, and does not record the scores.
    """
    if not is_cross_fitted(bundle.manifest, part):
        return good
    cross_fitted = held_out_scores(bundle, part)
    known = sum(name in cross_fitted for name in good)
    if known:
        _log.warning(
            "the model was trained on %d of the %d good images: their cross-fitted scores of the build count",
            known,
            len(good),
        )
    return {name: cross_fitted.get(name, score) for name, score in good.items()}


def new_threshold(
    bundle: Bundle,
    part: str,
    wish: Wish,
    good: dict[str, float],
    defects: dict[str, float],
    files: Mapping[str, str],
) -> tuple[Threshold, ThresholdChange]:
    """Make the threshold that a rule asks for, and its record. Good images that alone set it are named in the log.

    Args:
        bundle: Opened bundle.
        part: Name of one of its parts.
        wish: Rule and number.
        good: Scores of good images by ID; may be empty for the rule "value".
        defects: Scores of defects by ID; may be empty for the rules "value" and "false-alarm-rate".
        files: Files of the good images by ID.

    Returns:
        The threshold and its record.

    Raises:
        InputError: There are too few images for the rule.
        BundleError: The held-out scores are asked for, and the bundle does not record them.
    """
    held_out = held_out_scores(bundle, part) if wish.join else {}
    new = {name: score for name, score in good.items() if name not in held_out}
    wanted = wish.wanted
    if wish.rule == "false-alarm-rate":
        rate, confidence = rate_of_build(bundle.manifest, part)
        wanted = wish.wanted or rate
        scores = {**held_out, **new}
        threshold = threshold_from_normal_scores(list(scores.values()), wanted, wish.confidence or confidence)
        named = {files.get(name, f"image {name} of the build"): score for name, score in scores.items()}
        log_outstanding(threshold, named, part, "give --good again")
    elif wish.rule == "value":
        assert wanted is not None
        threshold = Threshold(wanted, None, None, None, len(good), None)
    else:
        labelled = LabelledScores(list(good.values()), list(defects.values()))
        point = labelled.best_f1() if wish.rule == "best-f1" else labelled.with_recall(wanted or 0.0)
        threshold = Threshold(point.threshold, None, None, None, len(good), None)
    change = ThresholdChange(
        rule=wish.rule,
        wanted=wanted,
        n_good=len(new) + len(held_out),
        n_held_out=len(held_out),
        n_defects=len(defects),
        set_at=utc_now(),
        previous=bundle.manifest.thresholds[part],
    )
    return threshold, change
