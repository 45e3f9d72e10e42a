"""What the loop knows of a sink: a place that verdicts go to."""

from __future__ import annotations

from abc import abstractmethod

from edgead.streaming.freshness import Signal
from edgead.types import Closing, Float32Array, Frame, Verdict


class StopStream(Exception):  # noqa: N818 (not an error)
    """Raised by a sink to end the stream as its last frame would: somebody closed the window."""


class Sink(Closing):
    """An opened sink: fed by one thread; a context manager. A SinkError ends the stream."""

    @abstractmethod
    def write(self, frame: Frame, verdict: Verdict, anomaly_map: Float32Array) -> None:
        """Take a verdict with its frame and map, (h, w) float32 at the model's size; change neither."""

    def signal(self, signal: Signal) -> None:
        """Take the loss of a live source's signal, or its return."""

    def tick(self) -> None:
        """Do what is due without a verdict; called several times a second while none comes."""

    def close(self) -> None:
        """Finish what is written; may be called twice."""
