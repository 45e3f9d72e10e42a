"""States of a stream, and the event that a change of the state is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

State: TypeAlias = Literal["starting", "running", "degraded", "no_signal", "paused", "stopped"]

STATES: tuple[State, ...] = ("starting", "running", "degraded", "no_signal", "paused", "stopped")
"""All states of a stream. It gives verdicts when it is running, and verdicts with a doubt when it is degraded."""


@dataclass(frozen=True, slots=True)
class StateChange:
    """A new state of a stream, or new causes of its state.

    Attributes:
        state: The state from now on.
        previous: The state before.
        causes: Causes of a degraded state or of a lost signal, for programs; see `edgead.streaming.freshness.Cause`.
        reason: Why the stream is degraded, has no signal or has stopped, as text; empty for other states.
        silent_s: Seconds since the last good image, or since the start.
        set_by: Name of who paused or resumed the stream; None for other changes, and if it is not known.
    """

    state: State
    previous: State
    causes: tuple[str, ...] = ()
    reason: str = ""
    silent_s: float = 0.0
    set_by: str | None = None
