"""Promised and actual false-alarm rate of each rule that chooses the held-out images, over many seeded draws.

    OMP_NUM_THREADS=1 python benchmarks/hold_out.py --data ../shared/data --cache /tmp/features

A draw takes 50, 90 or 200 good images of a part at random. A rule divides them into training images and held-out
images, a student is fitted, and the held-out scores set the threshold, as in a training. Up to 100 of the other good
images then give the actual false-alarm rate, and up to 40 defects give the recall. No rule sees them.

So that 200 draws take minutes, the student has a closed form: 64 principal components of the default teacher's
features (strides 4, 8 and 16 joined on a grid of stride 16, each channel in units of its spread). The score is the
largest cosine distance between the features and their projection. The results are written to hold_out.json in
benchmarks/results/, part by part, and printed as the tables of hold_out.md.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import betabinom, binomtest, rankdata
from torch.nn.functional import avg_pool2d

from edgead.data import Sample, load_images, open_dataset
from edgead.files.parsing import write_json
from edgead.imaging.preprocess import ModelSize
from edgead.models.components.teacher import DEFAULT_TEACHER, create_teacher
from edgead.scoring.threshold import smallest_rate, threshold_from_normal_scores

RESULTS = Path(__file__).parent / "results"
PARTS = ("screw", "transistor", "magnetic_tile")
SIZES = (50, 90, 200)
RATES = (0.01, 0.1)
SHARES = {"a tenth": 0.1, "a fifth": 0.2, "a third": 1 / 3}
FOLDS = {"cross-fitted, 5 folds": 5, "cross-fitted, 10 folds": 10}
MOST_UNSEEN, MOST_DEFECTS = 100, 40
COMPONENTS = 64
CONFIDENCE = 0.95
SEED = 20261129

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Part:
    """Features of one part: (N, positions, channels) of all good images and all defects."""

    good: Array
    defects: Array

    @property
    def moments(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Sums over the positions of each good image: (N, channels) and (N, channels, channels)."""
        first = self.good.sum(1, dtype=np.float64)
        return first, np.stack([(x.T @ x).astype(np.float64) for x in self.good])


def features(data: Path, cache: Path) -> Part:
    """Compute the features of a part once, and keep them on disk.

    Args:
        data: Folder of the dataset.
        cache: Folder of the stored features.

    Returns:
        The features.
    """
    file = cache / f"{data.name}.npz"
    if not file.exists():
        dataset = open_dataset(data)
        good = [*dataset.train, *(sample for sample in dataset.test if sample.label == 0)]
        bad = [sample for sample in dataset.test if sample.label == 1]
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(file, good=_features_of(good), defects=_features_of(bad))
    with np.load(file) as stored:
        defects = stored["defects"]
        chosen = np.linspace(0, len(defects) - 1, min(MOST_DEFECTS, len(defects))).round().astype(int)
        return Part(stored["good"], defects[chosen])


@torch.no_grad()
def _features_of(samples: list[Sample]) -> Array:
    teacher, found = create_teacher(DEFAULT_TEACHER, "package"), []
    for start in range(0, len(samples), 16):
        images = load_images(samples[start : start + 16], ModelSize.parse("256")).images
        fine, middle, coarse = teacher(torch.from_numpy(images))
        joint = torch.cat([avg_pool2d(fine, 4), avg_pool2d(middle, 2), coarse], 1)
        found.append(joint.flatten(2).transpose(1, 2).numpy())
    return np.concatenate(found)


class Student:
    """Principal components of the features of some good images."""

    def __init__(self, first: npt.NDArray[np.float64], second: npt.NDArray[np.float64], count: int) -> None:
        self.mean = first / count
        covariance = second / count - np.outer(self.mean, self.mean)
        self.spread = np.sqrt(np.diag(covariance))
        _, vectors = np.linalg.eigh(covariance / np.outer(self.spread, self.spread))
        self.axes = vectors[:, -COMPONENTS:]

    def scores(self, x: Array, squares: Array) -> Array:
        """Compute the largest cosine distance between features and their projection in each image.

        Args:
            x: Features (N, positions, channels).
            squares: Squares of x.

        Returns:
            Scores (N,).
        """
        # With u = x / spread and m = mean / spread, the projection is p = m + A A^T (u - m).
        m = self.mean / self.spread
        offset = self.axes.T @ m
        weights = np.column_stack([self.axes, m, self.axes @ offset]) / self.spread[:, None]
        found = x.reshape(-1, x.shape[2]) @ weights.astype(np.float32)
        on_axes, along_mean, along_offset = found[:, :COMPONENTS], found[:, -2], found[:, -1]
        energy = np.einsum("ij,ij->i", on_axes, on_axes)
        dot = along_mean + energy - along_offset
        projected = float(m @ m - offset @ offset) + energy
        length = squares.reshape(-1, x.shape[2]) @ (self.spread**-2).astype(np.float32)
        distance = 1 - dot / np.sqrt(length * projected)
        scores: Array = distance.reshape(len(x), -1).max(1)
        return scores


