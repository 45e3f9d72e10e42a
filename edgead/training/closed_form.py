"""Training of a method in closed form: one pass through the good images, the choice of its capacity, cross-fitting.

The pass does not determine how much of the teacher's features the student may reconstruct. A student that reconstructs
too little calls good parts defective, and one that reconstructs too much reconstructs defects too. So defects are drawn
onto good images, and the capacity is kept at which they raise the score by the largest factor. No test image takes
part.

If the images are cross-fitted, a student without the fold of an image gives every score here, for the choice of the
capacity and for the threshold. The final student is fitted on all images. One capacity is chosen for all folds, so an
image takes part in the choice of the capacity that scores it; benchmarks/results/hold_out.md measures what this leaks.

The passes take no longer than a few epochs of another method, so there is no checkpoint: an interrupted training starts
anew.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from edgead.data.stored_images import Images
from edgead.data.synthetic.dataset import DEFECTS, add_defect
from edgead.errors import TrainingError
from edgead.imaging.framing import Framing
from edgead.models.closed_form import ClosedFormMethod
from edgead.scoring.cross_fitting import SMALLEST_SCORE
from edgead.training.features import host_tensor
from edgead.training.folds import NO_FOLD, Folds, FoldStudents, IntArray
from edgead.training.loop import Fitted, TrainingImages
from edgead.training.session import TorchSession
from edgead.types import Float64Array, UInt8Array

_log = logging.getLogger(__name__)

# The other kinds of defects take part in the check for a collapse alone, see `edgead.training.sanity`.
KINDS = DEFECTS[:3]
DRAWN_DEFECTS = 60


@torch.no_grad()
def fit_closed_form(
    method: ClosedFormMethod, images: TrainingImages, batch_size: int, seed: int, device: torch.device
) -> Fitted:
    """Compute the student of a method in closed form, and choose its capacity.

    Args:
        method: The method. Its student is computed in place, its teacher never changes.
        images: Images to train on, and images that set the threshold.
        batch_size: Number of images in a batch; it limits the memory and changes the result by rounding only.
        seed: Seed of the drawn defects.
        device: Device of the pass.

    Returns:
        Losses of a student that gives the same features for every image, and of the chosen one, as of one epoch; and
        the scores of the images that set the threshold by students without their folds.

    Raises:
        TrainingError: The held-out loss is not finite.
    """
    started_at = time.monotonic()
    method.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    method.eval()
    _log.info("computing the student from %d good images in one pass", len(images.train))
    folds = images.folds or Folds.none(len(images.train), len(images.holdout))
    students = FoldStudents(method, images.train, folds.trained, batch_size)
    gains = score_gains(students, images.holdout, folds.held_out, seed)
    chosen = method.capacities[int(gains.argmax())]
    if images.folds is not None:
        _log.info("scoring each good image with a student that was fitted without it")
    (loss_before, holdout_loss), scores = _outcome(
        students, images.holdout, folds.held_out, chosen, images.framings
    )
    students.fit_without(NO_FOLD)
    method.set_capacity(chosen)
    if not math.isfinite(holdout_loss):
        raise TrainingError(
            f"the held-out loss is {holdout_loss}", hint="give another --teacher or other --teacher-weights"
        )
    _log.info(
        "capacity %g: defects drawn onto good images raise the score by a factor of %.2f",
        chosen,
        math.exp(gains.max()),
    )
    row = {
        "epoch": 1,
        "stage": 0,
        "loss": method.training_loss(),
        "holdout_loss": holdout_loss,
        "learning_rate": 0.0,
        "seconds": time.monotonic() - started_at,
    }
    return Fitted([loss_before], [row], scores)


def score_gains(students: FoldStudents, images: Images | Tensor, folds: IntArray, seed: int) -> Float64Array:
    """Measure how much drawn defects raise the score of good images, for each capacity.

    Each score is compared with the score of the same image without a defect, so that parts and images with different
    usual scores count alike. A student without the fold of the image gives both scores.

    Args:
        students: Students of the training images.
        images: Good images, (M, H, W, 3) uint8 RGB, on the host.
        folds: Fold of each image, (M,).
        seed: Seed of the defects.

    Returns:
        Mean logarithm of the ratio of the two scores, for each of the method's capacities.
    """
    rng, session, method = np.random.default_rng(seed), TorchSession(students.method), students.method

    def log_scores(image: UInt8Array) -> Float64Array:
        """Logarithm of the score of an image (H, W, 3), for each capacity."""
        features = method.teacher_features(torch.from_numpy(image[None]).to(students.device))
        scores = []
        for capacity in method.capacities:
            method.set_capacity(capacity)
            scores.append(session.infer_from(image[None], features).anomaly_score[0])
        return np.log(np.maximum(scores, SMALLEST_SCORE), dtype=np.float64)

    # Spread over the images of all parts, which lie part after part.
    spread = torch.linspace(0, len(images) - 1, min(len(images), DRAWN_DEFECTS)).long()
    good = host_tensor(images, spread).numpy()
    at = np.arange(DRAWN_DEFECTS) % len(good)
    kinds = (KINDS[number % len(KINDS)] for number in range(DRAWN_DEFECTS))
    defects = [add_defect(good[number], kind, rng)[0] for number, kind in zip(at, kinds, strict=True)]
    shown = [*good, *defects]
    folds_of_good = folds[spread.numpy()]
    found = np.empty((len(shown), len(method.capacities)))
    for number in students.each(np.concatenate([folds_of_good, folds_of_good[at]])):
        found[number] = log_scores(shown[number])
    mean: Float64Array = np.mean(found[len(good) :] - found[at], axis=0)
    return mean


def _outcome(
    students: FoldStudents,
    images: Images | Tensor,
    folds: IntArray,
    capacity: float,
    framings: Sequence[Framing],
) -> tuple[tuple[float, float], Float64Array]:
    """Return the mean losses over images (M, H, W, 3) at capacity 0 and at another, and the scores at the other."""
    method, session = students.method, TorchSession(students.method)
    losses, scores = np.zeros(2), np.empty(len(images))
    for number in students.each(folds):
        image = host_tensor(images, slice(number, number + 1))
        batch = image.to(students.device)
        features = method.teacher_features(batch)
        for at, each in enumerate((0.0, capacity)):
            method.set_capacity(each)
            losses[at] += float(method(batch, features))
        prediction = session.infer_from(image.numpy(), features)
        # The score of tiles is not used, because they are not cross-fitted.
        is_one_row = len(framings) == len(images)
        scores[number] = framings[number].join(prediction)[0] if is_one_row else prediction.anomaly_score[0]
    before, after = losses / len(images)
    return (float(before), float(after)), scores
