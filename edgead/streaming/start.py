"""Start of a stream: it opens the model, the source and the sinks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from edgead.bundle.validation_records import good_values
from edgead.errors import InputError
from edgead.imaging.sharpness import sharpness_limit
from edgead.runtime.results import GIVEN, UsedThreshold
from edgead.streaming.drift import DriftWatch
from edgead.streaming.exposure import ExposureLimits
from edgead.streaming.line import LineControl
from edgead.streaming.loop import stream
from edgead.streaming.page import Page, PageAddress, read_page_address
from edgead.streaming.page.threshold import ThresholdDesk
from edgead.streaming.policy import PartRule, StreamPolicy
from edgead.streaming.sinks import Sink, open_sinks, plan_sinks
from edgead.streaming.sources import ImageSource, Source, open_source, open_when_there
from edgead.streaming.stopping import pause_on_signals, stop_on_signals
from edgead.streaming.summary import Summary
from edgead.streaming.triggers import open_trigger

if TYPE_CHECKING:
    from edgead.runtime.model import Model


def start_stream(
    load: Callable[[], Model], source: str, sinks: Sequence[str], options: Mapping[str, Any]
) -> Summary:
    """Score the frames of a source until it ends or Ctrl-C is pressed.

    Args:
        load: Function that opens the model.
        source: Address of the source.
        sinks: Addresses of the sinks.
        options: Options of `edgead.files.arguments.StreamOptions`; `threads` and `threshold` belong to the model.

    Returns:
        Counts, latencies and ages of the stream.

    Raises:
        EdgeadError: An option is out of range, or the model, the source or a sink fails.
    """
    line = _line(options)
    # An error in an address must not show after the long start of a model.
    plan_sinks(sinks)
    address = read_page_address(options["serve"]) if "serve" in options else None
    with ExitStack() as stack:
        # Before the model, because the signals would end the process.
        stack.enter_context(pause_on_signals(line.pause, line.resume))
        model = stack.enter_context(load())
        used = model.used_threshold(options.get("part"))
        policy = _policy(model, used.part, options)
        stop = stack.enter_context(stop_on_signals())
        trigger = open_trigger(options["trigger"]) if "trigger" in options else None
        if trigger is not None:
            stack.enter_context(trigger)
        page = None if address is None else _open_page(address, model, used, policy.drift, line)
        if page is not None:
            stack.enter_context(page)

        def open_it() -> Source:
            return open_source(source, watch=options.get("watch", False), bit_depth=model.bit_depth)

        # After the model, because the buffer of a camera would fill with images that are old at the start.
        frames = open_when_there(open_it, options.get("wait", 0.0), stop)
        if frames is None:
            # A stop during the wait leaves neither frames nor parts.
            frames, trigger, line = ImageSource(source, []), None, LineControl()
        stack.enter_context(frames)
        if trigger is not None:
            # Not earlier, because the parts that come during the wait for a camera get no verdict. Not later, because
            # the stream, which closes the sinks, must follow their opening at once.
            trigger.start(line)
        return stream(
            model.session,
            frames,
            [*open_sinks(sinks, fps=frames.fps), *_sinks_of(page, frames)],
            size=model.size,
            threshold=used.value,
            policy=policy,
            stop=stop,
            line=line,
        )


def _policy(model: Model, part: str, options: Mapping[str, Any]) -> StreamPolicy:
    """Make the policy of a stream from its options and the images of the bundle."""
    images = model.golden_images(part)
    return StreamPolicy(
        part,
        options.get("max_frames"),
        options.get("max_age"),
        options.get("withhold_still", "frozen"),
        ExposureLimits.from_images(images),
        sharpness_limit(images),
        None if model.bundle is None else DriftWatch(good_values(model.bundle, part)),
    )


def _open_page(
    address: PageAddress, model: Model, used: UsedThreshold, drift: DriftWatch | None, line: LineControl
) -> Page:
    """Open the page."""
    # A threshold of the command line would be back at the next start, so nobody can change it on the page.
    bundle = None if used.source == GIVEN else model.bundle
    return Page(address, ThresholdDesk(used.value, used.part, bundle, line), line, drift)


def _sinks_of(page: Page | None, frames: Source) -> list[Sink]:
    """Return the sinks of the page, which from now on shows the source."""
    if page is None:
        return []
    page.source = frames.uri
    return page.sinks()


def _line(options: Mapping[str, Any]) -> LineControl:
    """Make the control of the line; it has parts if the options have a trigger."""
    names = {"trigger_delay": "delay_s", "part_frames": "frames", "part_rejects": "rejects"}
    given = {names[name]: options[name] for name in names if name in options}
    rule = PartRule(**given)
    if "trigger" in options:
        return LineControl(rule)
    if rule != PartRule():
        raise InputError(
            "trigger_delay, part_frames and part_rejects are for a trigger", hint="give a trigger, too"
        )
    return LineControl()
