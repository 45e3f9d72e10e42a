"""A long stream with seeded faults in its source, its sinks and its disk, through the real loop and real receivers."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgead.errors import ImageError
from edgead.runtime import FakeSession
from edgead.streaming import StreamPolicy, Summary, open_sinks, stream
from edgead.streaming.sinks import Sink, SinkCount
from edgead.streaming.sources.live import LiveSource
from edgead.types import Float32Array, Frame, UInt8Array, Verdict
from tests.helpers.mqtt_broker import Broker
from tests.helpers.stream_parts import SIZE

TOPIC = "soak"
_SHAPE = (48, 80, 3)
_POOL = 64
_ROW = 12
_DISK_MB = 96


class FaultyDevice:
    """A camera with faults: what it gives next is drawn by lot.

    Args:
        frames: Number of images after which no more come.
        rng: Chooses the faults.
        period_s: Time between two images, in seconds.

    Attributes:
        given: Number of images so far, whole or damaged.
        faults: Number of images of each kind of fault, and of lost connections.
    """

    def __init__(self, frames: int, rng: random.Random, period_s: float) -> None:
        self.given, self.faults = 0, Counter[str]()
        self._frames, self._rng, self._period_s = frames, rng, period_s
        noise = np.random.default_rng(rng.randrange(2**32))
        # Pixels of a bundle of images; the corner of each says how anomalous it is.
        self._pool = noise.integers(20, 220, (_POOL, *_SHAPE), np.uint8)
        self._fault, self._left, self._stamp_ms = "", 0, 0.0
        self._latest = self._pool[0]
        self._due_s = time.monotonic()

    def isOpened(self) -> bool:  # noqa: N802 (OpenCV's name)
        return True

    def read(self) -> tuple[bool, UInt8Array | None]:
        self._due_s = max(self._due_s + self._period_s, time.monotonic() - 0.05)
        time.sleep(max(0.0, self._due_s - time.monotonic()))
        if self.given >= self._frames:
            time.sleep(0.01)
            return True, None
        if self._left == 0:
            self._begin_row()
        self._left -= 1
        if self._fault == "lost":
            self.faults["lost"] += 1
            return False, None
        self.given += 1
        self.faults[self._fault] += bool(self._fault)
        self._stamp_ms = time.monotonic() * 1e3 - (5e3 if self._fault == "late" else 0.0)
        if self._fault == "truncated":
            raise ImageError("an image is truncated")
        if self._fault == "black":
            return True, np.zeros(_SHAPE, np.uint8)
        if self._fault == "size":
            return True, self._pool[0][:24]
        if self._fault != "frozen":
            self._latest = self._pool[self.given % _POOL].copy()
            self._latest[:8, :8] = self._rng.randrange(220)
        return True, self._latest

    def _begin_row(self) -> None:
        kinds = ("lost", "frozen", "truncated", "black", "late", "size")
        self._fault = self._rng.choice(kinds) if self._rng.random() < 0.4 else ""
        self._left = 1 if self._fault == "lost" else self._rng.randint(1, _ROW if self._fault else 10 * _ROW)

    def get(self, property_id: int, /) -> float:
        return self._stamp_ms if property_id == cv2.CAP_PROP_POS_MSEC else 0.0

    def release(self) -> None:
        pass


class Tally(Sink):
    """Frame indices of all verdicts, and of the rejected ones, without a list that grows."""

    capacity = 10**6

    def __init__(self, frames: int) -> None:
        self._scored = np.zeros(2 * frames, np.uint8)

    def write(self, frame: Frame, verdict: Verdict, anomaly_map: Float32Array) -> None:
        self._scored[frame.index] = 1 + verdict.is_anomalous

    def scored(self) -> list[int]:
        return [int(index) for index in np.flatnonzero(self._scored)]

    def rejected(self) -> list[int]:
        return [int(index) for index in np.flatnonzero(self._scored == 2)]


class Receivers:
    """The process of `soak_receiver.py`."""

    def __init__(self, pipe: Path, port: int) -> None:
        script = Path(__file__).with_name("soak_receiver.py")
        self._process = subprocess.Popen(
            [sys.executable, str(script), TOPIC, str(pipe), str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lock = threading.Lock()
        self.port = int(self.ask(None))

    def tell(self, order: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(order + "\n")
        self._process.stdin.flush()

    def ask(self, order: str | None) -> str:
        assert self._process.stdout is not None
        with self._lock:
            if order is not None:
                self.tell(order)
            return self._process.stdout.readline()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@dataclass
class Outcome:
    """Result of a soak.

    Attributes:
        summary: Summary of the stream.
        given: Number of images that the source gave.
        faults: Number of faults of each kind.
        samples: Frames so far, resident memory in KiB, open files and threads, a hundred times in the run.
        scored: Frame indices of the verdicts.
        rejected: Frame indices of the rejected ones.
        log: Records of the log that is never away.
        disk_log: Records of the log on the disk that gets full.
        received: What the receivers report: "hook", "mqtt" and "pipe".
        rate: Images a second.
    """

    summary: Summary
    given: int
    faults: Counter[str]
    samples: list[tuple[int, int, int, int]]
    scored: list[int]
    rejected: list[int]
    log: list[dict[str, Any]]
    disk_log: list[dict[str, Any]]
    received: dict[str, dict[str, Any]]
    rate: float
    sinks: dict[str, SinkCount] = field(default_factory=dict)


def soak(folder: Path, frames: int, *, seed: int = 1, period_s: float = 0.001) -> Outcome:
    """Run a stream with faults.

    Args:
        folder: Empty folder for all its files.
        frames: Number of images of the source.
        seed: Seed of all faults.
        period_s: Time between two images, in seconds.
    """
    rng = random.Random(seed)
    device = FaultyDevice(frames, rng, period_s)
    source = LiveSource(
        "soak", lambda: device, "", first_wait_s=0.001, longest_wait_s=0.002, timestamps="monotonic"
    )
    tally, samples, stop = Tally(frames), [], threading.Event()
    with ExitStack() as stack:
        disk = stack.enter_context(_small_disk(folder / "disk"))
        broker = stack.enter_context(Broker(folder / "broker"))
        os.mkfifo(folder / "pipe")
        receivers = Receivers(folder / "pipe", broker.port)
        stack.callback(receivers.close)
        names = {
            "log": f"jsonl:{folder}/log.jsonl?max_mb=2&keep=1000",
            "disk": f"jsonl:{disk.folder}/log.jsonl",
            "pipe": f"jsonl:{folder}/pipe",
            "mqtt": f"mqtt://127.0.0.1:{broker.port}/{TOPIC}?spool={disk.folder}/mqtt.spool",
            "hook": f"webhook:http://127.0.0.1:{receivers.port}/#spool={disk.folder}/hook.spool",
            "rejects": f"rejects:{disk.folder}/rejects?keep=2000",
            "video": f"video:{folder}/out.mkv?fps=100&segment_s=5&keep=2",
        }
        sinks = open_sinks(list(names.values()))
        plan = Plan(rng, frames, device, broker, receivers, disk, folder)
        watch = threading.Thread(target=_watch, args=(device, frames, plan, samples, receivers, sinks, stop))
        watch.start()
        start_s = time.monotonic()
        session = FakeSession(SIZE, score=lambda image: float(image[0, 0, 0]) / 255)
        with source:
            policy = StreamPolicy(withhold_still="never")
            summary = stream(
                session, source, [*sinks, tally], size=SIZE, threshold=0.8, policy=policy, stop=stop
            )
        watch.join()
        rate = device.given / (time.monotonic() - start_s)
        received = json.loads(receivers.ask("report"))
        logs = sorted(folder.glob("moved_*.jsonl*")) + sorted(folder.glob("log.jsonl*"))
        records = [json.loads(line) for path in logs for line in path.read_bytes().splitlines()]
        on_disk = [json.loads(line) for line in (disk.folder / "log.jsonl").read_bytes().splitlines()]
    return Outcome(
        summary,
        device.given,
        device.faults + plan.faults,
        samples,
        tally.scored(),
        tally.rejected(),
        records,
        on_disk,
        received,
        rate,
        dict(zip(names, summary.sinks, strict=False)),
    )


def violations(outcome: Outcome) -> list[str]:
    """Return what the outcome of a soak breaks: the count of frames, or the policy of a sink."""
    counts, sinks, scored = outcome.summary, outcome.sinks, outcome.scored
    sums = counts.frames_scored + counts.frames_dropped + counts.frames_withheld + counts.frames_broken
    log_frames, disk_frames = (
        [record["frame_index"] for record in records if record["event"] == "verdict"]
        for records in (outcome.log, outcome.disk_log)
    )
    lost_images = [
        record["frame_index"]
        for record in outcome.log
        if record["event"] == "lost" and record["sink"] == sinks["rejects"].sink
    ]
    rejects, video, received = sinks["rejects"], sinks["video"], outcome.received
    events = sinks["log"].written
    rules = {
        "every image is scored, dropped, withheld or broken": outcome.given == counts.frames_seen == sums,
        "every verdict is in the log, in order": log_frames == scored and sinks["log"].lost == 0,
        "every line of the log was counted": len(outcome.log) == events,
        "every other line of the disk was counted as lost": _is_part(disk_frames, scored)
        and len(outcome.disk_log) == sinks["disk"].written == events - sinks["disk"].lost,
        "every other line of the pipe was counted as lost": _is_part(received["pipe"]["frames"], scored)
        and received["pipe"]["records"] == sinks["pipe"].written == events - sinks["pipe"].lost,
        "every reject is on the disk or in the log": rejects.lost == len(lost_images)
        and _is_part(sorted(lost_images), outcome.rejected)
        and rejects.written + rejects.lost == len(outcome.rejected),
        "every verdict is in the video or counted as lost": video.written + video.lost == len(scored),
    }
    for name in ("mqtt", "hook"):
        got = received[name]
        rules[f"every record arrives, in order: {name}"] = (
            got["frames"] == scored and got["in_order"] and got["records"] == sinks[name].written == events
        )
    return [rule for rule, holds in rules.items() if not holds]


def _is_part(part: list[int], whole: list[int]) -> bool:
    """Return True if `part` is `whole` without some of its entries, in the same order."""
    rest = iter(whole)
    return all(entry in rest for entry in part)


@dataclass
class Disk:
    """A small disk. `fill` leaves no room on it, `free` makes room again."""

    folder: Path
    is_mounted: bool

    def fill(self) -> None:
        if self.is_mounted:
            with open(self.folder / "ballast", "wb", buffering=0) as file, suppress(OSError):
                while file.write(bytes(2**16)):
                    pass
        else:
            self.folder.rename(self.folder.with_name("away"))

    def free(self) -> None:
        if self.is_mounted:
            (self.folder / "ballast").unlink()
        else:
            self.folder.with_name("away").rename(self.folder)


@contextmanager
def _small_disk(folder: Path) -> Iterator[Disk]:
    """A disk in memory; without the right to mount one, a folder that is away in place of being full."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_MB}m", "tmpfs", str(folder)]
    is_mounted = not subprocess.run(command, capture_output=True, check=False).returncode
    try:
        yield Disk(folder, is_mounted)
    finally:
        if is_mounted:
            subprocess.run(["umount", str(folder)], check=True)


