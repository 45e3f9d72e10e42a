"""A long stream with seeded faults in its source, its sinks and its disk, through the real loop and real receivers."""

from __future__ import annotations

import ctypes
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
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgead.runtime import FakeSession
from edgead.streaming import StreamPolicy, open_sinks, stream
from edgead.streaming.record import Record
from edgead.streaming.sinks import Sink
from edgead.streaming.sinks.base import RecordSink
from edgead.streaming.sources.live import LiveSource
from tests.helpers.mqtt_broker import Broker
from tests.helpers.soak_camera import FaultyDevice
from tests.helpers.soak_rules import Outcome
from tests.helpers.stream_parts import SIZE

# As in the unit file and the Docker images: glibc keeps no freed pieces of memory for each thread, and images are in
# pages of their own, which go back to the system; in the heap, blocks of so many sizes leave gaps.
ALLOCATOR = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "131072",
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0",
}
TOPIC = "soak"
_DISK_MB = 96
_SAMPLES = 100


class Tally(RecordSink):
    """Frame indices of all verdicts, and of the rejected ones, without a list that grows.

    It takes records: an image waits for the records of all other sinks, so thousands would wait for a pipe that is not
    read.
    """

    capacity = 10**6

    def __init__(self, frames: int) -> None:
        self._scored = np.full(2 * frames, 0, np.uint8)

    def record(self, record: Record) -> None:
        if record["event"] == "verdict":
            self._scored[record["frame_index"]] = 1 + record["is_anomalous"]

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

    def send(self, order: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(order + "\n")
        self._process.stdin.flush()

    def ask(self, order: str | None) -> str:
        assert self._process.stdout is not None
        with self._lock:
            if order is not None:
                self.send(order)
            return self._process.stdout.readline()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


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
    tally, samples, stop = Tally(frames), np.full((_SAMPLES, 4), -1), threading.Event()
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
            "rejects": f"rejects:{disk.folder}/rejects?keep=200",
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
        samples[samples[:, 0] >= 0],
        tally.scored(),
        tally.rejected(),
        records,
        on_disk,
        received,
        rate,
        dict(zip(names, summary.sinks, strict=False)),
    )


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
            ("webhook answers 500", lambda: receivers.send("hook 500"), lambda: receivers.send("hook 200")),
            ("webhook hangs", lambda: receivers.send("hook hang"), lambda: receivers.send("hook 200")),
            ("webhook hangs up", lambda: receivers.send("hook drop"), lambda: receivers.send("hook 200")),
            ("disk full", disk.fill, disk.free),
        ]
        rounds = max(1, frames // 10_000)
        self._steps: list[tuple[int, str, Callable[[], None]]] = []
        n_slots = rounds * len(pairs)
        for slot in range(n_slots):
            name, begin, end = pairs[slot % len(pairs)]
            start = int(frames * (0.05 + 0.9 * slot / n_slots))
            length = int(frames * 0.9 / n_slots * rng.uniform(0.5, 0.9))
            self._steps += [(start, name, begin), (start + length, "", end)]
        for start in range(0, frames, -(-frames // rounds)):
            # So long that the queue overflows in a long soak.
            self._steps += [
                (start + frames // rounds // 20, "pipe is not read", lambda: receivers.send("pipe pause")),
                (start + frames // rounds * 4 // 5, "", lambda: receivers.send("pipe go")),
            ]
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
    samples: npt.NDArray[np.int64],
    receivers: Receivers,
    sinks: list[Sink],
    stop: threading.Event,
) -> None:
    """Carry out the plan, take samples, and stop the stream when every record has arrived."""
    taken = 0
    try:
        while device.given < frames:
            plan.run_due()
            if device.given * _SAMPLES // frames >= taken:
                # An array: numbers of a list would be made at a peak of memory, and keep its blocks.
                samples[taken] = device.given, *_usage()
                taken += 1
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
    # Memory that glibc keeps for later allocations would hide what is in use.
    ctypes.CDLL(None).malloc_trim(0)
    resident = int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0])
    return resident, len(os.listdir("/proc/self/fd")), threading.active_count()
