"""How much new images of another light should count in an update of `linear`, and what one image does to its threshold.

    OMP_NUM_THREADS=1 python benchmarks/update_weights.py --data ../shared/data/screw --shifts 1.1 1.0+25 0.8gamma

As in update.py, 50 good images are new and have another light. The moments of the new images count once, or as much as
those of the old ones. All students share the teacher's features, so one shift takes a minute. Each student is compared
on what a training can know: cross-fitted scores of old and new good images, and the share of defects drawn onto good
images that it finds. The counts on the test images are for the report and choose nothing. They are given for the
default threshold, and for a false-alarm rate of 0.1.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from update import NEW, SEED

from edgead.data import load_images, open_dataset
from edgead.data.synthetic.dataset import add_defect
from edgead.imaging.preprocess import ModelSize
from edgead.models import create_method, method_class
from edgead.models.components.moments import Moments
from edgead.models.linear import LinearReconstruction, joined
from edgead.scoring.metrics import auroc
from edgead.scoring.threshold import threshold_from_normal_scores
from edgead.training.closed_form import KINDS
from edgead.training.session import TorchSession
from edgead.types import Float64Array, UInt8Array

FOLDS, DRAWN = 10, 60


def shifted(image: UInt8Array, shift: str) -> UInt8Array:
    """Change the light of an image.

    Args:
        image: (H, W, 3) uint8.
        shift: Gain such as "1.4", gain and offset such as "1.2+25", or exponent such as "0.6gamma".
    """
    values = image.astype(np.float32)
    if shift.endswith("gamma"):
        values = 255 * (values / 255) ** float(shift.removesuffix("gamma"))
    else:
        gain, _, offset = shift.partition("+")
        values = values * float(gain) + float(offset or 0)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


class Student:
    """The student of `linear` and its teacher."""

    def __init__(self, size: ModelSize) -> None:
        torch.manual_seed(0)
        teacher = method_class("linear").create_teacher("tf_efficientnet_lite0", "package")
        method = create_method("linear", teacher, size, LinearReconstruction.losses[0])
        assert isinstance(method, LinearReconstruction)
        self.method, self.session, self.size = method.eval(), TorchSession(method), size

    @torch.no_grad()
    def features(self, image: UInt8Array) -> list[Tensor]:
        """Compute the teacher's features of an image."""
        return self.method.teacher_features(torch.from_numpy(image[None]))

    def score(self, image: UInt8Array, features: list[Tensor]) -> float:
        """Score an image."""
        return float(self.session.infer_from(image[None], features).anomaly_score[0])

    def moments(self, features: list[list[Tensor]]) -> Moments:
        """Collect the moments of images."""
        found = Moments(tuple(self.method._all_means.shape), torch.device("cpu"))
        for one in features:
            found.add(joined(one))
        return found


def weighted(parts: list[tuple[Moments, float]]) -> Moments:
    """Add up moments with weights."""
    total = Moments(tuple(parts[0][0].total.shape), torch.device("cpu"))
    for part, weight in parts:
        total.count += weight * part.count
        total.total += weight * part.total
        total.products += weight * part.products
    return total