class Plan:
    """Faults of sinks and disk, each at a share of the frames, and its end a little later."""

    def __init__(
        self,
        rng: random.Random,
        frames: int,
        device: FaultyDevice,
        broker: Broker,
        receivers: Receivers,
        disk: Disk,
        folder: Path,
    ) -> None:
        self.faults = Counter[str]()
        self._device, self._folder = device, folder
        pairs: list[tuple[str, Callable[[], None], Callable[[], None]]] = [
            ("broker stopped", broker.stop, broker.start),
            ("webhook answers 500", lambda: receivers.tell("hook 500"), lambda: receivers.tell("hook 200")),
            ("webhook hangs", lambda: receivers.tell("hook hang"), lambda: receivers.tell("hook 200")),
            ("webhook hangs up", lambda: receivers.tell("hook drop"), lambda: receivers.tell("hook 200")),
            ("pipe is not read", lambda: receivers.tell("pipe pause"), lambda: receivers.tell("pipe go")),
            ("disk full", disk.fill, disk.free),
        ]
        rounds = max(1, frames // 20_000)
        self._steps: list[tuple[int, str, Callable[[], None]]] = []
        n_slots = rounds * len(pairs)
        for slot in range(n_slots):
            name, begin, end = pairs[slot % len(pairs)]
            start = int(frames * (0.05 + 0.9 * slot / n_slots))
            length = int(frames * 0.9 / n_slots * rng.uniform(0.5, 0.9))
            self._steps += [(start, name, begin), (start + length, "", end)]
        for _ in range(5 * rounds):
            self._steps.append((rng.randrange(frames), "log taken away", self._take_log))
        self._steps.sort(key=lambda step: step[0])

    def run_due(self) -> None:
        while self._steps and self._device.given >= self._steps[0][0]:
            _, name, act = self._steps.pop(0)
            act()
            self.faults[name] += bool(name)

    def _take_log(self) -> None:
        log = self._folder / "log.jsonl"
        if log.exists():
            log.rename(self._folder / f"moved_{self._device.given:09d}.jsonl")


def _watch(
    device: FaultyDevice,
    frames: int,
    plan: Plan,
    samples: list[tuple[int, int, int, int]],
    receivers: Receivers,
    sinks: list[Sink],
    stop: threading.Event,
) -> None:
    """Carry out the plan, take samples, and stop the stream when every record has arrived."""
    try:
        while device.given < frames:
            plan.run_due()
            if device.given * 100 // frames >= len(samples):
                samples.append((device.given, *_usage()))
            time.sleep(0.002)
        plan.run_due()
        end_s, counts, since_s = time.monotonic() + 120, "", 0.0
        # The receivers have everything when all sinks work and nothing has arrived for a while.
        while time.monotonic() < end_s and (counts == "" or time.monotonic() - since_s < 0.5):
            before, counts = counts, receivers.ask("count")
            if counts != before or any(sink.problem() for sink in sinks):
                since_s = time.monotonic()
            time.sleep(0.02)
    finally:
        stop.set()


def _usage() -> tuple[int, int, int]:
    """Return the resident memory in KiB, the open files and the threads of this process."""
    resident = int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0])
    return resident, len(os.listdir("/proc/self/fd")), threading.active_count()
