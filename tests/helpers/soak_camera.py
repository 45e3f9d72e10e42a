"""A camera with seeded faults."""

from __future__ import annotations

import random
import time
from collections import Counter

import cv2
import numpy as np

from edgead.errors import ImageError
from edgead.types import UInt8Array

_SHAPE = (48, 80, 3)
_POOL = 64
_ROW = 12


class FaultyDevice:
    """A camera with faults: what it gives next is drawn by lot.

    Args:
        frames: Number of images after which no more come.
        rng: Chooses the faults.
        period_s: Time between two images, in seconds.

    Attributes:
        given: Number of images so far, whole or damaged.
        faults: Number of images of each kind of fault, and of lost connections.
    """

    def __init__(self, frames: int, rng: random.Random, period_s: float) -> None:
        self.given, self.faults = 0, Counter[str]()
        self._frames, self._rng, self._period_s = frames, rng, period_s
        noise = np.random.default_rng(rng.randrange(2**32))
        # Pixels of a bundle of images; the corner of each says how anomalous it is.
        self._pool = noise.integers(20, 220, (_POOL, *_SHAPE), np.uint8)
        self._fault, self._left, self._stamp_ms = "", 0, 0.0
        self._latest = self._pool[0]
        self._due_s = time.monotonic()

    def isOpened(self) -> bool:  # noqa: N802 (OpenCV's name)
        return True

    def read(self) -> tuple[bool, UInt8Array | None]:
        self._due_s = max(self._due_s + self._period_s, time.monotonic() - 0.05)
        time.sleep(max(0.0, self._due_s - time.monotonic()))
        if self.given >= self._frames:
            time.sleep(0.01)
            return True, None
        if self._left == 0:
            self._begin_row()
        self._left -= 1
        if self._fault == "lost":
            self.faults["lost"] += 1
            return False, None
        self.given += 1
        self.faults[self._fault] += bool(self._fault)
        self._stamp_ms = time.monotonic() * 1e3 - (5e3 if self._fault == "late" else 0.0)
        if self._fault == "truncated":
            raise ImageError("an image is truncated")
        if self._fault == "black":
            return True, np.zeros(_SHAPE, np.uint8)
        if self._fault == "size":
            return True, self._pool[0][:24]
        if self._fault != "frozen":
            self._latest = self._pool[self.given % _POOL].copy()
            self._latest[:8, :8] = self._rng.randrange(220)
        return True, self._latest

    def _begin_row(self) -> None:
        kinds = ("lost", "frozen", "truncated", "black", "late", "size")
        self._fault = self._rng.choice(kinds) if self._rng.random() < 0.4 else ""
        self._left = 1 if self._fault == "lost" else self._rng.randint(1, _ROW if self._fault else 10 * _ROW)

    def get(self, property_id: int, /) -> float:
        return self._stamp_ms if property_id == cv2.CAP_PROP_POS_MSEC else 0.0

    def release(self) -> None:
        pass