class Draws:
    """Draws of one part.

    Args:
        part: Features of the part.
    """

    def __init__(self, part: Part) -> None:
        self.good, self.defects = part.good, part.defects
        self.good_squares, self.defect_squares = part.good**2, part.defects**2
        self.first, self.second = part.moments

    def fit(self, images: npt.NDArray[np.intp]) -> Student:
        """Fit a student on some good images."""
        return Student(
            self.first[images].sum(0), self.second[images].sum(0), len(images) * self.good.shape[1]
        )

    def draw(self, n: int, seed: int) -> Iterator[tuple[str, dict[str, Array]]]:
        """Draw n good images and try every rule on them.

        Args:
            n: Number of good images.
            seed: Seed of the draw.

        Yields:
            Name of the rule, and the scores of held-out images, of unseen good images and of defects.
        """
        order = np.random.default_rng((SEED, n, seed)).permutation(len(self.good))[: n + MOST_UNSEEN]
        drawn = order[:n]
        x, squares = self.good[order], self.good_squares[order]

        def outside(student: Student) -> dict[str, Array]:
            """Score the images that no rule sees."""
            return {
                "unseen": student.scores(x[n:], squares[n:]),
                "defects": student.scores(self.defects, self.defect_squares),
            }

        refitted = outside(self.fit(drawn))
        for name, share in SHARES.items():
            count = round(share * n)
            student = self.fit(drawn[count:])
            held_out = student.scores(x[:count], squares[:count])
            yield name, {"held_out": held_out, **outside(student)}
        yield f"{name}, then refitted on all", {"held_out": held_out, **refitted}
        images = x[:n], squares[:n], self.first[drawn], self.second[drawn]
        for name, folds in FOLDS.items():
            yield name, {"held_out": _crossed(*images, folds), **refitted}


def _crossed(x: Array, squares: Array, first: Array, second: Array, folds: int) -> Array:
    """Score each image with a student of the images in the other folds."""
    scores, total = [], (first.sum(0), second.sum(0))
    for fold in np.array_split(np.arange(len(x)), folds):
        inside = slice(fold[0], fold[-1] + 1)
        student = Student(
            total[0] - first[inside].sum(0),
            total[1] - second[inside].sum(0),
            (len(x) - len(fold)) * x.shape[1],
        )
        scores.append(student.scores(x[inside], squares[inside]))
    return np.concatenate(scores)


def outcome(scores: dict[str, Array], rate: float) -> dict[str, float]:
    """Set the threshold for a rate and count what it does on unseen images.

    Args:
        scores: Scores of held-out images, unseen good images and defects.
        rate: False-alarm rate that is asked for.

    Returns:
        Figures of the draw.
    """
    held_out, unseen, defects = scores["held_out"], scores["unseen"], scores["defects"]
    n = len(held_out)
    threshold = threshold_from_normal_scores(held_out, rate, CONFIDENCE)
    promised = max(rate, smallest_rate(n, CONFIDENCE))
    above = int((held_out > threshold.value).sum())
    alarms = int((unseen > threshold.value).sum())
    allowed = int(np.floor(promised * len(unseen) + 1e-9))
    ranks = rankdata(np.concatenate([unseen, defects]))[len(unseen) :]
    pairs = ranks.sum() - len(defects) * (len(defects) + 1) / 2
    return {
        "held_out": n,
        "promised": promised,
        "actual": alarms / len(unseen),
        "kept": alarms <= allowed,
        # The number of alarms has this distribution if held-out and unseen scores are exchangeable, and all differ.
        "expected": float(betabinom.cdf(allowed, len(unseen), above + 1, n - above)),
        "recall": float((defects > threshold.value).mean()),
        "auroc": float(pairs / len(unseen) / len(defects)),
    }


