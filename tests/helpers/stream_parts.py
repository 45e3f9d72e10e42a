"""Images, sources and sinks for tests of the stream."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgead.imaging.preprocess import ModelSize
from edgead.streaming.sinks import Sink
from edgead.streaming.sinks.base import RecordSink
from edgead.streaming.sources import Source
from edgead.streaming.state import StateChange
from edgead.types import Float32Array, Frame, UInt8Array, Verdict

SIZE = ModelSize(32, 64)


def textured(level: int, height: int = 48, width: int = 80) -> UInt8Array:
    """An image about as bright as `level`, not of one colour, and different for every level."""
    image = np.full((height, width, 3), level, np.uint8)
    image[::2, ::2] += 8
    return image


def frame(image: UInt8Array, index: int = 0) -> Frame:
    return Frame(image=image, index=index, captured_at_ns=time.monotonic_ns(), source="test")


def write_video(path: Path, images: Iterable[UInt8Array], fps: float = 25.0) -> Path:
    writer = None
    for image in images:
        if writer is None:
            shape = (image.shape[1], image.shape[0])
            writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), fps, shape)
            assert writer.isOpened()
        writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    assert writer is not None
    writer.release()
    return path


def break_frames(video: Path, *indices: int) -> None:
    """Damage frames of a video of `write_video`: each ends early, as a truncated JPEG does."""
    before, *frames = video.read_bytes().split(b"\xff\xd8\xff")
    for index in indices:
        middle = len(frames[index]) // 2
        frames[index] = frames[index][:middle] + b"\xff\xd9" * 20 + frames[index][middle + 40 :]
    video.write_bytes(b"\xff\xd8\xff".join([before, *frames]))


def verdicts_of(lines: str) -> list[dict[str, Any]]:
    """The verdicts among JSON lines."""
    return [record for record in map(json.loads, lines.splitlines()) if record["event"] == "verdict"]


def write_image(path: Path, image: UInt8Array) -> Path:
    assert cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return path


class ScriptedSource(Source):
    """A source that takes its images from a generator, which may wait for events of the stream."""

    def __init__(self, script: Callable[[], Iterator[UInt8Array]], live: bool) -> None:
        super().__init__("scripted")
        self._script = script
        self.live = live
        self.stopped = self._stopping

    def __iter__(self) -> Iterator[Frame]:
        for index, image in enumerate(self._script()):
            if self._stopping.is_set():
                return
            yield frame(image, index)


class Records(RecordSink):
    """A sink that keeps the records."""

    def __init__(self) -> None:
        self.records: list[Mapping[str, Any]] = []

    def record(self, record: Mapping[str, Any]) -> None:
        self.records.append(record)

    def of(self, *events: str) -> list[Mapping[str, Any]]:
        return [record for record in list(self.records) if record["event"] in events]

    @property
    def states(self) -> list[tuple[str, ...]]:
        """Each state with its causes."""
        return [(record["state"], *record["causes"]) for record in self.of("state")]

    def close(self) -> None:
        pass


class Record(Sink):
    """A sink that records its calls."""

    def __init__(self) -> None:
        self.verdicts: list[Verdict] = []
        self.maps: list[Float32Array] = []
        self.missing: list[tuple[int, str]] = []
        self.ticks = 0

    def write(self, frame: Frame, verdict: Verdict, anomaly_map: Float32Array) -> None:
        self.verdicts.append(verdict)
        self.maps.append(anomaly_map)

    def withheld(self, frame: Frame, reason: str) -> None:
        self.missing.append((frame.index, reason))

    def tick(self) -> None:
        self.ticks += 1


class StateRecord(Record):
    """A sink that also records the changes of the state."""

    def __init__(self) -> None:
        super().__init__()
        self.changes: list[StateChange] = []

    def state(self, change: StateChange) -> None:
        self.changes.append(change)

    @property
    def losses(self) -> list[StateChange]:
        """Changes to no signal, and of its causes."""
        return [change for change in self.changes if change.state == "no_signal"]

    @property
    def states(self) -> list[str]:
        return [change.state for change in self.changes]
