"""What the loop knows of a sink: a place that verdicts go to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType

from typing_extensions import Self

from edgead.stream.freshness import Signal
from edgead.types import Float32Array, Frame, Verdict


class StopStream(Exception):  # noqa: N818 (not an error)
    """Raised by a sink to end the stream as its last frame would: somebody closed the window."""


class Sink(ABC):
    """An opened sink: fed by one thread; a context manager. A SinkError ends the stream."""

    @abstractmethod
    def write(self, frame: Frame, verdict: Verdict, anomaly_map: Float32Array) -> None:
        """Take a verdict with its frame and map, (h, w) float32 at the model's size; change neither."""

    def signal(self, signal: Signal) -> None:  # noqa: B027 (a sink may not care)
        """Take the loss of a live source's signal, or its return."""

    def turn(self) -> None:  # noqa: B027
        """Do what is due without a verdict; called several times a second while none comes."""

    def close(self) -> None:  # noqa: B027
        """Finish what is written; may be called twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
