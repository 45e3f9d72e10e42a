"""The loop of a stream: it takes frames from cameras, scores them, and gives the verdicts to the sinks.

One thread captures the frames of each camera, the calling thread scores them, and each sink has a thread of its own.
These modules describe which frames are dropped (`capture`) or withheld (`freshness`), what a slow or failed sink loses
(`delivery`), the states (`health`), the verdict on a part of a trigger (`part_judge`), how frames of several cameras
are examined at the same time (`examiner`), and all of this for one camera (`judge`). An error of the model ends the
stream, and so does an error of an only source; beside other cameras it ends this camera alone. A failure of a sink ends
the stream of a file, which can be streamed again; a camera goes on.

The cameras take turns: each gives its newest frame, and the frames that are there at one moment are scored together if
the model is quicker with them. The loop never waits for one camera.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import partial

import numpy as np

from edgead.imaging.preprocess import ModelSize
from edgead.runtime.base import Session
from edgead.runtime.framed import infer_frames
from edgead.streaming.arrivals import Arrivals
from edgead.streaming.camera import Camera
from edgead.streaming.deliveries import Deliveries
from edgead.streaming.examiner import Examiner, Taken
from edgead.streaming.judge import TICK_S, Judge, log_failure, reason_of
from edgead.streaming.line import LineControl
from edgead.streaming.policy import StreamPolicy
from edgead.streaming.sinks.base import Sink, StopStream
from edgead.streaming.sources import Source
from edgead.streaming.state import StateChange
from edgead.streaming.summary import LineSummary, Summary
from edgead.streaming.systemd import Service

_DEFAULTS = StreamPolicy()


def stream(
    session: Session,
    source: Source,
    sinks: Sequence[Sink],
    *,
    size: ModelSize,
    threshold: float,
    policy: StreamPolicy = _DEFAULTS,
    stop: threading.Event | None = None,
    line: LineControl | None = None,
) -> Summary:
    """Score the frames of one source: `stream_cameras` for a single camera.

    Args:
        session: Opened inference session.
        source: Opened source of frames.
        sinks: Opened sinks. Each receives the verdicts in a thread of its own.
        size: Image size of the session.
        threshold: Decision threshold; a frame with a higher score is rejected. `line` may set another one later.
        policy: Name of the part, number of frames, and which frames get no verdict.
        stop: Event that ends the stream once it is set.
        line: Control by the line: pauses, thresholds, and the parts of a trigger.

    Returns:
        Counts and latencies of the stream.

    Raises:
        InputError: The line has a trigger, but the source is no camera.
        EdgeadError: The source or the inference failed, or a sink while the frames of a file were scored.
    """
    camera = Camera(source, sinks, threshold, policy, LineControl() if line is None else line)
    (summary,) = stream_cameras(session, [camera], size=size, stop=stop).cameras.values()
    return summary


def stream_cameras(
    session: Session,
    cameras: Sequence[Camera],
    *,
    size: ModelSize,
    sinks: Sequence[Sink] = (),
    batch: int = 1,
    stop: threading.Event | None = None,
    arrivals: Arrivals | None = None,
) -> LineSummary:
    """Score the frames of cameras until all of them end, `stop` is set, or a sink stops the stream.

    A camera ends with its source, and after `policy.max_frames` judged frames. The sinks are closed here, no source is.

    Args:
        session: Opened inference session.
        cameras: Cameras with different names.
        size: Image size of the session.
        sinks: Opened sinks of records for the events of all cameras.
        batch: Largest number of frames to score together.
        stop: Event that ends the stream once it is set.
        arrivals: Cameras that were absent at the start, and join the stream when they are there.

    Returns:
        Counts and latencies of each camera that has come, and the cameras that failed beside others.

    Raises:
        InputError: A line has a trigger, but the source is no camera.
        EdgeadError: An only source or the inference failed, or a sink while the frames of a file were scored.
    """
    stop = threading.Event() if stop is None else stop
    arrivals = Arrivals() if arrivals is None else arrivals
    absent = arrivals.sinks
    n_cameras = len(cameras) + len(absent)
    with ExitStack() as opened:
        waits = all(one.waits for one in cameras) and not absent
        survives = any(one.survives for one in cameras) or bool(absent)
        shared = opened.enter_context(Deliveries(sinks, waits=waits, survives=survives, stop=stop))
        loop = _Loop(session, size, batch, shared, stop, cameras=n_cameras)
        # Here, because an error closes the sinks, too.
        for name, own in [*((one.name, one.sinks) for one in cameras), *absent.items()]:
            loop.open_outputs(name, own, opened)
        for name in absent:
            loop.report(name, StateChange("starting", "starting", reason="the camera is absent"))
        _warm_up(session, size, min(batch, n_cameras))
        with ExitStack() as captures, suppress(StopStream):
            captures.enter_context(loop.examiner)
            for camera in cameras:
                loop.add(camera, captures)
            reason = "it was interrupted"
            try:
                reason = loop.run(arrivals, captures)
            except Exception as error:
                reason = "a sink has ended it" if isinstance(error, StopStream) else reason_of(error)
                raise
            finally:
                loop.stop(reason)
        with suppress(StopStream):
            loop.check_sinks()
    return loop.summary()


def _warm_up(session: Session, size: ModelSize, batch: int) -> None:
    """Score black images in batches of each size.

    The first inference allocates memory, and on a GPU it may compile. It runs before the capture, so that it delays no
    frame and counts in no latency.
    """
    for count in range(1, batch + 1):
        session.infer(np.zeros((count, size.height_px, size.width_px, 3), np.uint8))


class _Loop:
    """The cameras of one stream, and their turns."""

    def __init__(
        self,
        session: Session,
        size: ModelSize,
        batch: int,
        shared: Deliveries,
        stop: threading.Event,
        *,
        cameras: int,
    ) -> None:
        self._session, self._size = session, size
        self._shared, self._stop, self._is_alone = shared, stop, cameras == 1
        self._ready, self._service = threading.Event(), Service(several=cameras > 1)
        self.examiner = Examiner(cameras, batch, self._ready)
        self._outputs: dict[str, Deliveries] = {}
        self._by_name: dict[str, Judge] = {}
        self._turns: list[Judge] = []
        self._failed: dict[str, str] = {}
        self._wait_s = TICK_S

    def open_outputs(self, name: str, sinks: Sequence[Sink], opened: ExitStack) -> None:
        """Begin the delivery to the sinks of a camera, which may be absent."""
        own = Deliveries(sinks, waits=False, survives=True, stop=self._stop, camera=name, shared=self._shared)
        self._outputs[name] = opened.enter_context(own)

    def report(self, name: str, change: StateChange) -> None:
        """Report a change of the state of a camera that is absent."""
        self._service.state(change, name)
        self._outputs[name].state(change)

    def add(self, camera: Camera, captures: ExitStack) -> None:
        """Begin with a camera."""
        own = self._outputs[camera.name]
        own.follow(waits=camera.waits, survives=camera.survives)
        judge = Judge(camera, own, self._service.state, self._ready, self._size, is_alone=self._is_alone)
        self._by_name[camera.name] = judge
        self._turns.append(judge)
        captures.enter_context(judge.capture)

    def run(self, arrivals: Arrivals, captures: ExitStack) -> str:
        """Judge frames until the end; return why it has come. See `stream_cameras`."""
        while arrivals.expected or not all(one.is_over for one in self._turns):
            if self._stop.is_set():
                return "it was stopped"
            self._service.beat(time.monotonic())
            self._shared.check()
            if (arrived := arrivals.take()) is not None:
                self._arrive(*arrived, captures)
            # Before the look at the cameras, so that no frame that comes meanwhile is missed.
            self._ready.clear()
            self._begin()
            if taken := self.examiner.take():
                self._score(taken)
            else:
                self._ready.wait(self._wait_s)
        return "all cameras have ended"

    def stop(self, reason: str) -> None:
        """End with all cameras and their sinks."""
        for judge in self._turns:
            judge.stop(reason)
        self._service.stop()
        # A read that hangs and a sink that hangs share the time that the end may take.
        self._shared.finish(*self._outputs.values())

    def check_sinks(self) -> None:
        """Raise the failure of a sink. See `Deliveries.check`."""
        for one in (self._shared, *self._outputs.values()):
            one.check()

    def summary(self) -> LineSummary:
        """Return the counts, after the end."""
        found = {name: judge.summary() for name, judge in self._by_name.items()}
        failed = {name: one.failure for name, one in self._by_name.items() if one.failure is not None}
        return LineSummary(found, self._shared.counts(), {**self._failed, **failed})

    def _arrive(self, name: str, found: Camera | Exception, captures: ExitStack) -> None:
        """Begin with a camera that was absent; one that cannot be opened ends alone."""
        try:
            if isinstance(found, Exception):
                raise found
            self.add(found, captures)
        except Exception as error:
            reason = self._failed[name] = reason_of(error)
            log_failure(name, error)
            self.report(name, StateChange("stopped", "starting", reason=reason))

    def _begin(self) -> None:
        """Take frames, one of a camera at most, beginning with the camera that has waited longest."""
        self._wait_s = TICK_S
        for judge in list(self._turns):
            if judge.is_over or self.examiner.has_frame_of(judge):
                continue
            if self.examiner.room <= 0:
                break
            self._wait_s = min(self._wait_s, judge.wait_s())
            if (taken := judge.take()) is not None:
                self.examiner.begin(judge, taken[1], partial(judge.examine, *taken))
                self._turns.remove(judge)
                self._turns.append(judge)

    def _score(self, taken: Sequence[Taken]) -> None:
        """Score examined frames together, and give each judge the prediction of its frame."""
        admitted = []
        for one in taken:
            try:
                examined = one.examined.result()
            except Exception as error:
                one.judge.fail(error)
                continue
            if not one.judge.is_over and (framed := one.judge.admit(examined, one.taken_ns)) is not None:
                admitted.append((one, examined.frame, framed))
        if not admitted:
            return
        began_s = time.perf_counter()
        predictions = infer_frames(self._session, [framed for *_, framed in admitted])
        self.examiner.score_s = (time.perf_counter() - began_s) / len(admitted)
        for (one, frame, (_, rows)), prediction in zip(admitted, predictions, strict=True):
            one.judge.conclude(frame, one.taken_ns, rows, prediction)
