"""Whether a training collapsed, found out from good images alone.

Two things can go wrong without an error: the student learnt nothing, or it copies the teacher everywhere, defects
included (some published methods do so on some parts). The first shows in the loss on the held-out images, the second
when defects drawn onto those images do not raise their score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgead.data.synthetic.dataset import DEFECTS, add_defect
from edgead.runtime.base import Session
from edgead.types import UInt8Array

# Share of the loss before training that must be gone after it.
LEARNT_SHARE = 0.05
# Drawn defects must raise the score of more images than a coin would.
RAISED_SHARE = 0.5
DRAWN_DEFECTS = 40


@dataclass(frozen=True, slots=True)
class Sanity:
    """losses: held-out, before and after each stage. raised_share: of drawn defects, which raised the score."""

    losses: Sequence[tuple[float, float]]
    raised_share: float

    def collapse(self) -> str | None:
        """Why the training counts as collapsed; None when it does not."""
        for stage, (before, after) in enumerate(self.losses, start=1):
            if not after <= (1.0 - LEARNT_SHARE) * before:
                where = "training" if len(self.losses) == 1 else f"stage {stage} of {len(self.losses)}"
                return f"the student learnt nothing: held-out loss {before:.4g} before and {after:.4g} after {where}"
        if self.raised_share <= RAISED_SHARE:
            return f"the score sees no defects: only {self.raised_share:.0%} of drawn defects raised it"
        return None


def raised_share(session: Session, images: UInt8Array, seed: int) -> float:
    """Share of defects, drawn onto good images, that raise the score of their image.

    images: (N, H, W, 3) uint8 RGB, taken in turn until 40 defects are drawn, all kinds in turn.
    """
    rng = np.random.default_rng(seed)
    scores = np.array([session.infer(image[None]).anomaly_score[0] for image in images[:DRAWN_DEFECTS]])
    raised = 0
    for number in range(DRAWN_DEFECTS):
        at = number % len(scores)
        changed, _ = add_defect(images[at], DEFECTS[number % len(DEFECTS)], rng)
        raised += bool(session.infer(changed[None]).anomaly_score[0] > scores[at])
    return raised / DRAWN_DEFECTS
