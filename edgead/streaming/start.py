"""Start of a stream: it opens the page and the triggers, the model, the sources and the sinks, in this order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from edgead.bundle.validation_records import good_values
from edgead.errors import AbsentSourceError
from edgead.imaging.sharpness import sharpness_limit
from edgead.runtime.base import largest_batch
from edgead.runtime.results import GIVEN, UsedThreshold
from edgead.streaming.arrivals import Arrivals
from edgead.streaming.camera import Camera
from edgead.streaming.drift import DriftWatch
from edgead.streaming.exposure import ExposureLimits
from edgead.streaming.line import LineControl
from edgead.streaming.loop import stream_cameras
from edgead.streaming.page import Page, PageCamera
from edgead.streaming.page.feedback import FeedbackFolder
from edgead.streaming.page.threshold import ThresholdDesk
from edgead.streaming.plan import CameraPlan, StreamPlan
from edgead.streaming.policy import StreamPolicy
from edgead.streaming.sinks import Sink, open_sinks
from edgead.streaming.sources import ImageSource, Source, open_source, open_when_there
from edgead.streaming.sources.waiting import begin_to_open, result_or_stop
from edgead.streaming.stopping import pause_on_signals, stop_on_signals
from edgead.streaming.summary import LineSummary
from edgead.streaming.triggers import Trigger, open_trigger

if TYPE_CHECKING:
    from edgead.runtime.model import Model


@dataclass(slots=True)
class _Opening:
    """One camera while it is opened."""

    plan: CameraPlan
    line: LineControl
    trigger: Trigger | None
    used: UsedThreshold
    policy: StreamPolicy
    bit_depth: int | None
    on_page: PageCamera | None = None

    def open_source(self) -> Source:
        """Open the source."""
        return open_source(self.plan.source, watch=self.plan.watch, bit_depth=self.bit_depth)

    def open_sinks(self, fps: float | None = None) -> list[Sink]:
        """Open the sinks, which the stream closes.

        Args:
            fps: Frame rate of the source in frames per second; None if it is unknown, or the source is absent.
        """
        return open_sinks(self.plan.sink, fps=fps) + ([] if self.on_page is None else self.on_page.sinks())

    def open_later(self, sinks: Sequence[Sink], stop: threading.Event) -> Camera | None:
        """Wait for the source, and begin with the camera; None after a stop."""
        source = open_when_there(self.open_source, self.plan.wait, stop)
        if source is None:
            return None
        try:
            return self.begin(source, sinks)
        except BaseException:
            source.close()
            raise

    def begin(self, source: Source, sinks: Sequence[Sink], *, is_stopped: bool = False) -> Camera:
        """Start the trigger of the camera."""
        # Not earlier, because the parts that come during the wait for a camera get no verdict.
        if self.trigger is not None and not is_stopped:
            self.trigger.start(self.line)
        if self.on_page is not None:
            self.on_page.source = source.uri
        line = LineControl() if is_stopped else self.line
        return Camera(source, sinks, self.used.value, self.policy, line, self.plan.name)


def start_stream(load: Callable[[], Model], plan: StreamPlan) -> LineSummary:
    """Score the frames of cameras until they end or Ctrl-C is pressed.

    Args:
        load: Function that opens the model.
        plan: Cameras, sinks and page.

    Returns:
        Counts, latencies and ages of each camera.

    Raises:
        EdgeadError: A port, a trigger, the model, a source or a sink fails.
    """
    address, feedback = plan.page_address(), plan.feedback_address()
    with ExitStack() as stack:
        # What may be in use or absent comes before the model, whose start takes long.
        page = None if address is None else stack.enter_context(Page(address))
        triggers = [
            None if one.trigger is None else stack.enter_context(open_trigger(one.trigger))
            for one in plan.cameras
        ]
        lines = [LineControl(None if one.trigger is None else one.rule) for one in plan.cameras]
        # Before the model, because the signals would end the process.
        stack.enter_context(pause_on_signals(*_calls_for_signals(lines)))
        model = stack.enter_context(load())
        used = [model.used_threshold(one.part, one.threshold) for one in plan.cameras]
        policies = [_policy(model, one, own.part) for one, own in zip(plan.cameras, used, strict=True)]
        openings = [
            _Opening(*found, model.bit_depth)
            for found in zip(plan.cameras, lines, triggers, used, policies, strict=True)
        ]
        stop = stack.enter_context(stop_on_signals())
        if page is not None:
            folder = None if feedback is None else FeedbackFolder(feedback, {own.part for own in used})
            page.start(_page_cameras(model, openings, folder))
        # After the model, because the buffer of a camera would fill with images that are old at the start.
        arrivals = stack.enter_context(Arrivals())
        shared, cameras = _open_cameras(plan, openings, stack, arrivals, stop)
        return stream_cameras(
            model.session,
            cameras,
            size=model.size,
            sinks=shared,
            batch=largest_batch(model.session),
            stop=stop,
            arrivals=arrivals,
        )


def _calls_for_signals(lines: Sequence[LineControl]) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return functions that pause and resume all cameras."""

    def pause() -> None:
        for line in lines:
            line.pause("signal")

    def resume() -> None:
        for line in lines:
            line.resume("signal")

    return pause, resume


