"""The threshold on the page: what a value would reject, and the change of the bundle and of the running stream."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from edgead.bundle.directory import MANIFEST, Bundle
from edgead.bundle.set_threshold import change_threshold, current_bundle
from edgead.bundle.threshold_changes import ThresholdChange
from edgead.bundle.validation_records import held_out_scores
from edgead.errors import BundleError, InputError
from edgead.files.lock import exclusive
from edgead.files.records import utc_now
from edgead.scoring.intervals import clopper_pearson
from edgead.scoring.threshold import Threshold, check_value
from edgead.streaming.line import LineControl

CONFIDENCE = 0.95
_SHOWN_CHANGES = 5

_log = logging.getLogger(__name__)


class ThresholdDesk:
    """The threshold of a running stream.

    Args:
        value: Decision threshold at the start.
        part: Name of the part.
        bundle: Bundle whose threshold may be changed; None for a threshold that no bundle keeps.
        *lines: Controls of the cameras that show the part, which have one threshold.
    """

    def __init__(self, value: float, part: str, bundle: Bundle | None, *lines: LineControl) -> None:
        self.value = value
        self.part, self._bundle, self._lines = part, bundle, lines
        self._read_at: object = None
        try:
            scores = {} if bundle is None else held_out_scores(bundle, part)
        except BundleError:
            # A bundle without records can be streamed, and its threshold can be set, but nothing can be predicted.
            scores = {}
        self._good = np.sort(np.fromiter(scores.values(), np.float64))

    def numbers(self) -> dict[str, Any]:
        """Return the threshold, the range of a slider, and the last changes, the newest first.

        The bundle may have another threshold by now, which another command has set; then it has the key `in_bundle`.
        """
        bundle = self._present_bundle()
        changes = () if bundle is None else bundle.manifest.changes.get(self.part, ())
        kept = None if bundle is None else bundle.manifest.thresholds[self.part].value
        highest = max([self.value, *self._good[-1:]])
        return {
            "value": self.value,
            "lowest": float(min([self.value, *self._good[:1]])) / 2,
            "highest": float(highest + abs(highest)),
            "can_change": bundle is not None,
            "in_bundle": None if kept == self.value else kept,
            "changes": [
                {
                    "set_at": change.set_at,
                    "set_by": change.set_by,
                    "previous": change.previous.value,
                    "option": change.option,
                }
                for change in changes[: -_SHOWN_CHANGES - 1 : -1]
            ],
        }

    def prediction(self, value: float) -> dict[str, Any]:
        """Count the good images of the build above a threshold.

        Args:
            value: Threshold.

        Returns:
            Number of the images, how many of them are above, and the Clopper-Pearson interval of the rate.
        """
        above = len(self._good) - int(np.searchsorted(self._good, value, side="right"))
        low, high = clopper_pearson(above, len(self._good), CONFIDENCE)
        return {"images": len(self._good), "above": above, "low": low, "high": high, "confidence": CONFIDENCE}

    def _present_bundle(self) -> Bundle | None:
        """Return the bundle with its present manifest, which is read again after it has changed."""
        if self._bundle is None:
            return None
        # Of a bundle that is away or was built again, the last known changes are shown.
        with suppress(OSError, BundleError):
            found = (self._bundle.path / MANIFEST).stat()
            if (read_at := (found.st_ino, found.st_mtime_ns, found.st_size)) != self._read_at:
                self._bundle, self._read_at = current_bundle(self._bundle), read_at
        return self._bundle

    def set(self, value: float, name: str) -> None:
        """Set the threshold in the bundle, and then in the stream.

        Args:
            value: Threshold.
            name: Name of who sets it.

        Raises:
            InputError: The value or the name is not usable, or no bundle keeps the threshold.
            EdgeadError: The bundle cannot be written. The stream keeps its threshold.
        """
        if self._bundle is None:
            raise InputError(
                "this threshold was given on the command line", hint="start the stream without it"
            )
        value = check_value(value)
        with exclusive(self._bundle.path):
            bundle = current_bundle(self._bundle)
            before = bundle.manifest.thresholds[self.part]
            change = ThresholdChange("value", value, 0, 0, 0, utc_now(), before, name)
            bundle = change_threshold(bundle, self.part, Threshold(value, None, None, None, 0, None), change)
            # With the lock, so that the stream gets the changes of two viewers in the order of the bundle.
            self._bundle = replace(self._bundle, manifest=bundle.manifest)
            _log.info("threshold of %s: %g instead of %g, set by %s", self.part, value, self.value, name)
            self.value = value
            for line in self._lines:
                line.set_threshold(value, name)
