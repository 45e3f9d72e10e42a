"""What single steps of the training of RD give, each against the same training without it.

    python benchmarks/accuracy_steps.py ../shared/data/screw --changes none denoising --seeds 0 1 2
    python benchmarks/accuracy_steps.py ../shared/data/transistor --changes none --shares 0 0.25 0.5 1
    python benchmarks/accuracy_steps.py ../shared/data/screw --teacher mobilenetv2_100 --teacher-weights FILE

The images are those of `edgead train` with its defaults, and so is the training, with half as many epochs. The
student is trained on features that the teacher computes once. A line has the held-out loss for each position and the
image AUROC of faint drawn defects, which need no label, and the image and pixel AUROC of the test images.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from accuracy_students import FINE_STRIDES, students
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from edgead.data import Dataset, open_dataset
from edgead.data.pseudo_anomalies.draem import pseudo_anomalies
from edgead.data.pseudo_anomalies.textures import ProceduralTextures
from edgead.data.synthetic.defects import DEFECTS, add_defect
from edgead.evaluation.dataset_scores import score_dataset
from edgead.evaluation.evaluate import evaluate
from edgead.export.cost import cost_of
from edgead.export.from_torch import onnx_from_method
from edgead.imaging.preprocess import ModelSize
from edgead.models import create_method, rd
from edgead.models.base import DistillationMethod
from edgead.models.components.head import cosine_map
from edgead.models.components.teacher import DEFAULT_TEACHER, STRIDES, create_teacher
from edgead.scoring.metrics import auroc
from edgead.training.alignment import alignment_from_spread, alignment_spread
from edgead.training.images import log_budget, read_images
from edgead.training.scale_weights import scale_weights, spread_images
from edgead.training.session import TorchSession

Features = list[Tensor]

DISTURBED = 4
"""Disturbed copies of each image, of `denoising`; as many images of a batch are as they are."""

DECAY = 0.99
"""Of `averaged`: share of the old mean of the weights that a step keeps, so about 100 steps are averaged."""

EASY_SHARE, EASY_GRADIENT = 0.9, 0.1
"""Of `easy-scaled`: share of the positions of a batch and scale that are easy, and what their gradient is multiplied by
(Guo et al., "ReContrast", NeurIPS 2023, and "Dinomaly", CVPR 2025, whose loss is flattened, too)."""

FAINT, FAINT_CONTRAST = 100, 0.25
"""Number of drawn defects, and the share of their contrast."""


class Change(NamedTuple):
    """One step of the training; the fields are the defaults of `rd`."""

    batch: int = 4
    turns: int = 1
    disturbed: bool = False
    averaged: bool = False
    loss: str = "hard-positions"
    easy_scaled: bool = False
    components: bool = False
    strides: tuple[int, ...] = STRIDES
    size_px: int = 256
    narrow: bool = False


CHANGES = {
    "none": Change(),
    "batches-of-16": Change(batch=16),
    "turns": Change(turns=4),
    "denoising": Change(disturbed=True),
    "averaged": Change(averaged=True),
    "per-position": Change(loss="per-position"),
    "flattened": Change(loss="flattened"),
    "easy-scaled": Change(loss="flattened", easy_scaled=True),
    "components": Change(components=True),
    "stride-2": Change(strides=FINE_STRIDES),
    "narrow-320": Change(size_px=320, narrow=True),
}


class Part(NamedTuple):
    """Images (N, H, W, 3) uint8 of a part, of one size."""

    dataset: Dataset
    size: ModelSize
    good: np.ndarray
    held_out: np.ndarray
    faint: np.ndarray


class Views(NamedTuple):
    """Features of all images in several views: what the student sees, and what it has to reproduce."""

    seen: list[Features]
    wanted: list[Features]


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


def views_of(method: DistillationMethod, good: np.ndarray, change: Change, seed: int) -> Views:
    """Compute the features of the training images, in each turn, or as they are and disturbed."""
    turned = [features_of(method, np.rot90(good, turn, (1, 2))) for turn in range(change.turns)]
    if not change.disturbed:
        return Views(turned, turned)
    rng = np.random.default_rng(seed)
    copies = [pseudo_anomalies(good, ProceduralTextures(), rng)[0] for _ in range(DISTURBED)]
    return Views(turned * DISTURBED + [features_of(method, copy) for copy in copies], turned * 2 * DISTURBED)


def drawn_views(views: list[Features], drawn: Tensor, numbers: Tensor) -> Features:
    """Return a batch with the drawn view of each image."""
    singles = [batch_of(views[int(view)], number[None]) for view, number in zip(drawn, numbers, strict=True)]
    return [torch.cat(scale) for scale in zip(*singles, strict=True)]


def batches(views: Views, batch: int, steps: int, seed: int) -> Iterator[tuple[Features, Features]]:
    """Draw batches: the images in a random order, each in a random view."""
    count, generator = len(views.seen[0][0]), torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        if len(order) < batch:
            order = torch.randperm(count, generator=generator)
        numbers, order = order[:batch], order[batch:]
        drawn = torch.randint(len(views.seen), (batch,), generator=generator)
        yield drawn_views(views.seen, drawn, numbers), drawn_views(views.wanted, drawn, numbers)


@torch.no_grad()
def start_at_components(method: DistillationMethod, features: Features) -> None:
    """Let the last convolution of each scale begin at the mean and the principal components of its features."""
    for output, scale in zip(method.decoder.outputs, reversed(features), strict=True):
        vectors = scale.float().permute(1, 0, 2, 3).flatten(1)
        variances, directions = torch.linalg.eigh(torch.cov(vectors))
        output.weight.zero_()
        output.weight[:, : len(directions), 0, 0] = (directions * variances.clamp_min(0.0).sqrt()).flip(1)
        output.bias.copy_(vectors.mean(1))


def scale_easy_gradients(wanted: Features, found: Features) -> None:
    """Let the positions that the student already reconstructs well pull on it less."""
    for teacher, student in zip(wanted, found, strict=True):
        distance = cosine_map(teacher, student.detach())
        factor = torch.where(distance < distance.quantile(EASY_SHARE), EASY_GRADIENT, 1.0)[:, None]
        student.register_hook(lambda gradient, factor=factor: gradient * factor)


def train(method: DistillationMethod, views: Views, change: Change, epochs: int, seed: int) -> float:
    """Train the student; return the CPU time of the steps, in seconds."""
    steps = epochs * len(views.seen[0][0]) // change.batch
    optimizer = method.optimizer(method.hyperparameters.learning_rate)
    scheduler = method.scheduler(optimizer, steps)
    averaged = AveragedModel(method, multi_avg_fn=get_ema_multi_avg_fn(DECAY), use_buffers=True)
    method.train()
    began = time.process_time()
    for seen, wanted in batches(views, change.batch, steps, seed):
        optimizer.zero_grad()
        found = method.student_features(torch.empty(0), seen)
        if change.easy_scaled:
            scale_easy_gradients(wanted, found)
        method.loss(wanted, found).backward()
        optimizer.step()
        scheduler.step()
        if change.averaged:
            averaged.update_parameters(method)
    if change.averaged:
        method.load_state_dict(averaged.module.state_dict())
    return time.process_time() - began


@torch.no_grad()
def end(method: DistillationMethod, features: Features, good: np.ndarray) -> None:
    """Set the usual features of aligned parts and the weights of the scales, as the end of a training does."""
    method.eval()
    method.finish_stage(
        (torch.empty(len(numbers)), batch_of(features, numbers))
        for numbers in torch.arange(len(features[0])).split(16)
    )
    method.head = replace(method.head, weights=scale_weights(method, spread_images([good])))


@torch.no_grad()
def held_out_loss(method: DistillationMethod, features: Features) -> float:
    """Return the mean cosine distance over images and positions, summed over the scales."""
    losses = []
    for number in range(len(features[0])):
        teacher = batch_of(features, torch.tensor([number]))
        student = method.student_features(torch.empty(0), teacher)
        losses.append(sum(float(cosine_map(t, s).mean()) for t, s in zip(teacher, student, strict=True)))
    return float(np.mean(losses))


def faint_defects(images: np.ndarray) -> np.ndarray:
    """Draw defects of a part of their contrast on images, the kinds in turn, the same ones for every training."""
    rng, found = np.random.default_rng(0), []
    for number in range(FAINT):
        image = images[number % len(images)]
        drawn = add_defect(image, DEFECTS[number % len(DEFECTS)], rng)[0]
        found.append(image + FAINT_CONTRAST * (drawn.astype(np.float32) - image))
    return np.rint(np.stack(found)).astype(np.uint8)


def faint_auroc(session: TorchSession, part: Part) -> float:
    """Return the image AUROC of the faint defects against the held-out images."""
    images = np.concatenate([part.held_out, part.faint])
    scores = session.infer(images).anomaly_score
    return auroc(scores, np.arange(len(images)) >= len(part.held_out))


def part_of(dataset: Dataset, size: ModelSize, seed: int) -> Part:
    """Read the images of a part, and draw defects on those that are held out."""
    read = read_images(dataset, size, seed, False, log_budget(dataset, "auto", 0.01))
    held_out = np.asarray(read.held_out.images)
    return Part(dataset, size, np.asarray(read.trained.images), held_out, faint_defects(held_out))


def measure(part: Part, options: argparse.Namespace, change: Change, seed: int) -> Iterator[str]:
    """Train one student, and describe it with each share of usual features."""
    torch.manual_seed(seed)
    alignment = alignment_from_spread(
        alignment_spread(
            create_teacher(options.teacher, options.teacher_weights),
            torch.from_numpy(part.good),
            torch.from_numpy(part.held_out),
        )
    )
    teacher = create_teacher(options.teacher, options.teacher_weights, change.strides)
    with students(change.strides, change.narrow):
        method = create_method("rd", teacher, part.size, change.loss, alignment)
        views, watched = views_of(method, part.good, change, seed), features_of(method, part.held_out)
        if change.components:
            start_at_components(method, views.wanted[0])
        seconds = train(method, views, change, options.epochs, seed)
        for share in options.shares if alignment == "aligned" else [0.0]:
            rd.USUAL_SHARE = share
            method.begin_stage([])
            end(method, views.wanted[0], part.good)
            session = TorchSession(method)
            evaluation = evaluate(score_dataset(session, part.dataset.test, part.size), None)
            operations = cost_of(onnx_from_method(method, part.size)).flop
            yield (
                f"{alignment}, {operations / 1e9:.2f} GFLOP, share {share:g}, {seconds:.0f} CPU s, "
                f"held-out loss {held_out_loss(method, watched):.4f}, faint {faint_auroc(session, part):.4f}, "
                f"image {evaluation.image_auroc:.4f}, pixel {evaluation.pixel_auroc:.4f}, "
                f"AUPRO {evaluation.aupro:.4f}"
            )


def main() -> None:
    """Train a student for each change and seed, and print its lines."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder of one part, with test images")
    parser.add_argument("--changes", nargs="+", choices=CHANGES, default=["none"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--teacher", default=DEFAULT_TEACHER)
    parser.add_argument("--teacher-weights", default="package")
    parser.add_argument("--shares", type=float, nargs="+", default=[rd.USUAL_SHARE])
    options = parser.parse_args()
    dataset = open_dataset(options.data)
    for seed, name in product(options.seeds, options.changes):
        change = CHANGES[name]
        part = part_of(dataset, ModelSize.parse(str(change.size_px)), seed)
        for line in measure(part, options, change, seed):
            print(f"{options.data.name} {name} seed {seed}: {line}", flush=True)


if __name__ == "__main__":
    main()
