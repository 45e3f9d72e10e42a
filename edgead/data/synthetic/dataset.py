"""Datasets of synthetic parts in the layout of MVTec AD, for the demo's training and evaluation.

`edgead.data.synthetic.parts` draws good parts, `edgead.data.synthetic.defects` adds defects to them, and
`edgead.data.synthetic.conveyor` moves them past a camera. A seed determines everything.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from edgead.data.samples import GOOD
from edgead.data.synthetic.conveyor import Conveyor, write_conveyor_video
from edgead.data.synthetic.defects import DEFECTS, add_defect
from edgead.data.synthetic.parts import KINDS, SIZE_MIN_PX, Part, draw_part, render_part
from edgead.errors import InputError
from edgead.files.atomic import check_empty, replace_directory
from edgead.files.parsing import json_text
from edgead.types import BoolArray, UInt8Array

__all__ = [
    "DEFECTS",
    "KINDS",
    "Conveyor",
    "Part",
    "add_defect",
    "draw_part",
    "render_part",
    "write_conveyor_video",
    "write_dataset",
]

_RECORD = "synthetic.json"
_TRAIN, _TEST_GOOD, _TEST_DEFECT = range(3)


def write_dataset(
    root: Path,
    kind: str,
    n_train: int = 100,
    n_good: int = 30,
    n_defect: int = 30,
    seed: int = 0,
    size_px: int = 256,
) -> None:
    """Write a dataset of one kind of part: `train/good`, `test/*`, `ground_truth/*`.

    The folder appears complete or not at all. It replaces only a folder that this function wrote before.

    Args:
        root: Folder to write.
        kind: Kind of part, one of `KINDS`.
        n_train: Number of good images to train on, at least 1.
        n_good: Number of good images to test.
        n_defect: Number of defective images to test, all kinds of defects together; the kinds alternate.
        seed: Seed of the parts and defects, 0 or more.
        size_px: Height and width of the PNG images, in pixels, at least 64.

    Raises:
        InputError: The kind is unknown, a number is out of range, or `root` holds other files.
        EdgeadError: The folder cannot be written.
    """
    if kind not in KINDS:
        raise InputError(f"part kind {kind!r} is unknown", hint=f"give one of {', '.join(KINDS)}")
    _check_numbers(n_train, n_good, n_defect, seed, size_px)
    root = Path(root)
    if not (root / _RECORD).is_file():
        check_empty(root, "synthetic parts", hidden_too=True)

    def part(split: int, index: int) -> tuple[Part, np.random.Generator]:
        rng = np.random.default_rng([seed, split, index])
        return render_part(kind, rng, size_px), rng

    with replace_directory(root) as folder:
        for index in range(n_train):
            _write(folder / "train" / GOOD / f"{index:03d}.png", part(_TRAIN, index)[0].image)
        for index in range(n_good):
            _write(folder / "test" / GOOD / f"{index:03d}.png", part(_TEST_GOOD, index)[0].image)
        for index in range(n_defect):
            defect, number = DEFECTS[index % len(DEFECTS)], index // len(DEFECTS)
            good, rng = part(_TEST_DEFECT, index)
            image, mask = add_defect(good.image, defect, rng, good.outline)
            _write(folder / "test" / defect / f"{number:03d}.png", image)
            _write(folder / "ground_truth" / defect / f"{number:03d}_mask.png", _image_of(mask))
        record = {
            "kind": kind,
            "train": n_train,
            "good": n_good,
            "defect": n_defect,
            "seed": seed,
            "size_px": size_px,
        }
        (folder / _RECORD).write_text(json_text(record), encoding="utf-8")


def _check_numbers(n_train: int, n_good: int, n_defect: int, seed: int, size_px: int) -> None:
    """Raise InputError if a number of a dataset is out of range."""
    if n_train < 1 or n_good < 0 or n_defect < 0 or size_px < SIZE_MIN_PX or seed < 0:
        raise InputError(
            f"{n_train} images to train on, {n_good} good and {n_defect} defects to test, {size_px} px, "
            f"seed {seed}",
            hint=f"give at least 1, 0, 0, {SIZE_MIN_PX} and 0",
        )


def _image_of(mask: BoolArray) -> UInt8Array:
    return np.repeat(mask[..., np.newaxis].astype(np.uint8) * 255, 3, axis=2).astype(np.uint8, copy=False)


def _write(path: Path, image: UInt8Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Python writes the file, because it reports a full disk; OpenCV's imwrite only returns False.
    _, data = cv2.imencode(".png", image[..., ::-1])
    path.write_bytes(data.tobytes())
