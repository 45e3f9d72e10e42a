"""Methods whose student is computed in closed form: one pass through the good images, no gradients and no epochs.

Such a method has one number that the pass does not determine, its capacity. `edgead.training.closed_form` chooses it on
held-out good images and on defects that are drawn onto them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import ClassVar

from torch import Tensor

from edgead.models.base import DistillationMethod


class ClosedFormMethod(DistillationMethod):
    """A method without gradients.

    Its parameters do not require gradients. Its hyperparameters have one epoch; the batch size limits the memory of the
    pass and changes the result by rounding only.

    Attributes:
        capacities: Capacities to choose from, ascending. The first one is the capacity after `finish_stage`.
    """

    closed_form = True
    capacities: ClassVar[tuple[float, ...]]

    @abstractmethod
    def finish_stage(self, batches: Iterable[tuple[Tensor, list[Tensor]]]) -> None:
        """Compute the student from all good images.

        Args:
            batches: Images (N, H, W, 3) uint8 RGB and their teacher features, every training image once.
        """

    @abstractmethod
    def set_capacity(self, capacity: float) -> None:
        """Change the capacity of the student that `finish_stage` computed.

        Args:
            capacity: One of `capacities`, or 0 for a student that gives the same features for every image.
        """

    @abstractmethod
    def training_loss(self) -> float:
        """Return the loss of the student on the images of `finish_stage`, which their statistics determine."""
