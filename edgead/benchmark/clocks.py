"""The three clocks of a benchmark.

- `device`: from a batch of images at the model's size in host memory to maps and scores in host memory.
- `e2e`: from a camera's image in hand to the verdict: checks of the image, resize, inference, decision and regions,
  through the loop of `edgead stream`, as fast as it goes.
- `paced`: the same loop with a camera that gives images at its rate, so that the processor idles in between. Its ages
  run from the capture to the verdict.

The clocks take turns in several rounds, so that a change of the load of the machine meets all of them. Each round also
times a fixed calculation, the yardstick, which tells a slower machine from a slower model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np

from edgead.benchmark.report import ROUNDS, Clock, Conditions, Round
from edgead.errors import InputError
from edgead.imaging.preprocess import ModelSize, batch_from_images
from edgead.imaging.view import View
from edgead.runtime.base import Session
from edgead.runtime.timing import inference_times_ms
from edgead.streaming import StreamPolicy, stream
from edgead.streaming.record import Record
from edgead.streaming.sinks.base import RecordSink
from edgead.streaming.sources.base import Source
from edgead.types import Frame, UInt8Array

Measured: TypeAlias = tuple[dict[str, Clock], tuple[float, ...]]

_POOL = 16
_LEAST_RUNS = 5
# As long as an inference, because other programs interrupt a short calculation less often.
_YARDSTICK_VALUES = 200_000
_YARDSTICK_RUNS = 9


def measure(
    session: Session,
    size: ModelSize,
    threshold: float,
    view: View,
    images: Sequence[UInt8Array],
    conditions: Conditions,
    on_round: Callable[[int], None] = lambda _: None,
) -> Measured:
    """Measure a session with all chosen clocks.

    Args:
        session: Opened session.
        size: Size of its images.
        threshold: Decision threshold.
        view: Part of a camera's image that the model inspects.
        images: Images to score in turn, each (H, W, 3) uint8 RGB at the camera's size; see `camera_images`.
        conditions: Clocks, batch, rate and durations.
        on_round: Function that is called with the number of each round, 1 to `ROUNDS`, when it begins.

    Returns:
        The measured clocks by name, and the median time of the yardstick in each round, in milliseconds.

    Raises:
        InputError: A clock measured nothing, because the time is too short.
        BackendError: The session fails.
    """
    round_s = conditions.seconds / ROUNDS
    at_size = [batch_from_images([image], size)[0] for image in images]
    batch = np.stack([at_size[index % len(at_size)] for index in range(conditions.batch)])
    inference_times_ms(session, batch, warm_up=0, runs=_runs_in(session, batch, conditions.warm_up_s))

    def device() -> Round:
        start_s = time.perf_counter()
        taken_ms = inference_times_ms(session, batch, warm_up=1, runs=_runs_in(session, batch, round_s))
        return Round.of(taken_ms, len(taken_ms) * conditions.batch / (time.perf_counter() - start_s))

    def streamed(source: Source) -> Round:
        sink = _Latencies()
        policy = StreamPolicy(withhold_still="never", view=view)
        summary = stream(session, source, [sink], size=size, threshold=threshold, policy=policy)
        return Round.of(sink.latencies_ms, summary.frames_scored / summary.duration_s, sink.ages_ms)

    clocks: dict[str, Callable[[], Round]] = {
        "device": device,
        "e2e": lambda: streamed(_Repeated(images, round_s)),
        "paced": lambda: streamed(_Repeated(images, round_s, conditions.fps)),
    }
    rounds: dict[str, list[Round]] = {name: [] for name in conditions.clocks}
    yardstick_ms = []
    for number in range(1, ROUNDS + 1):
        on_round(number)
        yardstick_ms.append(_yardstick_ms())
        for name, of_clock in rounds.items():
            of_clock.append(clocks[name]())
            if not of_clock[-1].times_ms:
                hint = f"give more than {conditions.seconds:g} seconds"
                raise InputError(f"the clock {name} measured nothing in a round", hint=hint)
    return {name: Clock.of(of_clock) for name, of_clock in rounds.items()}, tuple(yardstick_ms)


def camera_images(golden: UInt8Array, width_px: int, height_px: int) -> list[UInt8Array]:
    """Make images like those of a camera: each is another one, so none is taken for a frozen camera.

    Args:
        golden: Images of the bundle, (N, H, W, 3) uint8 RGB; noise takes their place if N is 0.
        width_px: Width of the camera's images.
        height_px: Height of the camera's images.

    Returns:
        Images (height_px, width_px, 3) uint8 RGB.
    """
    noise = np.random.default_rng(0)
    made = []
    for index in range(_POOL):
        if len(golden):
            # Nearest neighbours, as any resize does: only the number of pixels matters for the time.
            image = golden[index % len(golden)]
            rows = np.arange(height_px) * image.shape[0] // height_px
            columns = np.arange(width_px) * image.shape[1] // width_px
            made.append(np.roll(image[rows][:, columns], index, axis=1))
        else:
            made.append(noise.integers(0, 256, (height_px, width_px, 3), np.uint8))
    return made


class _Repeated(Source):
    """Images in memory, again and again for a time; with a rate like a camera, otherwise like a file."""

    def __init__(self, images: Sequence[UInt8Array], seconds: float, fps: float | None = None) -> None:
        super().__init__("bench", fps)
        self.live = fps is not None
        self._images, self._seconds = images, seconds

    def __iter__(self) -> Iterator[Frame]:
        start_s = due_s = time.monotonic()
        index = 0
        while not self._stopping.is_set() and time.monotonic() - start_s < self._seconds:
            if self.fps is not None:
                due_s += 1 / self.fps
                self._stopping.wait(max(0.0, due_s - time.monotonic()))
            image = self._images[index % len(self._images)]
            yield Frame(image=image, index=index, captured_at_ns=time.monotonic_ns(), source=self.uri)
            index += 1


class _Latencies(RecordSink):
    """Latencies and ages of all verdicts."""

    capacity = 10**6

    def __init__(self) -> None:
        self.latencies_ms: list[float] = []
        self.ages_ms: list[float] = []

    def record(self, record: Record) -> None:
        if record["event"] == "verdict":
            self.latencies_ms.append(record["latency_ms"])
            if record["age_ms"] is not None:
                self.ages_ms.append(record["age_ms"])


def _runs_in(session: Session, batch: UInt8Array, seconds: float) -> int:
    """Number of inferences that take about this time, by one that is measured."""
    (once_ms,) = inference_times_ms(session, batch, warm_up=0, runs=1)
    return max(_LEAST_RUNS, round(seconds * 1e3 / max(once_ms, 1e-3)))


def _yardstick_ms() -> float:
    """Median time of a fixed calculation on one core, in milliseconds."""
    values = np.random.default_rng(0).random(_YARDSTICK_VALUES)
    taken_ms = []
    for _ in range(_YARDSTICK_RUNS):
        start_s = time.perf_counter()
        # Not a product of matrices, for which libraries use as many threads as there are cores.
        np.sort(values, kind="heapsort")
        taken_ms.append(1e3 * (time.perf_counter() - start_s))
    return float(np.median(taken_ms))
