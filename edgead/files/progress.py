"""State of a running job, as a record of the standard library's `logging`.

Jobs log to loggers below `edgead`: steps at level INFO, warnings at WARNING. The functions of this module log the
progress of a long step at level DEBUG, with the state as attribute `progress` of the record. A handler that knows the
attribute can draw the state; the command line draws a bar. Any other handler prints the state as text. Without a
handler nothing is printed, and a state costs one check of a level.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class TrainingState:
    """State of a training after a batch.

    Attributes:
        epoch: Number of finished epochs.
        epochs: Number of all epochs.
        share: Finished share of the epoch under way, greater than 0 and at most 1.
        loss: Mean loss of the epoch under way.
        images_per_s: Training speed in images per second.
    """

    epoch: int
    epochs: int
    share: float
    loss: float
    images_per_s: float

    @property
    def done(self) -> float:
        """Finished share of the whole training, from 0 to 1."""
        return (self.epoch + self.share) / self.epochs

    def __str__(self) -> str:
        return f"epoch {self.epoch + 1}/{self.epochs}  loss {self.loss:.4f}  {self.images_per_s:.0f} images/s"


@dataclass(frozen=True, slots=True)
class ScoringState:
    """State of the scoring of a dataset after a batch.

    Attributes:
        done: Number of scored images.
        total: Number of all images.
    """

    done: int
    total: int

    def __str__(self) -> str:
        return f"scored {self.done} of {self.total} images"


State: TypeAlias = TrainingState | ScoringState


def is_first_process() -> bool:
    """Return True in the only process of a training, or in the first of several; this process prints and writes."""
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "NODE_RANK", "RANK"))


def log_state(log: logging.Logger, state: State) -> None:
    """Log the state of a job at level DEBUG.

    Args:
        log: Logger of the job's module.
        state: State of the job; it becomes the attribute `progress` of the record.
    """
    if log.isEnabledFor(logging.DEBUG):
        log.debug("%s", state, extra={"progress": state})


def state_of(record: logging.LogRecord) -> State | None:
    """Return the state that a log record holds.

    Args:
        record: Any log record.

    Returns:
        The state, or None if the record holds none.
    """
    state = getattr(record, "progress", None)
    return state if isinstance(state, State) else None
