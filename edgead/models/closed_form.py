"""Methods whose student is computed in closed form: one pass through the good images, no gradients and no epochs.

The pass collects the moments of the teacher's features, and the student follows from them. Moments add up, so a student
without some of the images costs no further pass. `edgead.training.closed_form` cross-fits with such students.

Such a method has one number that the moments do not determine, its capacity. `edgead.training.closed_form` chooses it
on good images that the student was not fitted on, and on defects that are drawn onto them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import ClassVar

from torch import Tensor

from edgead.models.base import DistillationMethod
from edgead.models.components.moments import Moments


class ClosedFormMethod(DistillationMethod):
    """A method without gradients.

    Its parameters do not require gradients. Its hyperparameters have one epoch; the batch size limits the memory of the
    pass and changes the result by rounding only.

    Attributes:
        capacities: Capacities to choose from, ascending. The first one is the capacity after `fit`.
    """

    closed_form = True
    capacities: ClassVar[tuple[float, ...]]

    @abstractmethod
    def moments(self, batches: Iterable[tuple[Tensor, list[Tensor]]]) -> Moments:
        """Collect the moments of the teacher's features of good images.

        Args:
            batches: Images (N, H, W, 3) uint8 RGB and their teacher features, every image once.
        """

    @abstractmethod
    def fit(self, moments: Moments) -> None:
        """Compute the student. It gets the first one of `capacities`.

        Args:
            moments: Moments of the good images.
        """

    def finish_stage(self, batches: Iterable[tuple[Tensor, list[Tensor]]]) -> None:
        """Compute the student from all good images.

        Args:
            batches: Images (N, H, W, 3) uint8 RGB and their teacher features, every training image once.
        """
        self.fit(self.moments(batches))

    @abstractmethod
    def set_capacity(self, capacity: float) -> None:
        """Change the capacity of the student that `fit` computed.

        Args:
            capacity: One of `capacities`, or 0 for a student that gives the same features for every image.
        """

    @abstractmethod
    def training_loss(self) -> float:
        """Return the loss of the student on the images of `fit`, which their moments determine."""
