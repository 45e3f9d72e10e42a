"""What the score and the map make of the same features: weights of the scales, smoothing, and the share that scores.

    python benchmarks/scoring.py --data ../shared/data runs/screw-seed0 runs/transistor-seed0 ...

Nothing is trained. The cosine maps of each run are computed once, for the held-out good images, defects drawn on them,
and the labelled test images. Then each way to weigh, smooth and reduce them is judged by image AUROC of drawn defects
against held-out images (what a user has), and by image and pixel AUROC of the test images (for the report). The results
are scoring.json and scoring.md in benchmarks/results/.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Iterator, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgead.data import load_images, open_dataset
from edgead.data.masks import read_mask
from edgead.data.synthetic.dataset import DEFECTS, add_defect
from edgead.files.parsing import write_json
from edgead.imaging.anomaly_map import bilinear_matrix, gaussian_matrix
from edgead.imaging.decode import read_image
from edgead.models.base import DistillationMethod
from edgead.models.components.head import cosine_map
from edgead.scoring.metrics import auroc
from edgead.training.run import Run, open_run
from edgead.training.scale_weights import WEIGHED_IMAGES, scale_weights

RESULTS = Path(__file__).parent / "results"
DRAWN = 120
SIGMAS = (0.0, 1.0, 2.0, 4.0, 6.0)
# 0 is the maximum.
SHARES = (0.0, 0.001, 0.005, 0.01)
QUANTILES = (0.995, 0.9)
# Share of the pixels that count for the pixel AUROC.
SAMPLED = 0.05
SEED = 17


def measure(run: Run, data: Path) -> list[dict[str, Any]]:
    """Judge every way to weigh, smooth and reduce the maps of one run.

    Args:
        run: A run of one part, trained on the dataset.
        data: Folder of the dataset, with test images and masks.

    Returns:
        One row for each way.
    """
    method = run.load_model()
    (held_out,) = (images.images for images in run.holdout_images().values())
    rng = np.random.default_rng(SEED)
    drawn = np.stack(
        [
            add_defect(held_out[number % len(held_out)], DEFECTS[number % len(DEFECTS)], rng)[0]
            for number in range(DRAWN)
        ]
    )
    samples = open_dataset(data).test
    labels = np.array([sample.label for sample in samples])
    tests = load_images(samples, run.size).images
    sampled = rng.random((len(samples), run.size.height_px, run.size.width_px)) < SAMPLED
    defective = _masks(samples, run)[sampled]
    maps = {
        name: cosine_maps(method, images)
        for name, images in (("good", held_out), ("drawn", drawn), ("test", tests))
    }
    equal = (1.0,) * len(maps["good"])
    weights = {"equal": equal}
    if len(equal) > 1:
        training = run.training_images(WEIGHED_IMAGES).images
        weights["weighted"] = scale_weights(method, training) or equal
        weights["quantiles"] = quantile_weights(cosine_maps(method, training))
    rows = []
    for named, factors in weights.items():
        for sigma in SIGMAS:
            fused = {name: fuse(scales, factors, sigma, run) for name, scales in maps.items()}
            pixel = auroc(fused["test"][sampled], defective)
            for share in SHARES:
                good, marked, test = (top(fused[name], share) for name in ("good", "drawn", "test"))
                rows.append(
                    {
                        "weights": named,
                        "sigma": sigma,
                        "share": share,
                        "drawn": auroc(np.r_[good, marked], np.r_[0 * good, 0 * marked + 1].astype(int)),
                        "image": auroc(test, labels),
                        "pixel": pixel,
                    }
                )
    return rows


@torch.no_grad()
def cosine_maps(method: DistillationMethod, images: np.ndarray) -> list[np.ndarray]:
    """Return the cosine maps (N, H_k, W_k) float32 of each scale."""
    found = [
        [
            cosine_map(t, s)[0].numpy()
            for t, s in zip(*method.features(torch.from_numpy(image[None])), strict=True)
        ]
        for image in images
    ]
    return [np.stack(scale) for scale in zip(*found, strict=True)]


def quantile_weights(scales: Sequence[np.ndarray]) -> tuple[float, ...]:
    """Return weights that are inverse to the distance of two quantiles of each scale on good images.

    As Batzner, Heckler & König, "EfficientAD", WACV 2024, section 3.4, normalise their maps; the lower quantile, a
    constant, changes no order of scores.
    """
    inverse = np.array([1.0 / np.subtract(*np.quantile(scale, QUANTILES)) for scale in scales])
    return tuple(float(x) for x in len(inverse) * inverse / inverse.sum())


def fuse(scales: Sequence[np.ndarray], factors: Sequence[float], sigma: float, run: Run) -> np.ndarray:
    """Return the sum of the enlarged and smoothed maps (N, H, W), as the operator computes it."""
    height, width = run.size.height_px, run.size.width_px
    rows, columns = gaussian_matrix(height, sigma), gaussian_matrix(width, sigma)
    parts = [
        factor
        * ((rows @ bilinear_matrix(height, scale.shape[1])) @ scale)
        @ (columns @ bilinear_matrix(width, scale.shape[2])).T
        for scale, factor in zip(scales, factors, strict=True)
    ]
    return np.sum(parts, axis=0, dtype=np.float32)


def top(maps: np.ndarray, share: float) -> np.ndarray:
    """Return the mean of the highest share of each map, the maximum for a share of 0."""
    flat = maps.reshape(len(maps), -1)
    count = max(1, int(share * flat.shape[1]))
    return np.partition(flat, flat.shape[1] - count, axis=1)[:, -count:].mean(axis=1)


def _masks(samples: Sequence[Any], run: Run) -> np.ndarray:
    """Masks (N, H, W) of labelled images at the size of the run, all False for good ones."""
    height, width = run.size.height_px, run.size.width_px
    masks = np.zeros((len(samples), height, width), bool)
    for mask, sample in zip(masks, samples, strict=True):
        if sample.label:
            shape = read_image(sample.path).shape
            full = read_mask(sample, (shape[0], shape[1]))
            rows = np.arange(height) * full.shape[0] // height
            columns = np.arange(width) * full.shape[1] // width
            mask[:] = full[np.ix_(rows, columns)]
    return masks


def _lines(results: dict[str, list[dict[str, Any]]], runs: Sequence[Path]) -> Iterator[str]:
    yield "# The score and the map of the same features"
    yield ""
    yield (
        f"`python benchmarks/scoring.py --data DATA {' '.join(run.name for run in runs)}`, {date.today()}, "
        f"{platform.machine()}, torch {version('torch')}. Each cell: image AUROC of the test images, and of {DRAWN} "
        "drawn defects against the held-out good images in brackets. `weighted` is what a training does, `quantiles` "
        "divides each scale by the distance of two quantiles on good images, as EfficientAD does."
    )
    for name, rows in results.items():
        yield from ("", f"## {name}", "")
        yield "| weights | sigma, px | maximum | top 0.1 % | top 0.5 % | top 1 % | pixel AUROC |"
        yield "|---|---|---|---|---|---|---|"
        for start in range(0, len(rows), len(SHARES)):
            cells = rows[start : start + len(SHARES)]
            scores = " | ".join(f"{cell['image']:.3f} ({cell['drawn']:.3f})" for cell in cells)
            yield f"| {cells[0]['weights']} | {cells[0]['sigma']:g} | {scores} | {cells[0]['pixel']:.4f} |"


def main() -> None:
    """Measure the runs and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the datasets, one for each part")
    parser.add_argument("runs", type=Path, nargs="+")
    arguments = parser.parse_args()
    results = {}
    for path in arguments.runs:
        run = open_run(path)
        (part,) = run.record.parts
        config = run.record.config
        trained = f"{path.name}: {config.epochs} epochs in batches of {config.batch_size}"
        results[trained] = measure(run, arguments.data / part)
        write_json(RESULTS / "scoring.json", results)
        (RESULTS / "scoring.md").write_text("\n".join(_lines(results, arguments.runs)) + "\n")


if __name__ == "__main__":
    main()
