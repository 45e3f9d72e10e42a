"""Detect from good images alone whether a training collapsed.

Two failures raise no error. The student may learn nothing, or it may copy the teacher everywhere, defects included
(some published methods do so on some parts). The loss on the held-out images shows the first failure. The second one
shows when defects that are drawn onto these images do not raise the score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgead.data.synthetic.dataset import DEFECTS, add_defect
from edgead.runtime.base import Session
from edgead.types import UInt8Array

# Training must reduce the held-out loss by at least this share.
LEARNT_SHARE = 0.05
# Drawn defects must raise the score more often than chance.
RAISED_SHARE = 0.5
DRAWN_DEFECTS = 40


@dataclass(frozen=True, slots=True)
class Sanity:
    """Figures that show whether a training collapsed.

    Attributes:
        losses: Held-out loss before and after each stage.
        raised_share: Share of drawn defects that raised the score, from 0 to 1.
    """

    losses: Sequence[tuple[float, float]]
    raised_share: float

    def collapse(self) -> str | None:
        """Return the reason why the training counts as collapsed; None if it does not."""
        for stage, (before, after) in enumerate(self.losses, start=1):
            if not after <= (1.0 - LEARNT_SHARE) * before:
                where = "training" if len(self.losses) == 1 else f"stage {stage} of {len(self.losses)}"
                return f"the student learnt nothing: held-out loss {before:.4g} before and {after:.4g} after {where}"
        if self.raised_share <= RAISED_SHARE:
            return f"the score sees no defects: only {self.raised_share:.0%} of drawn defects raised it"
        return None


def raised_share(session: Session, images: UInt8Array, seed: int) -> float:
    """Draw 40 defects onto good images and count how many raise the score of their image.

    Args:
        session: Session of the model.
        images: Good images, (N, H, W, 3) uint8 RGB. The images and the kinds of defects take turns.
        seed: Seed of the defects.

    Returns:
        Share of defects that raised the score, from 0 to 1.
    """
    rng = np.random.default_rng(seed)
    scores = np.array([session.infer(image[None]).anomaly_score[0] for image in images[:DRAWN_DEFECTS]])
    raised = 0
    for number in range(DRAWN_DEFECTS):
        at = number % len(scores)
        changed, _ = add_defect(images[at], DEFECTS[number % len(DEFECTS)], rng)
        raised += bool(session.infer(changed[None]).anomaly_score[0] > scores[at])
    return raised / DRAWN_DEFECTS
