"""The stream: a source of frames, an inference session, and the sinks that take the verdicts; any backend."""

from edgead.streaming.camera import Camera
from edgead.streaming.health import NO_SIGNAL_AFTER_S
from edgead.streaming.line import LineControl
from edgead.streaming.loop import stream, stream_cameras
from edgead.streaming.policy import PartRule, StreamPolicy
from edgead.streaming.sinks import Sink, SinkCount, open_sink, open_sinks
from edgead.streaming.sources import Source, open_source, open_when_there
from edgead.streaming.stopping import pause_on_signals, stop_on_signals
from edgead.streaming.summary import LineSummary, PartCount, Summary
from edgead.streaming.triggers import Trigger, open_trigger

__all__ = [
    "NO_SIGNAL_AFTER_S",
    "Camera",
    "LineControl",
    "LineSummary",
    "PartCount",
    "PartRule",
    "Sink",
    "SinkCount",
    "Source",
    "StreamPolicy",
    "Summary",
    "Trigger",
    "open_sink",
    "open_sinks",
    "open_source",
    "open_trigger",
    "open_when_there",
    "pause_on_signals",
    "stop_on_signals",
    "stream",
    "stream_cameras",
]
