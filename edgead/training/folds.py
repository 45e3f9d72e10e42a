"""Students without a fold of the training images, for a method in closed form.

One pass collects the moments of each fold. The student without a fold follows from the moments of all others, in the
time of one small decomposition.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgead.data.stored_images import Images
from edgead.models.closed_form import ClosedFormMethod
from edgead.models.components.moments import Moments
from edgead.training.features import host_tensor, without_gradients

IntArray: TypeAlias = npt.NDArray[np.intp]

NO_FOLD = -1
"""Fold of an image that no student leaves out, or that no student was fitted on."""


@dataclass(frozen=True, slots=True)
class Folds:
    """Folds of the images of a training.

    Attributes:
        trained: Fold of each training image, (N,); NO_FOLD if every student is fitted on it.
        held_out: Fold of each image that sets the threshold, (M,); NO_FOLD if it is no training image.
    """

    trained: IntArray
    held_out: IntArray

    @classmethod
    def none(cls, trained: int, held_out: int) -> Folds:
        """Return the folds of held-out images, which are no training images.

        Args:
            trained: Number of training images.
            held_out: Number of held-out images.
        """
        return cls(np.full(trained, NO_FOLD), np.full(held_out, NO_FOLD))


class FoldStudents:
    """Fits a method without one fold after another.

    Args:
        method: The method, in evaluation mode. Its student is computed in place.
        images: Training images, (N, H, W, 3) uint8 RGB, on the host.
        folds: Fold of each image, (N,).
        batch_size: Number of images in a batch.
    """

    def __init__(
        self, method: ClosedFormMethod, images: Images | Tensor, folds: IntArray, batch_size: int
    ) -> None:
        self.method = method
        self.device = next(method.parameters()).device
        self._moments = {
            int(fold): self._of(images, np.flatnonzero(folds == fold), batch_size)
            for fold in np.unique(folds)
        }

    def fit_without(self, fold: int) -> None:
        """Fit the student on the images of all other folds.

        Args:
            fold: Number of the fold; NO_FOLD fits on all images.
        """
        kept = (part for number, part in self._moments.items() if number != fold or fold == NO_FOLD)
        self.method.fit(Moments.joined(kept))

    def each(self, folds: IntArray) -> Iterator[int]:
        """Visit images in the order of their folds. The student is then fitted without the fold of the image.

        Args:
            folds: Fold of each image, (M,).

        Yields:
            Number of each image, from 0 to M - 1.
        """
        for fold in np.unique(folds):
            self.fit_without(int(fold))
            yield from np.flatnonzero(folds == fold).tolist()

    def _of(self, images: Images | Tensor, chosen: IntArray, batch_size: int) -> Moments:
        """Collect the moments of some of the images."""
        batches = (
            host_tensor(images, numbers).to(self.device)
            for numbers in torch.split(torch.from_numpy(chosen), without_gradients(batch_size, self.device))
        )
        return self.method.moments((batch, self.method.teacher_features(batch)) for batch in batches)