def _policy(model: Model, plan: CameraPlan, part: str) -> StreamPolicy:
    """Make the policy of a camera from its options and the images of the bundle."""
    images = model.golden_images(part)
    return StreamPolicy(
        part,
        plan.max_frames,
        plan.max_age,
        plan.withhold_still,
        ExposureLimits.from_images(images),
        # The good ones, which come first: the edges of a synthetic defect are sharper than those of any lens.
        sharpness_limit(images[: len(images) // 2]),
        None if model.bundle is None else DriftWatch(good_values(model.bundle, part)),
        model.view,
        plan.region,
    )


def _page_cameras(
    model: Model, openings: Sequence[_Opening], folder: FeedbackFolder | None
) -> list[PageCamera]:
    """Make the cameras of the page. Cameras that show one part share its threshold."""
    bundle = model.bundle
    model_sha256 = None if bundle is None else bundle.manifest.files["model.onnx"].sha256
    desks = {
        part: ThresholdDesk(
            value,
            part,
            bundle,
            *(one.line for one in openings if one.used.part == part and not _is_given(one)),
        )
        for part, value in {one.used.part: one.used.value for one in openings if not _is_given(one)}.items()
    }
    for one in openings:
        # A threshold of the command line would be back at the next start, so nobody can change it on the page.
        own = ThresholdDesk(one.used.value, one.used.part, None, one.line)
        desk = own if _is_given(one) else desks[one.used.part]
        one.on_page = PageCamera(
            one.plan.name, desk, one.line, one.policy.drift, folder, model_sha256, len(openings)
        )
    return [one.on_page for one in openings if one.on_page is not None]


def _close_source(opened: Future[Source | None]) -> None:
    """Close the source that was opened, also if it comes after the end."""
    if opened.exception() is None and (source := opened.result()) is not None:
        source.close()


def _is_given(one: _Opening) -> bool:
    return one.used.source == GIVEN


def _open_cameras(
    plan: StreamPlan,
    openings: Sequence[_Opening],
    stack: ExitStack,
    arrivals: Arrivals,
    stop: threading.Event,
) -> tuple[list[Sink], list[Camera]]:
    """Open the sources and the sinks, which the stream closes.

    Args:
        plan: Plan of the stream.
        openings: Its cameras.
        stack: Stack that closes the sources.
        arrivals: Cameras that are absent, beside others, are opened here.
        stop: Event that ends the wait for an only camera.

    Returns:
        The sinks of all cameras, and the cameras that are there.
    """
    is_alone, sources = len(openings) == 1, dict[str, Source]()
    tries = [
        begin_to_open(partial(open_when_there, one.open_source, one.plan.wait if is_alone else 0.0, stop))
        for one in openings
    ]
    for opened in tries:
        stack.callback(opened.add_done_callback, _close_source)
    for one, opened in zip(openings, tries, strict=True):
        try:
            source = result_or_stop(opened, stop)
        except AbsentSourceError:
            # The others do not wait for it.
            if is_alone or one.plan.wait == 0.0:
                raise
            continue
        # A stop during the wait leaves neither frames nor parts.
        sources[one.plan.name] = source or ImageSource(one.plan.source, [])
    with ExitStack() as closed_if_one_fails:
        shared = [closed_if_one_fails.enter_context(sink) for sink in open_sinks(plan.sink)]
        cameras = []
        for one in openings:
            source = sources.get(one.plan.name)
            # Those of an absent camera, too, so that a sink that cannot be opened is an error at the start.
            sinks = [
                closed_if_one_fails.enter_context(sink)
                for sink in one.open_sinks(None if source is None else source.fps)
            ]
            if source is not None:
                cameras.append(one.begin(source, sinks, is_stopped=stop.is_set()))
            else:
                arrivals.expect(one.plan.name, sinks, partial(one.open_later, sinks, arrivals.stop))
        closed_if_one_fails.pop_all()
    return shared, cameras
