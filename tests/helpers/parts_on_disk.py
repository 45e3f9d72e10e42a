"""A tiny dataset on disk for the tests of evaluation and report: dark parts, defects as bright rectangles."""

from pathlib import Path

import cv2
import numpy as np

SIZE_PX = 32


DEFECTS = ("dot", "dot", "scratch", "scratch")


def write_parts(root: Path, good: int = 3, defects: tuple[str, ...] = DEFECTS) -> Path:
    """Write a dataset in MVTec layout and return its root; each defect is brighter than the one before."""
    rng = np.random.default_rng(6)
    for index in range(good):
        for split in ("train", "test"):
            _write(root / split / "good" / f"{index:03d}.png", _part(rng))
    for index, defect in enumerate(defects):
        image, mask = _part(rng), np.zeros((SIZE_PX, SIZE_PX), np.uint8)
        mask[4 + index : 9 + index, 6:20] = 255
        image[mask > 0] = 20 + 25 * index
        _write(root / "test" / defect / f"{index:03d}.png", image)
        _write(root / "ground_truth" / defect / f"{index:03d}_mask.png", mask)
    return root


def _part(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 40, (SIZE_PX, SIZE_PX, 3)).astype(np.uint8)


def _write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