def summary(rows: list[dict[str, float]], exact: bool) -> dict[str, Any]:
    """Join the outcomes of all draws.

    Args:
        rows: Outcomes.
        exact: Whether the rule scores held-out and unseen images with one student, so that `expected` is proven.

    Returns:
        Figures of the rule.
    """
    column = {key: np.array([row[key] for row in rows], dtype=float) for key in rows[0]}
    kept, expected = int(column["kept"].sum()), float(column["expected"].mean())
    return {
        "held_out": int(column["held_out"][0]),
        "promised": float(column["promised"][0]),
        "actual_mean": float(column["actual"].mean()),
        "actual_95": float(np.quantile(column["actual"], 0.95)),
        "kept": kept / len(rows),
        "kept_expected": expected,
        "expected_is_proven": exact,
        # Probability of so few kept promises, or fewer, if each draw kept its promise with the expected probability.
        "p_value": float(binomtest(kept, len(rows), expected, alternative="less").pvalue),
        "recall_mean": float(column["recall"].mean()),
        "recall_spread": float(column["recall"].std(ddof=1)),
        "auroc_mean": float(column["auroc"].mean()),
    }


def measure(part: Part, draws: int) -> list[dict[str, Any]]:
    """Measure every rule on one part.

    Args:
        part: Features of the part.
        draws: Number of draws of each size.

    Returns:
        One row for each number of images, rate and rule.
    """
    source, rows = Draws(part), []
    for n in SIZES:
        found: dict[tuple[float, str], list[dict[str, float]]] = defaultdict(list)
        for seed in range(draws):
            for rule, scores in source.draw(n, seed):
                for rate in RATES:
                    found[rate, rule].append(outcome(scores, rate))
        for (rate, rule), outcomes in sorted(found.items(), key=lambda item: item[0][0]):
            rows.append({"images": n, "rate": rate, "rule": rule, **summary(outcomes, rule in SHARES)})
        print(f"\n{table([row for row in rows if row['images'] == n])}", flush=True)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Return a Markdown table of one part.

    Args:
        rows: Rows of `measure`.

    Returns:
        Text of several lines.
    """
    head = (
        "images", "rate", "rule", "held out", "promised", "actual, mean", "actual, 95 % of draws", "promise kept",
        "expected", "recall", "image AUROC",
    )  # fmt: skip
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in rows:
        cells = [row["images"], f"{row['rate']:g}", row["rule"], row["held_out"]]
        cells += [f"{row[key]:.3f}" for key in ("promised", "actual_mean", "actual_95")]
        cells.append(f"{row['kept']:.3f}" + (" (!)" if row["p_value"] < 0.01 else ""))
        expected = f"{row['kept_expected']:.3f}"
        cells.append(expected if row["expected_is_proven"] else f"({expected})")
        cells += [f"{row['recall_mean']:.3f} ± {row['recall_spread']:.3f}", f"{row['auroc_mean']:.3f}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def read_arguments(description: str | None) -> tuple[argparse.Namespace, dict[str, Any]]:
    """Read the command line of a study of draws.

    Args:
        description: Description of the study.

    Returns:
        Arguments, and the record of how the study was made, which begins its results. The folder of the results exists.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with one folder per part")
    parser.add_argument("--parts", nargs="+", default=list(PARTS))
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--cache", type=Path, required=True, help="folder for the features of the teacher")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    about = {
        "command": " ".join(["python", *sys.argv]),
        "machine": f"{platform.machine()}, 1 thread",
        "versions": {name: version(name) for name in ("edgead", "numpy", "scipy", "torch", "timm")},
        "seed": SEED,
        "draws": arguments.draws,
    }
    arguments.out.mkdir(exist_ok=True)
    return arguments, about


def main() -> None:
    """Measure all parts, and write the tables."""
    arguments, about = read_arguments(__doc__)
    found = {}
    for name in arguments.parts:
        print(f"\n{name}", flush=True)
        found[name] = measure(features(arguments.data / name, arguments.cache), arguments.draws)
        write_json(arguments.out / "hold_out.json", {**about, "parts": found})


if __name__ == "__main__":
    main()
