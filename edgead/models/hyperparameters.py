"""Hyperparameters of a method: its defaults for training and scoring."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Schedule = Literal["one-cycle", "constant"]

# Adam with betas (0.5, 0.999), as in Reverse Distillation (section 4.1); stochastic gradient descent with momentum 0.9
# and weight decay 1e-4, as in STFPM (section 6.2).
Optimizer = Literal["adam", "sgd"]


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """Defaults for training and scoring with a method.

    Attributes:
        loss: One of the losses of the method.
        sigma: Standard deviation of the head's Gaussian smoothing, in pixels of the map; 0 for no smoothing.
        epochs: Number of epochs, all stages together.
        batch_size: Number of images in a batch.
        learning_rate: Peak learning rate of the schedule `one-cycle`, or the learning rate of `constant`.
        schedule: Course of the learning rate over the steps of a stage.
        optimizer: Optimiser of a method that does not override `optimizer`.
        stages: Share of the epochs for each stage.
    """

    loss: str
    sigma: float
    epochs: int
    batch_size: int
    learning_rate: float
    schedule: Schedule
    optimizer: Optimizer = field(default="adam", kw_only=True)
    stages: tuple[float, ...] = field(default=(1.0,), kw_only=True)
