"""Record of the changes of a bundle's thresholds after its build: who set a threshold from what.

The manifest holds the current threshold of each part, and the changes that led to it from the threshold of the build.
"""

from __future__ import annotations

import getpass
import math
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from edgead.errors import InputError
from edgead.scoring.threshold import LARGEST_COUNT, Threshold
from edgead.text import printable

if TYPE_CHECKING:
    from edgead.bundle.manifest import Manifest

Rule: TypeAlias = Literal["false-alarm-rate", "best-f1", "recall", "value"]

MAX_CHANGES = 20
"""Largest number of changes that a bundle remembers for a part."""

MAX_NAME_CHARACTERS = 128
"""Longest name of who set a threshold."""


def user_of_process() -> str:
    """Return the name of the user who runs this process, or the number of a user without a name."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = f"user {os.getuid()}"
    return printable(name)[:MAX_NAME_CHARACTERS]


@dataclass(frozen=True, slots=True)
class ThresholdChange:
    """One change of the threshold of a part.

    Attributes:
        rule: Rule that chose the new threshold.
        wanted: Wanted recall, false-alarm rate or value; None for "best-f1".
        n_good: Number of images of good parts behind the new threshold.
        n_held_out: How many of them are held-out images of the training.
        n_defects: Number of images of defects behind it.
        set_at: Time of the change, ISO 8601 in UTC.
        previous: Threshold that it replaced.
        set_by: Name of who made the change: the user of a command, or the name that was given on the page of a stream.

    Raises:
        InputError: A field is out of range.
    """

    rule: Rule
    wanted: float | None
    n_good: int
    n_held_out: int
    n_defects: int
    set_at: str
    previous: Threshold
    set_by: str = field(default_factory=user_of_process)

    def __post_init__(self) -> None:
        if self.wanted is not None and not math.isfinite(self.wanted):
            raise InputError(f"a wanted value is a finite number, not {self.wanted}")
        counts = (self.n_good, self.n_held_out, self.n_defects)
        if not all(0 <= count <= LARGEST_COUNT for count in counts) or self.n_held_out > self.n_good:
            raise InputError("counts of images are not possible")
        if not self.set_by or len(self.set_by) > MAX_NAME_CHARACTERS or printable(self.set_by) != self.set_by:
            raise InputError(f"a name is a printable text of 1 to {MAX_NAME_CHARACTERS} characters")

    @property
    def option(self) -> str:
        """Option of `edgead threshold` that chose the new threshold, such as "--recall 0.95"."""
        return f"--{self.rule}" if self.wanted is None else f"--{self.rule} {self.wanted:g}"


def threshold_sources(manifest: Manifest) -> dict[str, str]:
    """Return the command that set the current threshold of each part, such as "edgead threshold --best-f1".

    Args:
        manifest: Manifest of a bundle.
    """
    changes = manifest.changes
    return {
        part: f"edgead threshold {changes[part][-1].option}" if changes.get(part) else "edgead build"
        for part in manifest.thresholds
    }


def built_thresholds(manifest: Manifest) -> dict[str, Threshold]:
    """Return the thresholds that the build set, by part.

    The tolerances of the golden check are shares of these, whatever the threshold is now.

    Args:
        manifest: Manifest of a bundle.
    """
    changes = manifest.changes
    return {
        part: changes[part][0].previous if changes.get(part) else threshold
        for part, threshold in manifest.thresholds.items()
    }


def rate_of_build(manifest: Manifest, part: str) -> tuple[float, float]:
    """Return the false-alarm rate and the confidence of the threshold that the build set.

    Args:
        manifest: Manifest of a bundle.
        part: Name of one of its parts.

    Returns:
        Rate and confidence; 0.01 and 0.95 for a threshold that promises no rate.
    """
    built = built_thresholds(manifest)[part]
    return built.false_alarm_rate or 0.01, built.confidence or 0.95
