"""Good parts until the alarm of drift, after changes of the light and the lens, and false alarms of good parts.

    python benchmarks/drift.py BUNDLE GOOD_IMAGES [--seeds 10] [--most 3000]

BUNDLE has the values of the good images of its build. GOOD_IMAGES is a folder of images of good parts. Each stream
takes randomly chosen images of the folder, all with the same change. The line "plain" shows how they differ from the
build without a change. The last lines are streams of simulated values, which are distributed like those of the build.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from edgead.bundle import open_bundle
from edgead.bundle.validation_records import good_values
from edgead.imaging.decode import read_image
from edgead.imaging.image_statistics import image_statistics
from edgead.imaging.preprocess import batch_from_images
from edgead.runtime import open_session
from edgead.streaming.drift import DriftWatch
from edgead.types import UInt8Array

Values = Mapping[str, float | None]
SIMULATED_PARTS = 100_000


def blurred(sigma_px: float) -> Callable[[UInt8Array], UInt8Array]:
    """Blur with a standard deviation in pixels of an image of 256 pixels."""
    return lambda image: np.asarray(cv2.GaussianBlur(image, (0, 0), sigma_px * image.shape[0] / 256))


def scaled(factor: float) -> Callable[[UInt8Array], UInt8Array]:
    return lambda image: np.clip(image * factor, 0, 255).astype(np.uint8)


CHANGES: dict[str, Callable[[UInt8Array], UInt8Array]] = {
    "plain": lambda image: image,
    "brightness - 10 %": scaled(0.9),
    "brightness - 5 %": scaled(0.95),
    "brightness + 10 %": scaled(1.1),
    "gamma 1.1": lambda image: np.asarray(255 * (image / 255) ** 1.1).astype(np.uint8),
    "blur of 0.6 px": blurred(0.6),
    "blur of 1 px": blurred(1.0),
}


def parts_until_alarm(watch: DriftWatch, parts: Iterator[tuple[Values, bool]], most: int) -> int | None:
    """Count the parts until the alarm, the rejected ones included; None without an alarm."""
    for number in range(1, most + 1):
        values, rejected = next(parts)
        watch.add(values, rejected=rejected)
        if watch.problem is not None:
            return number
    return None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--most", type=int, default=3000)
    chosen = parser.parse_args()
    bundle = open_bundle(chosen.bundle)
    (part, threshold), *_ = bundle.manifest.thresholds.items()
    reference = good_values(bundle, part)
    images = [read_image(path) for path in sorted(chosen.images.iterdir())]
    print("| change | parts until the alarm | reason | rejected |\n|---|---|---|---|")
    with open_session(bundle, threads=1) as session:
        for name, change in CHANGES.items():
            found: list[tuple[Values, bool]] = []
            for image in images:
                batch = batch_from_images([change(image)], bundle.manifest.size)
                score = float(session.infer(batch).anomaly_score[0])
                found.append(({"score": score, **image_statistics(batch[0])}, score > threshold.value))
            counts, reasons = [], set()
            for seed in range(chosen.seeds):
                watch, rng = DriftWatch(reference), np.random.default_rng(seed)
                chosen_parts = iter(found[number] for number in rng.integers(len(found), size=chosen.most))
                counts.append(parts_until_alarm(watch, chosen_parts, chosen.most))
                reasons |= {watch.problem.reason.partition(":")[0]} if watch.problem is not None else set()
            share = np.mean([rejected for _, rejected in found])
            print(f"| {name} | {counts} | {', '.join(reasons)} | {share:.0%} |", flush=True)
    for n in (30, 300):
        counts = []
        for seed in range(5):
            rng = np.random.default_rng(seed)
            watch = DriftWatch({name: rng.normal(size=n).tolist() for name in reference})
            simulated = (
                (dict(zip(reference, row, strict=True)), False)
                for row in rng.normal(size=(SIMULATED_PARTS, len(reference)))
            )
            counts.append(parts_until_alarm(watch, simulated, SIMULATED_PARTS))
        print(
            f"| {SIMULATED_PARTS} simulated good parts, {n} images of the build | {counts} | | |", flush=True
        )


if __name__ == "__main__":
    main()
