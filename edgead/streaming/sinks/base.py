"""Interface of sinks, which receive verdicts."""

from __future__ import annotations

from abc import abstractmethod

from edgead.streaming.freshness import Signal
from edgead.types import Closing, Float32Array, Frame, Verdict


class StopStream(Exception):  # noqa: N818 (not an error)
    """Raised by a sink to end the stream without an error: somebody closed the window."""


class Sink(Closing):
    """An opened sink: a context manager that one thread uses. A SinkError ends the stream."""

    @abstractmethod
    def write(self, frame: Frame, verdict: Verdict, anomaly_map: Float32Array) -> None:
        """Receive a verdict.

        Args:
            frame: Frame that was scored; not to be changed.
            verdict: Decision on the frame.
            anomaly_map: Anomaly map, (h, w) float32, at the model's image size; not to be changed.

        Raises:
            SinkError: The sink cannot be written.
            StopStream: The stream is to end.
        """

    def withheld(self, frame: Frame, reason: str) -> None:
        """Receive a frame that was scored and gets no verdict.

        Args:
            frame: Frame that was scored; not to be changed.
            reason: Reason for the missing verdict, as text.

        Raises:
            SinkError: The sink cannot be written.
            StopStream: The stream is to end.
        """

    def signal(self, signal: Signal) -> None:
        """Receive the loss of a live source's signal, or its return."""

    def tick(self) -> None:
        """Do periodic work; called several times a second while no verdict comes."""

    def close(self) -> None:
        """Finish the output; may be called twice."""
