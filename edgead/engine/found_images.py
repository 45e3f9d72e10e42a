"""The images that a float32 bundle was built with, found again in any folder by the hashes that the bundle records."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgead.bundle import Bundle
from edgead.bundle.manifest import REBUILD, Manifest
from edgead.bundle.validation_records import recorded_of, score_ratios
from edgead.data import Dataset, LoadedImages, Sample, load_images, open_dataset, read_sample, spread_over
from edgead.data.images import image_hash
from edgead.engine.calibration_images import calibration_rows
from edgead.errors import DataError, ImageError, InputError
from edgead.imaging.frame import cut_image
from edgead.imaging.preprocess import ModelSize
from edgead.types import UInt8Array

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FoundImages:
    """Images of one part of a bundle.

    Attributes:
        good: Good images that the threshold was set on, at the model's size.
        calibrating: Samples to calibrate on: the other good images, or all of them if they are cross-fitted.
        labelled: Test images; None if there are none.
        ratios: Ratio of the cross-fitted score of each good image, see `edgead.scoring.cross_fitting`; None if the
            images are held out.
    """

    good: LoadedImages
    calibrating: list[Sample]
    labelled: LoadedImages | None
    ratios: list[float] | None


@dataclass(frozen=True, slots=True)
class _Folder:
    """A dataset: its good samples with a known hash, by hash, those to calibrate on, and its part (None if unknown)."""

    path: Path
    dataset: Dataset
    found: dict[str, Sample]
    calibrating: list[Sample]
    part: str | None = None


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
    ratios = {part: score_ratios(bundle, part) for part in manifest.thresholds}
    held_out = frozenset().union(*(hashes for part, hashes in known.items() if ratios[part] is None))
    folders = []
    for path in data:
        _log.info("reading the images in %s", path)
        folders.append(_read(path, frozenset().union(*known.values()), held_out, manifest))
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
        names, of_part = sorted(hashes), ratios[part]
        good = load_images([folder.found[name] for name in names], manifest.size)
        test = folder.dataset.test
        labelled = load_images(test, manifest.size, skip_broken=True) if test else None
        images[part] = FoundImages(
            good,
            folder.calibrating,
            labelled,
            None if of_part is None else [of_part[name] for name in names],
        )
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
        Function that takes an approximate number and returns good images to calibrate on, (N, H, W, 3) uint8 RGB,
        spread evenly over all parts.
    """
    parts = [part.calibrating for part in images.values()]
    return lambda count: calibration_rows(load_images(spread_over(parts, count), size), count)


def _hashes_of(bundle: Bundle, part: str) -> frozenset[str]:
    """Return the hashes of the images that the threshold of a part was set on, or raise InputError."""
    names = recorded_of(bundle.manifest, part).get("validation_images")
    if not isinstance(names, list) or not names:
        raise InputError(f"{bundle.path} does not record the validation images of {part}", hint=REBUILD)
    return frozenset(map(str, names))


def _read(path: Path, known: frozenset[str], held_out: frozenset[str], manifest: Manifest) -> _Folder:
    """Open a dataset, and find its good images with a known hash and the readable ones that are not held out.

    The threshold of an imported model is set on good test images. They are read if others are missing, and do not
    calibrate.
    """
    dataset = open_dataset(path).read_as(manifest.bit_depth, manifest.view)
    names = _hashes((*dataset.train, *dataset.validation), manifest)
    found = {name: sample for sample, name in names.items() if name in known}
    calibrating = [sample for sample, name in names.items() if name not in held_out]
    if len(found) < len(known):
        tested = _hashes([sample for sample in dataset.test if sample.label == 0], manifest)
        found |= {name: sample for sample, name in tested.items() if name in known}
    return _Folder(path, dataset, found, calibrating)


def _hashes(samples: Sequence[Sample], manifest: Manifest) -> dict[Sample, str]:
    """Return the hashes of the samples that can be read."""
    hashes = {}
    for sample in samples:
        # Images are read one at a time, because a dataset may be larger than the memory.
        try:
            _, rows = cut_image(read_sample(sample), sample.view, manifest.size)
        except ImageError:
            continue
        hashes[sample] = image_hash(rows)
    return hashes
