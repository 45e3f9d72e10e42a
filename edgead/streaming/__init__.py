"""The stream: a source of frames, an inference session, and the sinks that take the verdicts; any backend."""

from edgead.streaming.health import NO_SIGNAL_AFTER_S
from edgead.streaming.loop import stream
from edgead.streaming.policy import StreamPolicy
from edgead.streaming.sinks import Sink, SinkCount, open_sink, open_sinks
from edgead.streaming.sources import Source, open_source, open_when_there
from edgead.streaming.stopping import stop_on_signals
from edgead.streaming.summary import Summary

__all__ = [
    "NO_SIGNAL_AFTER_S",
    "Sink",
    "SinkCount",
    "Source",
    "StreamPolicy",
    "Summary",
    "open_sink",
    "open_sinks",
    "open_source",
    "open_when_there",
    "stop_on_signals",
    "stream",
]
