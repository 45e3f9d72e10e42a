"""Training of a method in closed form: one pass through the good images, then the choice of its capacity.

The pass does not determine how much of the teacher's features the student may reconstruct. A student that reconstructs
too little calls good parts defective, and one that reconstructs too much reconstructs defects too. So defects are drawn
onto held-out good images, and the capacity is kept at which they raise the score by the largest factor. No test image
takes part.

The pass takes no longer than a few epochs of another method, so there is no checkpoint: an interrupted training starts
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

from edgead.data.synthetic.dataset import DEFECTS, add_defect
from edgead.errors import TrainingError
from edgead.models.closed_form import ClosedFormMethod
from edgead.training.loop import Fitted, TrainingImages
from edgead.training.session import TorchSession
from edgead.types import Float64Array, UInt8Array

_log = logging.getLogger(__name__)

# The other kinds of defects take part in the check for a collapse alone, see `edgead.training.sanity`.
KINDS = DEFECTS[:3]
DRAWN_DEFECTS = 60
# Scores below this count as equal to it, because zero has no logarithm.
SMALLEST_SCORE = 1e-6


@torch.no_grad()
def fit_closed_form(
    method: ClosedFormMethod, images: TrainingImages, batch_size: int, seed: int, device: torch.device
) -> Fitted:
    """Compute the student of a method in closed form, and choose its capacity.

    Args:
        method: The method. Its student is computed in place, its teacher never changes.
        images: Images to train on, and held-out images.
        batch_size: Number of images in a batch; it limits the memory and changes the result by rounding only.
        seed: Seed of the drawn defects.
        device: Device of the pass.

    Returns:
        Losses of a student that gives the same features for every image, and of the chosen one, as of one epoch.

    Raises:
        TrainingError: The held-out loss is not finite.
    """
    started_at = time.monotonic()
    method.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    method.eval()
    _log.info("computing the student from %d good images in one pass", len(images.train))
    batches = (batch.to(device) for batch in torch.split(images.train, batch_size))
    method.finish_stage((batch, method.teacher_features(batch)) for batch in batches)
    gains = score_gains(method, images.holdout, seed)
    chosen = method.capacities[int(gains.argmax())]
    loss_before, holdout_loss = _mean_losses(method, images.holdout, (0.0, chosen))
    method.set_capacity(chosen)
    if not math.isfinite(holdout_loss):
        raise TrainingError(
            f"the held-out loss is {holdout_loss}", hint="give another --teacher or other --teacher-weights"
        )
    _log.info(
        "capacity %g: defects drawn onto held-out images raise the score by a factor of %.2f",
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
    return Fitted([loss_before], [row])


def score_gains(method: ClosedFormMethod, images: Tensor, seed: int) -> Float64Array:
    """Measure how much drawn defects raise the score of good images, for each capacity.

    Each score is compared with the score of the same image without a defect, so that parts and images with different
    usual scores count alike.

    Args:
        method: A method after `finish_stage`, in evaluation mode.
        images: Held-out good images, (N, H, W, 3) uint8 RGB, on the host.
        seed: Seed of the defects.

    Returns:
        Mean logarithm of the ratio of the two scores, for each of the method's capacities.
    """
    rng, session = np.random.default_rng(seed), TorchSession(method)
    device = next(method.parameters()).device

    def log_scores(image: UInt8Array) -> Float64Array:
        """Logarithm of the score of an image (H, W, 3), for each capacity."""
        features = method.teacher_features(torch.from_numpy(image[None]).to(device))
        scores = []
        for capacity in method.capacities:
            method.set_capacity(capacity)
            scores.append(session.infer_from(image[None], features).anomaly_score[0])
        return np.log(np.maximum(scores, SMALLEST_SCORE), dtype=np.float64)

    # Spread over the images of all parts, which lie part after part.
    chosen = images[torch.linspace(0, len(images) - 1, min(len(images), DRAWN_DEFECTS)).long()].numpy()
    good = [log_scores(image) for image in chosen]
    gains = []
    for number in range(DRAWN_DEFECTS):
        at = number % len(chosen)
        changed, _ = add_defect(chosen[at], KINDS[number % len(KINDS)], rng)
        gains.append(log_scores(changed) - good[at])
    mean: Float64Array = np.mean(gains, axis=0)
    return mean


def _mean_losses(method: ClosedFormMethod, images: Tensor, capacities: Sequence[float]) -> list[float]:
    """Mean loss over images (N, H, W, 3) uint8 on the host, for each capacity. It changes the capacity."""
    device, losses = next(method.parameters()).device, np.zeros(len(capacities))
    for image in images:
        batch = image[None].to(device)
        features = method.teacher_features(batch)
        for number, capacity in enumerate(capacities):
            method.set_capacity(capacity)
            losses[number] += float(method(batch, features))
    return [float(loss) for loss in losses / len(images)]
