"""Promised and actual false-alarm rate of `--method linear`, cross-fitted as shipped, over many seeded draws.

    OMP_NUM_THREADS=1 python benchmarks/cross_fitting.py --data ../shared/data --cache /tmp/cross_fitting

A draw takes 50, 90 or 200 good images of a part at random, as in hold_out.py. Up to 100 of the other good images then
give the actual false-alarm rate, and up to 40 defects give the recall. No rule sees them.

The student is the shipped one, with the default teacher at 256 pixels: `LinearReconstruction.fit` on moments, the
capacity with the largest gain on drawn defects, the score of the shipped head. Three things differ from a training, for
speed. The features of all images are computed once. A defect of each kind is drawn onto every good image once, and not
anew in each draw. All capacities are scored at once, with the arithmetic of `scores`; it is compared with the model
itself before the first draw. The results are written to cross_fitting.json in benchmarks/results/, part by part, and
printed as the tables of hold_out.md. The outcomes of all draws are kept in the cache; a second start continues.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from hold_out import MOST_DEFECTS, MOST_UNSEEN, RATES, SEED, SIZES, outcome, read_arguments, summary, table

from edgead.data import load_images, open_dataset
from edgead.data.synthetic.dataset import add_defect
from edgead.files.parsing import write_json
from edgead.imaging.preprocess import ModelSize
from edgead.models import create_method
from edgead.models.components.head import AnomalyMapHead
from edgead.models.components.moments import Moments
from edgead.models.components.teacher import DEFAULT_TEACHER
from edgead.models.linear import LinearReconstruction, joined
from edgead.scoring.cross_fitting import FOLDS, SMALLEST_SCORE
from edgead.training.closed_form import DRAWN_DEFECTS, KINDS
from edgead.training.session import TorchSession

SIZE = ModelSize(256, 256)
GRID = 32
THIRD = "a third held out"
SHIPPED = f"cross-fitted, {FOLDS} folds, as shipped"
OTHERS = f"cross-fitted, {FOLDS} folds, capacity chosen on other images"
# The other rules are measured on the first draws only, and the choice on other images for the fewest images, because
# they leave most room for a leak.
DRAWS_OF_OTHERS, MOST_FOR_OTHERS = 20, 50

Array = npt.NDArray[np.float32]
Ints = npt.NDArray[np.intp]


class Features(NamedTuple):
    """Joint features (N, positions, channels) of one part."""

    good: Array
    """All good images."""
    drawn: Array
    """Good images with drawn defects, kind by kind: defect k of image i is number k * N + i."""
    defects: Array


@torch.no_grad()
def features(data: Path, cache: Path) -> Features:
    """Compute the features of a part once, and keep them on disk.

    Args:
        data: Folder of the dataset.
        cache: Folder of the stored features.

    Returns:
        The features.
    """
    files = [cache / f"{data.name}-{name}.npy" for name in Features._fields]
    if not all(file.exists() for file in files):
        cache.mkdir(parents=True, exist_ok=True)
        dataset, method = open_dataset(data), untrained()
        good = load_images(
            [*dataset.train, *(sample for sample in dataset.test if sample.label == 0)], SIZE
        ).images
        bad = [sample for sample in dataset.test if sample.label == 1]
        chosen = np.linspace(0, len(bad) - 1, min(MOST_DEFECTS, len(bad))).round().astype(int)
        drawn = (
            add_defect(image, kind, np.random.default_rng((SEED, number, index)))[0]
            for index, kind in enumerate(KINDS)
            for number, image in enumerate(good)
        )
        for file, images in zip(
            files, (good, drawn, load_images([bad[i] for i in chosen], SIZE).images), strict=True
        ):
            rows = [
                joined(method.teacher_features(torch.from_numpy(image[None])))[0].flatten(1).T.numpy()
                for image in images
            ]
            np.save(file, np.stack(rows))
    return Features(*(np.load(file, mmap_mode="r") for file in files))


def untrained() -> LinearReconstruction:
    """Return the shipped method with the default teacher, before `fit`."""
    teacher = LinearReconstruction.create_teacher(DEFAULT_TEACHER, "package")
    method = create_method("linear", teacher, SIZE, "squared-error").eval()
    assert isinstance(method, LinearReconstruction)
    return method


class Scorer:
    """Scores features with the student of a method, at all of its capacities."""

    def __init__(self) -> None:
        self.method = untrained()
        # The map is linear in the cosine map: one matrix resizes and smooths along each axis.
        head = AnomalyMapHead(self.method.head, [(GRID, GRID)])
        self.rows, self.columns = head.rows_0.numpy(), head.columns_0.numpy()

    def fit(self, moments: Moments) -> None:
        """Fit the student, and prepare the arithmetic of `scores`."""
        method = self.method
        method.fit(moments)
        kept = []
        for capacity in method.capacities:
            method.set_capacity(capacity)
            kept.append(method.kept.flatten().numpy().copy())
        self.left_out = 1.0 - np.column_stack(kept)
        method.set_capacity(0.0)
        self.weights = torch.cat([method.fine.weight, method.coarse.weight], 1).flatten(1).T.numpy()
        self.means = method.means[0].flatten(1).T.numpy().copy()
        self.squared_means = (self.means**2) @ self.left_out

    def scores(self, x: Array, capacity: int | None = None) -> npt.NDArray[np.float64]:
        """Score images.

        Args:
            x: Features (N, positions, channels).
            capacity: Number of a capacity; None for all of them.

        Returns:
            Scores (N, capacities), of one capacity or of all.
        """
        chosen = slice(None) if capacity is None else slice(capacity, capacity + 1)
        return np.concatenate([self._scores(np.asarray(x[i : i + 4]), chosen) for i in range(0, len(x), 4)])

    def _scores(self, x: Array, chosen: slice) -> npt.NDArray[np.float64]:
        components = x @ self.weights
        # The student r has the kept components of t and the means m of the others. So with sums over the others,
        # t.r = t.t - sum of t^2 + sum of t m, and r.r = t.t - sum of t^2 + sum of m^2.
        left_out = self.left_out[:, chosen]
        length = (components**2).sum(2, keepdims=True)
        in_common = length - (components**2) @ left_out
        product = in_common + (components * self.means) @ left_out
        distance = 1 - product / np.sqrt(length * (in_common + self.squared_means[:, chosen]))
        maps = distance.reshape(len(x), GRID, GRID, -1).transpose(0, 3, 1, 2)
        highest: npt.NDArray[np.float64] = (self.rows @ maps @ self.columns).max((2, 3)).astype(np.float64)
        return highest


class Draws:
    """Draws of one part.

    Args:
        part: Features of the part.
        scorer: The student.
    """

    def __init__(self, part: Features, scorer: Scorer) -> None:
        self.part, self.scorer = part, scorer
        self.moments = [self._moments(image) for image in part.good]

    @staticmethod
    def _moments(image: Array) -> Moments:
        moments = Moments((image.shape[1], GRID, GRID), torch.device("cpu"))
        moments.add(torch.from_numpy(np.array(image)).T.reshape(1, -1, GRID, GRID))
        return moments

    def joined(self, images: Ints) -> Moments:
        """Join the moments of some good images."""
        return Moments.joined(self.moments[number] for number in images)

    def gains(self, images: Ints, students: list[Moments]) -> tuple[npt.NDArray[np.float64], Array]:
        """Compute the gain of each capacity as `edgead.training.closed_form.score_gains`, and scores of the images.

        Args:
            images: Good images that defects are drawn onto. Image i has student i modulo the number of students.
            students: Moments of the training images of each student.

        Returns:
            Gains of the capacities, and scores of all images at all capacities.
        """
        spread = np.linspace(0, len(images) - 1, min(len(images), DRAWN_DEFECTS)).astype(int)
        numbers = np.arange(DRAWN_DEFECTS)
        at, kinds = spread[numbers % len(spread)], numbers % len(KINDS)
        drawn = kinds * len(self.part.good) + images[at]
        capacities = len(self.scorer.method.capacities)
        good, bad = np.empty((len(images), capacities)), np.empty((DRAWN_DEFECTS, capacities))
        for number, moments in enumerate(students):
            self.scorer.fit(moments)
            mine = slice(number, None, len(students))
            good[mine] = self.scorer.scores(self.part.good[images[mine]])
            of_mine = at % len(students) == number
            bad[of_mine] = self.scorer.scores(self.part.drawn[drawn[of_mine]]) if of_mine.any() else 0.0
        logs = [np.log(np.maximum(scores, SMALLEST_SCORE)) for scores in (good, bad)]
        return (logs[1] - logs[0][at]).mean(0), good

    def draw(self, n: int, seed: int) -> Iterator[tuple[str, dict[str, npt.NDArray[np.float64]]]]:
        """Draw n good images and try every rule on them.

        Args:
            n: Number of good images.
            seed: Seed of the draw.

        Yields:
            Name of the rule, and the scores of the images that set the threshold, of unseen good images and of defects.
        """
        order = np.random.default_rng((SEED, n, seed)).permutation(len(self.part.good))[: n + MOST_UNSEEN]
        drawn, unseen = order[:n], order[n:]

        if seed < DRAWS_OF_OTHERS:
            third = round(n / 3)
            gains, good = self.gains(drawn[:third], [self.joined(drawn[third:])])
            yield self._rule(THIRD, gains, good, unseen)

        folds = [self.joined(drawn[fold::FOLDS]) for fold in range(FOLDS)]
        gains, good = self.gains(
            drawn, [Moments.joined(folds[:fold] + folds[fold + 1 :]) for fold in range(FOLDS)]
        )
        folded = gains, good
        if n > MOST_FOR_OTHERS or seed >= DRAWS_OF_OTHERS:
            self.scorer.fit(Moments.joined(folds))
        else:
            # The student of these gains is the one of all images.
            others, _ = self.gains(unseen, [Moments.joined(folds)])
            yield self._rule(OTHERS, others, good, unseen)
        yield self._rule(SHIPPED, *folded, unseen)

    def _rule(
        self,
        name: str,
        gains: npt.NDArray[np.float64],
        good: npt.NDArray[np.float64],
        unseen: Ints,
    ) -> tuple[str, dict[str, npt.NDArray[np.float64]]]:
        """Choose the capacity of a rule, and score the images that it does not see with the present student."""
        best = int(gains.argmax())
        return name, {
            "capacity": np.array(self.scorer.method.capacities[best]),
            "held_out": good[:, best],
            "unseen": self.scorer.scores(self.part.good[unseen], best)[:, 0],
            "defects": self.scorer.scores(self.part.defects, best)[:, 0],
        }


def check_arithmetic(data: Path, draws: Draws) -> None:
    """Compare `Scorer.scores` with the model itself on some images, at all capacities.

    Args:
        data: Folder of the dataset.
        draws: Draws of the part.
    """
    draws.scorer.fit(draws.joined(np.arange(20)))
    method = draws.scorer.method
    found = draws.scorer.scores(draws.part.good[:6])
    images = load_images(open_dataset(data).train[:6], SIZE).images
    for number, capacity in enumerate(method.capacities):
        method.set_capacity(capacity)
        expected = TorchSession(method).infer(images).anomaly_score
        np.testing.assert_allclose(found[:, number], expected, rtol=1e-3)
        alone = draws.scorer.scores(draws.part.good[:6], number)
        np.testing.assert_allclose(alone[:, 0], found[:, number], rtol=1e-3)


def outcomes(draws: Draws, count: int, cache: Path) -> list[dict[str, Any]]:
    """Return the outcomes of all draws of one part. Those of an earlier run are read from its file.

    Args:
        draws: Draws of the part.
        count: Number of draws of each size.
        cache: File of the outcomes, one draw a line.
    """
    lines = cache.read_text().splitlines() if cache.exists() else []
    found: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for rows in map(json.loads, lines):
        found[rows[0]["images"], rows[0]["seed"]] = rows
    with cache.open("a") as file:
        for seed, n in itertools.product(range(count), SIZES):
            if (n, seed) not in found:
                found[n, seed] = [
                    {
                        "images": n, "seed": seed, "rate": rate, "rule": rule,
                        "capacity": float(scores["capacity"]), **outcome(scores, rate),
                    }
                    for rule, scores in draws.draw(n, seed)
                    for rate in RATES
                ]  # fmt: skip
                print(json.dumps(found[n, seed], default=bool), file=file, flush=True)
    return [row for (_, seed), rows in found.items() if seed < count for row in rows]


def summaries(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join the outcomes of one part: one row for each number of images, rate and rule."""
    found = []
    for n, rate, rule in itertools.product(SIZES, RATES, (THIRD, SHIPPED, OTHERS)):
        mine = [row for row in rows if (row["images"], row["rate"], row["rule"]) == (n, rate, rule)]
        if mine:
            figures = [
                {key: row[key] for key in row if key not in ("images", "seed", "rule")} for row in mine
            ]
            # The capacity depends on the images that set the threshold, so no rule is proven.
            joined = summary(figures, False)
            capacities = {f"{k:g}": v for k, v in sorted(Counter(row["capacity"] for row in mine).items())}
            found.append(
                {
                    "images": n,
                    "rate": rate,
                    "rule": rule,
                    "draws": len(mine),
                    **joined,
                    "capacities": capacities,
                }
            )
    return found


def main() -> None:
    """Measure all parts, and write the tables."""
    arguments, about = read_arguments(__doc__)
    found = {}
    for name in arguments.parts:
        print(f"\n{name}", flush=True)
        draws = Draws(features(arguments.data / name, arguments.cache), Scorer())
        check_arithmetic(arguments.data / name, draws)
        file = arguments.cache / f"{name}-outcomes.jsonl"
        found[name] = summaries(outcomes(draws, arguments.draws, file))
        print(f"\n{table(found[name])}", flush=True)
        write_json(arguments.out / "cross_fitting.json", {**about, "parts": found})


if __name__ == "__main__":
    main()