def compare(student: Student, data: Path, shifts: list[str]) -> None:
    """Print a row for the student of the old images and for each weight, for each shift."""
    dataset, size = open_dataset(data), student.size
    good = np.asarray(load_images(dataset.train, size).images)
    chosen = random.Random(SEED).sample(sorted(sample.path.name for sample in dataset.train), NEW)
    new = np.array([sample.path.name in chosen for sample in dataset.train])
    test = np.asarray(load_images(dataset.test, size).images)
    defect = np.array([sample.label == 1 for sample in dataset.test])
    fold = np.empty(len(good), int)
    fold[np.random.default_rng(1).permutation(len(good))] = np.arange(len(good)) % FOLDS
    plain, of_test = [student.features(image) for image in good], [student.features(image) for image in test]
    print(
        "| shift | weight | median, 0.9 quantile and largest score: old, new | drawn defects found: old, new "
        "| false alarms and found as they are, brighter | the same at 0.1 | image AUROC |\n"
        + "|---" * 7
        + "|"
    )
    for shift in shifts:
        images = [shifted(image, shift) if is_new else image for image, is_new in zip(good, new, strict=True)]
        features = [
            student.features(image) if is_new else known
            for image, known, is_new in zip(images, plain, new, strict=True)
        ]
        bright = [shifted(image, shift) for image in test]
        of_bright = [student.features(image) for image in bright]
        moments = {
            (number, kind): student.moments(
                [features[at] for at in np.flatnonzero((fold == number) & (new == kind))]
            )
            for number in range(FOLDS)
            for kind in (False, True)
        }
        for weight in (0.0, 1.0, 2.0, (~new).sum() / new.sum()):
            used = np.ones(len(good), bool) if weight else ~new
            scores, drawn, kinds, capacity = cross_fit(
                student, images, features, fold, used, new, moments, weight
            )
            fit(student, moments, weight, None)
            student.method.set_capacity(capacity)
            as_they_are = np.array([student.score(*one) for one in zip(test, of_test, strict=True)])
            brighter = np.array([student.score(*one) for one in zip(bright, of_bright, strict=True)])
            cells = [shift, f"{weight:.2f}"]
            cells.append("; ".join(quantiles(scores[used & (new == kind)]) for kind in (False, True)))
            for rate in (0.01, 0.1):
                level = threshold_from_normal_scores(scores[used], rate).value
                if rate == 0.01:
                    cells.append(
                        ", ".join(
                            f"{(drawn[kinds == k] > level).mean():.2f}"
                            for k in (False, True)
                            if weight or not k
                        )
                    )
                cells.append(
                    f"{level:.4f}: "
                    + ", ".join(counts(one, defect, level) for one in (as_they_are, brighter))
                )
            cells.append(f"AUROC {auroc(as_they_are, defect):.3f}, {auroc(brighter, defect):.3f}")
            print(f"| {' | '.join(cells)} |", flush=True)


def fit(
    student: Student, moments: dict[tuple[int, bool], Moments], weight: float, without: int | None
) -> None:
    """Fit the student without a fold, with a weight of the new images."""
    parts = [(part, weight if key[1] else 1.0) for key, part in moments.items() if key[0] != without]
    student.method.fit(weighted(parts))


def cross_fit(
    student: Student,
    images: list[UInt8Array],
    features: list[list[Tensor]],
    fold: np.ndarray,
    used: np.ndarray,
    new: np.ndarray,
    moments: dict[tuple[int, bool], Moments],
    weight: float,
) -> tuple[Float64Array, Float64Array, np.ndarray, float]:
    """Score each good image, and drawn defects on old and new ones, by students without their fold.

    Returns:
        Scores of the images, scores of the drawn defects, whether each of them is on a new image, and the capacity
        that raises the scores of drawn defects the most.
    """
    rng, capacities = np.random.default_rng(5), student.method.capacities
    on = [
        at
        for kind in (False, True)
        if (used & (new == kind)).any()
        for at in rng.choice(np.flatnonzero(used & (new == kind)), DRAWN)
    ]
    drawn = [add_defect(images[at], KINDS[number % len(KINDS)], rng)[0] for number, at in enumerate(on)]
    of_drawn = [student.features(image) for image in drawn]
    scores, raised = np.zeros((len(images), len(capacities))), np.zeros((len(on), len(capacities)))
    for number in range(FOLDS):
        fit(student, moments, weight, number)
        for column, capacity in enumerate(capacities):
            student.method.set_capacity(capacity)
            for at in np.flatnonzero((fold == number) & used):
                scores[at, column] = student.score(images[at], features[at])
            for row, at in enumerate(on):
                if fold[at] == number:
                    raised[row, column] = student.score(drawn[row], of_drawn[row])
    gains = np.log(raised / scores[on])
    is_new = new[on]
    share = new[used].mean()
    gain = (1 - share) * gains[~is_new].mean(0) + (share * gains[is_new].mean(0) if share else 0)
    best = int(gain.argmax())
    return scores[:, best], raised[:, best], is_new, capacities[best]


def quantiles(values: Float64Array) -> str:
    """Return median, 0.9 quantile and largest value."""
    return ", ".join(f"{value:.4f}" for value in np.quantile(values, [0.5, 0.9, 1])) if len(values) else "-"


def counts(scores: Float64Array, defect: np.ndarray, level: float) -> str:
    """Return the false alarms and the found defects above a threshold."""
    return f"{(scores[~defect] > level).sum()} and {(scores[defect] > level).sum()}"


def main() -> None:
    """Compare the weights on a part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of a part")
    parser.add_argument("--shifts", nargs="+", default=["1.2", "1.4", "1.2+25", "0.6gamma"])
    parser.add_argument("--size", default="256")
    arguments = parser.parse_args()
    compare(Student(ModelSize.parse(arguments.size)), arguments.data, arguments.shifts)


if __name__ == "__main__":
    main()
