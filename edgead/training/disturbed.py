"""Contact sheet of the pseudo-anomalies of a training."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

import numpy as np

from edgead.data.pseudo_anomalies.contact_sheet import IMAGES_PER_SHEET, draw_contact_sheet
from edgead.models.base import DistillationMethod
from edgead.training.images import PartImages
from edgead.training.run import CONTACT_SHEET

_log = logging.getLogger(__name__)


def draw_disturbed(method: DistillationMethod, parts: Collection[PartImages], seed: int, out: Path) -> None:
    """Draw examples of the pseudo-anomalies once, so that the user can check them before hours of training.

    Args:
        method: Method of the training; most methods have no pseudo-anomalies.
        parts: Images of each part.
        seed: Seed of the pseudo-anomalies.
        out: Run directory.
    """
    if (out / CONTACT_SHEET).exists():
        return
    share = max(1, IMAGES_PER_SHEET // len(parts))
    shown = np.concatenate([part.held_out.images[:share] for part in parts])[:IMAGES_PER_SHEET]
    found = method.disturbed(shown, np.random.default_rng(seed))
    if found is not None:
        draw_contact_sheet(shown, *found, out / CONTACT_SHEET)
        _log.info("the training also uses pseudo-anomalies; examples are in %s", out / CONTACT_SHEET)
