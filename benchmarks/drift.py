"""Good parts until the alarm of drift, after changes of the light and the lens, and false alarms of good parts.

    python benchmarks/drift.py BUNDLE GOOD_IMAGES [--seeds 10] [--most 3000]
    python benchmarks/drift.py BUNDLE --synthetic KIND [--most 100000]

BUNDLE has the values of the good images of its build. GOOD_IMAGES is a folder of images of good parts. Each stream
takes randomly chosen images of the folder, all with the same change. The line "plain" shows how they differ from the
build without a change. The last lines are streams of simulated values, which are distributed like those of the build.

KIND is the kind of synthetic part that BUNDLE was trained on: the stream then has new synthetic good parts, no part
twice.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from edgead.bundle import Bundle, open_bundle
from edgead.bundle.validation_records import good_values
from edgead.data.synthetic.parts import render_part
from edgead.imaging.decode import read_image
from edgead.imaging.image_statistics import image_statistics
from edgead.imaging.preprocess import ModelSize, batch_from_images
from edgead.runtime import Session, open_session
from edgead.streaming.drift import DriftWatch
from edgead.streaming.watchdogs import RejectWatch
from edgead.types import UInt8Array

Values = Mapping[str, float | None]
SIMULATED_PARTS = 100_000


def blurred(sigma_px: float) -> Callable[[UInt8Array], UInt8Array]:
    """Blur with a standard deviation in pixels of an image of 256 pixels."""
    return lambda image: np.asarray(cv2.GaussianBlur(image, (0, 0), sigma_px * image.shape[0] / 256))


def dusty(image: UInt8Array) -> UInt8Array:
    """Three dark specks of about 1 % of the image's side, always at the same places, as on a lens."""
    image = image.copy()
    side = min(image.shape[:2])
    for x, y in ((0.3, 0.4), (0.6, 0.25), (0.7, 0.7)):
        at = round(x * image.shape[1]), round(y * image.shape[0])
        cv2.circle(image, at, max(1, round(side / 100)), (40, 40, 40), -1, cv2.LINE_AA)
    return image


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
    "three specks of dust": dusty,
}


def parts_until_alarm(watch: DriftWatch, parts: Iterator[tuple[Values, bool]], most: int) -> int | None:
    """Count the parts until the alarm, the rejected ones included; None without an alarm."""
    for number in range(1, most + 1):
        values, rejected = next(parts)
        watch.add(values, rejected=rejected)
        if watch.problem is not None:
            return number
    return None


def parts_until_rejects(rejected: Iterable[bool]) -> int | None:
    """Count the parts until the doubt that a stream with so many rejects has; None without one."""
    watch = RejectWatch()
    for number, one in enumerate(rejected, 1):
        watch.add(one)
        if watch.problem is not None:
            return number
    return None


def score_and_values(session: Session, image: UInt8Array, size: ModelSize) -> tuple[float, Values]:
    """Score an image, and measure it."""
    batch = batch_from_images([image], size)
    score = float(session.infer(batch).anomaly_score[0])
    return score, {"score": score, **image_statistics(batch[0])}


def show_synthetic(bundle: Bundle, kind: str, most: int) -> None:
    """Print the alarm of drift in a stream of new synthetic good parts, and their rejects."""
    (part, threshold), *_ = bundle.manifest.thresholds.items()
    size, watch, alarm, rejected = bundle.manifest.size, DriftWatch(good_values(bundle, part)), None, 0
    with open_session(bundle, threads=1) as session:
        for number in range(most):
            # The datasets of these kinds have other seeds.
            drawn = render_part(kind, np.random.default_rng([1, number]), size.height_px)
            score, values = score_and_values(session, drawn.image, size)
            is_rejected = score > threshold.value
            rejected += is_rejected
            watch.add(values, rejected=is_rejected)
            if watch.problem is not None:
                alarm = number + 1
                break
    reason = "" if watch.problem is None else watch.problem.reason
    print(f"{kind}: parts until the alarm of drift: {alarm} of {most} {reason}; {rejected} rejected")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path, nargs="?")
    parser.add_argument("--synthetic", metavar="KIND", help="kind of synthetic parts, in place of images")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--most", type=int, default=3000)
    chosen = parser.parse_args()
    bundle = open_bundle(chosen.bundle)
    if chosen.synthetic is not None:
        show_synthetic(bundle, chosen.synthetic, chosen.most)
        return
    (part, threshold), *_ = bundle.manifest.thresholds.items()
    reference = good_values(bundle, part)
    images = [read_image(path) for path in sorted(chosen.images.iterdir())]
    print("| change | parts until the alarm of drift | reason | until the alarm of rejects | rejected |")
    print("|---|---|---|---|---|")
    with open_session(bundle, threads=1) as session:
        for name, change in CHANGES.items():
            found: list[tuple[Values, bool]] = []
            for image in images:
                score, values = score_and_values(session, change(image), bundle.manifest.size)
                found.append((values, score > threshold.value))
            counts, rejects, reasons = [], [], set()
            for seed in range(chosen.seeds):
                watch, rng = DriftWatch(reference), np.random.default_rng(seed)
                parts = [found[number] for number in rng.integers(len(found), size=chosen.most)]
                counts.append(parts_until_alarm(watch, iter(parts), chosen.most))
                rejects.append(parts_until_rejects([rejected for _, rejected in parts]))
                reasons |= {watch.problem.reason.partition(":")[0]} if watch.problem is not None else set()
            share = np.mean([rejected for _, rejected in found])
            print(f"| {name} | {counts} | {', '.join(reasons)} | {rejects} | {share:.0%} |", flush=True)
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
            f"| {SIMULATED_PARTS} simulated good parts, {n} images of the build | {counts} | | | |",
            flush=True,
        )


if __name__ == "__main__":
    main()
