"""What single steps of the training of RD give: batch size, number of steps, images in four turns, and usual features.

    python benchmarks/accuracy_steps.py ../shared/data/screw --batch 4 --steps 1300
    python benchmarks/accuracy_steps.py ../shared/data/screw --batch 4 --steps 1300 --turns
    python benchmarks/accuracy_steps.py ../shared/data/transistor --batch 4 --steps 900 --shares 0 0.25 0.5 1

The images are those of `edgead train` with its defaults. The student is trained in bfloat16 on features that the
teacher computes once. Each line has the held-out loss per position, which needs no label, and the image and pixel AUROC
of the test images.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgead.data import open_dataset
from edgead.evaluation.dataset_scores import score_dataset
from edgead.evaluation.evaluate import evaluate
from edgead.imaging.preprocess import ModelSize
from edgead.models import create_method, rd
from edgead.models.base import DistillationMethod
from edgead.models.components.head import cosine_map
from edgead.models.components.teacher import DEFAULT_TEACHER, create_teacher
from edgead.training.alignment import alignment_from_spread, alignment_spread
from edgead.training.images import log_budget, read_images
from edgead.training.scale_weights import scale_weights, spread_images
from edgead.training.session import TorchSession

Features = list[Tensor]


def features_of(method: DistillationMethod, images: np.ndarray) -> Features:
    """Compute the teacher's features of images (N, H, W, 3), in float16 to save memory."""
    found = [
        [x.half() for x in method.teacher_features(torch.from_numpy(np.ascontiguousarray(image[None])))]
        for image in images
    ]
    return [torch.cat(scale) for scale in zip(*found, strict=True)]


def batch_of(features: Features, numbers: Tensor) -> Features:
    """Return the features of some images in float32."""
    return [x[numbers].float().contiguous(memory_format=torch.channels_last) for x in features]


def train(method: DistillationMethod, turns: list[Features], batch: int, steps: int, seed: int) -> float:
    """Train the student, and end its stage.

    Args:
        method: Untrained method.
        turns: Features of all images in each turn; an image of a batch is in one turn, drawn at random.
        batch: Images in a batch.
        steps: Number of steps.
        seed: Seed of the order and the turns.

    Returns:
        CPU time of the steps, in seconds.
    """
    count, generator = len(turns[0][0]), torch.Generator().manual_seed(seed)
    optimizer = method.optimizer(method.hyperparameters.learning_rate)
    scheduler = method.scheduler(optimizer, steps)
    method.train()
    began, order = time.process_time(), torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        if len(order) < batch:
            order = torch.randperm(count, generator=generator)
        numbers, order = order[:batch], order[batch:]
        drawn = torch.randint(len(turns), (batch,), generator=generator)
        singles = [batch_of(turns[turn], number[None]) for turn, number in zip(drawn, numbers, strict=True)]
        teacher = [torch.cat(scale) for scale in zip(*singles, strict=True)]
        with torch.autocast("cpu", torch.bfloat16):
            student = method.student_features(torch.empty(0), teacher)
        optimizer.zero_grad()
        method.loss(teacher, [x.float() for x in student]).backward()
        optimizer.step()
        scheduler.step()
    seconds = time.process_time() - began
    end(method, turns[0])
    return seconds


@torch.no_grad()
def end(method: DistillationMethod, features: Features) -> None:
    """Set the usual features of aligned parts, as the end of a training does."""
    method.eval()
    method.finish_stage(
        (torch.empty(len(numbers)), batch_of(features, numbers))
        for numbers in torch.arange(len(features[0])).split(16)
    )


@torch.no_grad()
def held_out_loss(method: DistillationMethod, features: Features) -> float:
    """Return the mean cosine distance over images and positions, summed over the scales."""
    losses = []
    for number in range(len(features[0])):
        teacher = batch_of(features, torch.tensor([number]))
        student = method.student_features(torch.empty(0), teacher)
        losses.append(sum(float(cosine_map(t, s).mean()) for t, s in zip(teacher, student, strict=True)))
    return float(np.mean(losses))


def main() -> None:
    """Train one student and print one line for each share of usual features."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder of one part, with test images")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=1300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--turns", action="store_true", help="train on all four quarter turns")
    parser.add_argument("--shares", type=float, nargs="+", default=[rd.USUAL_SHARE])
    options = parser.parse_args()
    dataset, size = open_dataset(options.data), ModelSize.parse("256")
    part = read_images(dataset, size, options.seed, False, log_budget(dataset, "auto", 0.01))
    good, held_out = part.trained.images, part.held_out.images
    torch.manual_seed(options.seed)
    teacher = create_teacher(DEFAULT_TEACHER, "package")
    alignment = alignment_from_spread(
        alignment_spread(teacher, torch.from_numpy(good), torch.from_numpy(held_out))
    )
    method = create_method("rd", teacher, size, "hard-positions", alignment)
    turns = [features_of(method, np.rot90(good, turn, (1, 2))) for turn in range(4 if options.turns else 1)]
    watched = features_of(method, held_out)
    seconds = train(method, turns, options.batch, options.steps, options.seed)
    for share in options.shares if alignment == "aligned" else [0.0]:
        rd.USUAL_SHARE = share
        end(method, turns[0])
        method.head = replace(method.head, weights=scale_weights(method, spread_images([good])))
        evaluation = evaluate(score_dataset(TorchSession(method), dataset.test, size), None)
        loss = held_out_loss(method, watched)
        print(
            f"{options.data.name} {alignment} batch {options.batch} steps {options.steps} turns {len(turns)} "
            f"share {share:g} seed {options.seed}: {seconds:.0f} s, held-out loss {loss:.4f}, "
            f"image AUROC {evaluation.image_auroc:.4f}, pixel AUROC {evaluation.pixel_auroc:.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
