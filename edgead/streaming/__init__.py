"""The stream: a source of frames, an inference session, and the sinks that take the verdicts; any backend."""

from edgead.streaming.loop import NO_SIGNAL_AFTER_S, Summary, stream
from edgead.streaming.sinks import Sink, open_sink
from edgead.streaming.sources import Source, open_source
from edgead.streaming.stopping import stop_on_signals

__all__ = [
    "NO_SIGNAL_AFTER_S",
    "Sink",
    "Source",
    "Summary",
    "open_sink",
    "open_source",
    "stop_on_signals",
    "stream",
]
