"""Many frames with seeded faults of sinks and disk: every event is written or counted as lost, and nothing grows."""

import gc
import json
import os
import random
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from edgead.errors import SinkError
from edgead.runtime import FakeSession
from edgead.streaming import Sink, open_sinks, stream
from edgead.streaming.record import Record as JsonRecord
from edgead.streaming.sinks.base import RecordSink
from edgead.types import Float32Array, Frame, UInt8Array, Verdict
from tests.helpers.stream_parts import SIZE, Record, ScriptedSource, textured

FRAMES = 3000


class FaultyRecords(RecordSink):
    """A sink of records that fails at random, and keeps the frames that it took."""

    def __init__(self, rng: random.Random) -> None:
        self.frames: list[int] = []
        self._rng = rng

    def record(self, record: JsonRecord) -> None:
        if self._rng.random() < 0.02:
            raise SinkError("a fault")
        if record["event"] == "verdict":
            self.frames.append(record["frame_index"])


class FaultyImages(Sink):
    """A sink of images that fails at random."""

    logs_each_loss = True

    def __init__(self, rng: random.Random) -> None:
        self.frames: list[int] = []
        self._rng = rng

    def wants(self, verdict: Verdict) -> bool:
        return verdict.is_anomalous

    def write(self, frame: Frame, verdict: Verdict, anomaly_map: Float32Array) -> None:
        if self._rng.random() < 0.1:
            raise SinkError("a fault")
        self.frames.append(frame.index)


def n_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_every_event_is_written_or_counted_whatever_the_sinks_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgead.streaming.delivery.RETRY_S", 0.001)
    rng = random.Random(7)
    log, moved = tmp_path / "log" / "out.jsonl", tmp_path / "moved"
    log.parent.mkdir()
    moved.mkdir()
    # Sockets of earlier tests that libraries leave to the garbage collector.
    gc.collect()
    before = threading.active_count(), n_descriptors()
    records, images = FaultyRecords(random.Random(1)), FaultyImages(random.Random(2))
    seen = Record()
    sinks = [*open_sinks([f"jsonl:{log}?fsync_s=60"]), records, images, seen]

    def script() -> Iterator[UInt8Array]:
        for number in range(FRAMES):
            if rng.random() < 0.01:
                # Another program takes the log away, unless it is still away.
                with suppress(FileNotFoundError):
                    log.rename(moved / f"{number}.jsonl")
            yield textured(number % 200)

    source = ScriptedSource(script, live=False)
    # A watched folder waits for its sinks and survives their failures.
    source.endless = True
    session = FakeSession(SIZE, score=lambda image: float(image.min() < 20))
    summary = stream(session, source, sinks, size=SIZE, threshold=0.5)

    assert summary.frames_scored == len(seen.verdicts) == FRAMES
    file, record_count, image_count, seen_count = summary.sinks
    assert (seen_count.lost, file.lost) == (0, 0)
    files = [*sorted(moved.iterdir(), key=lambda path: int(path.stem)), log]
    lines = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    assert [line["frame_index"] for line in lines if line["event"] == "verdict"] == list(range(FRAMES))
    lost_images = [
        line["frame_index"] for line in lines if line["event"] == "lost" and line["frame_index"] is not None
    ]
    rejected = [verdict.frame_index for verdict in seen.verdicts if verdict.is_anomalous]
    assert sorted(lost_images + images.frames) == rejected
    assert (image_count.written, image_count.lost) == (len(images.frames), len(lost_images))
    assert image_count.lost > 0
    # Records in order, none twice.
    assert records.frames == sorted(set(records.frames))
    events = FRAMES + sum(line["event"] in ("lost", "state") for line in lines)
    assert record_count.written + record_count.lost == events
    assert (threading.active_count(), n_descriptors()) == before
