"""Start of a stream: it opens the source and the sinks for an opened model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from edgead.streaming.exposure import ExposureLimits
from edgead.streaming.loop import stream
from edgead.streaming.policy import StreamPolicy
from edgead.streaming.sharpness import sharpness_limit
from edgead.streaming.sinks import open_sinks
from edgead.streaming.sources import ImageSource, Source, open_source, open_when_there
from edgead.streaming.stopping import stop_on_signals
from edgead.streaming.summary import Summary

if TYPE_CHECKING:
    from edgead.runtime.model import Model


def start_stream(model: Model, source: str, sinks: Sequence[str], options: Mapping[str, Any]) -> Summary:
    """Score the frames of a source until it ends or Ctrl-C is pressed.

    Args:
        model: Opened model.
        source: Address of the source.
        sinks: Addresses of the sinks.
        options: Options of `edgead.files.arguments.StreamOptions`; `threads` and `threshold` belong to the model.

    Returns:
        Counts, latencies and ages of the stream.

    Raises:
        EdgeadError: An option is out of range, or the source or a sink fails.
    """
    used = model.used_threshold(options.get("part"))
    images = model.golden_images(used.part)
    policy = StreamPolicy(
        options.get("max_frames"),
        options.get("max_age"),
        options.get("withhold_still", "frozen"),
        ExposureLimits.from_images(images),
        sharpness_limit(images),
    )

    def open_it() -> Source:
        return open_source(source, watch=options.get("watch", False), bit_depth=model.bit_depth)

    with ExitStack() as stack:
        stop = stack.enter_context(stop_on_signals())
        # A stop during the wait leaves no frames.
        frames = open_when_there(open_it, options.get("wait", 0.0), stop) or ImageSource(source, [])
        stack.enter_context(frames)
        return stream(
            model.session,
            frames,
            open_sinks(sinks, fps=frames.fps),
            size=model.size,
            threshold=used.value,
            part=used.part,
            policy=policy,
            stop=stop,
        )
