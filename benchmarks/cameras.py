"""Several cameras on one engine: what the others add to the latency and age of one, and the throughput of all.

    python benchmarks/cameras.py latency [--fps 15] [--seconds 20] [--rounds 3] [--together]
    python benchmarks/cameras.py throughput [--frames 200] [--rounds 3]
    python benchmarks/cameras.py soak [--frames 20000]

`latency` compares one camera with four on the fake session. Each gives noisy images of 640 x 480 pixels at its rate,
and their phases drift against each other; with `--together` all of them give their images at the same moments, as
behind one light barrier. `throughput` compares four sources that always have a frame with one, on RD with
EfficientNet-Lite0. `soak` runs four cameras with a page, two viewers that poll like a browser, each in a process of its
own, and marks of images. It prints memory, open files and threads, and ends with exit code 1 if one of them grows by
more than 2 % from the second tenth to the last. Set OMP_NUM_THREADS=1. On a machine with other work, `chrt -f 10` keeps
that out of the latency.
"""

from __future__ import annotations

import argparse
import ctypes
import http.client
import json
import math
import multiprocessing
import os
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from edgead.imaging.preprocess import ModelSize
from edgead.runtime import FakeSession, open_session
from edgead.runtime.base import Session
from edgead.streaming import LineControl, StreamPolicy
from edgead.streaming.camera import Camera
from edgead.streaming.loop import stream_cameras
from edgead.streaming.page import Page, PageAddress, PageCamera
from edgead.streaming.page.feedback import FeedbackAddress, FeedbackFolder
from edgead.streaming.page.threshold import ThresholdDesk
from edgead.streaming.sources import Source
from edgead.streaming.summary import LineSummary
from edgead.types import Frame
from tests.helpers.soak import ALLOCATOR

SIZE = ModelSize(256, 256)
N_CAMERAS, N_VIEWERS = 4, 2


class Paced(Source):
    """A camera with other noise in each image, at a rate; without one, a file that always has a frame."""

    def __init__(self, number: int, fps: float | None = None, *, together: bool = False) -> None:
        super().__init__(f"paced:{number}", fps)
        self.live, self._number, self._together = fps is not None, number, together
        # Before the capture, because it takes longer than an image.
        self._image = np.random.default_rng(number).integers(0, 256, (480, 640, 3), np.uint8)

    def __iter__(self) -> Iterator[Frame]:
        start_s, index = time.monotonic(), 0
        while not self._stopping.is_set():
            image = np.roll(self._image, index, 0)
            if self.fps is not None:
                if self._together:
                    # The next moment of a clock that all cameras have.
                    due_s = math.ceil(time.monotonic() * self.fps) / self.fps
                else:
                    # The rates differ, so all phases between the cameras occur.
                    due_s = start_s + (index + 1) * (1.0 + 0.02 * self._number) / self.fps
                if self._stopping.wait(max(0.0, due_s - time.monotonic())):
                    return
            yield Frame(image, index, time.monotonic_ns(), self.uri)
            index += 1


def run(
    session: Session, n_cameras: int, fps: float | None, frames: int, *, together: bool = False
) -> LineSummary:
    cameras = [
        Camera(
            Paced(number, fps, together=together),
            [],
            1e3,
            StreamPolicy(max_frames=frames),
            name=f"camera{number}",
        )
        for number in range(n_cameras)
    ]
    return stream_cameras(session, cameras, size=SIZE)


def latency(fps: float, seconds: float, rounds: int, *, together: bool) -> None:
    print(
        f"{fps:g} fps each, {seconds:g} s, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}"
    )
    print("| round | cameras | latency p50, p99 (ms) | age p50, p99 (ms) | dropped |\n|---|---|---|---|---|")
    added: list[float] = []
    with FakeSession(SIZE, score=0.5) as session:
        for number in range(rounds):
            ages: list[float] = []
            for n_cameras in (1, N_CAMERAS):
                frames = round(fps * seconds)
                found = run(session, n_cameras, fps, frames, together=together).cameras.values()
                names = ("latency_p50_ms", "latency_p99_ms", "age_p50_ms", "age_p99_ms", "frames_dropped")
                worst = {name: max(getattr(one, name) for one in found) for name in names}
                ages.append(worst["age_p99_ms"])
                print(
                    f"| {number} | {n_cameras} | {worst['latency_p50_ms']:.2f}, {worst['latency_p99_ms']:.2f} "
                    f"| {worst['age_p50_ms']:.2f}, {ages[-1]:.2f} | {worst['frames_dropped']:.0f} |",
                    flush=True,
                )
            added.append(ages[1] - ages[0])
    print(f"added to the age at p99, worst camera: {', '.join(f'{one:.2f}' for one in added)} ms")


def throughput(frames: int, rounds: int) -> None:
    from benchmarks.random_bundle import write_random_bundle

    shares: list[float] = []
    print("| cameras | verdicts a second |\n|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        bundle = write_random_bundle(Path(folder) / "bundle", "tf_efficientnet_lite0", SIZE)
        with open_session(bundle, threads=1) as session:
            for _ in range(rounds):
                rates = []
                for n_cameras in (1, N_CAMERAS, 1):
                    start_s = time.process_time()
                    run(session, n_cameras, None, frames // n_cameras)
                    rates.append(frames / (time.process_time() - start_s))
                    print(f"| {n_cameras} | {rates[-1]:.2f} |", flush=True)
                shares.append(2 * rates[1] / (rates[0] + rates[2]))
    print(f"four cameras have {statistics.median(shares):.1%} of the rate of one (CPU time, median)")


def ask(port: int, method: str, path: str, body: object = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with suppress(OSError, http.client.HTTPException):
        data = None if body is None else json.dumps(body).encode()
        connection.request(method, path, data, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    return 0, b""


def view(port: int, stop: Event, counts: Connection) -> None:
    """Poll like the page of a browser, and mark an image now and then, in a process of its own."""
    turn, found = 0, Counter[str]()
    while not stop.wait(0.2):
        name, turn = f"camera{turn % N_CAMERAS}", turn + 1
        status, _ = ask(port, "GET", f"/live.jpg?camera={name}")
        found[f"image {status}"] += 1
        if turn % 5 == 0:
            found[f"cameras {ask(port, 'GET', '/cameras')[0]}"] += 1
            status, data = ask(port, "GET", f"/numbers?camera={name}")
            found[f"numbers {status}"] += 1
            numbers = json.loads(data or b"{}")
            if turn % 50 == 0 and numbers.get("rejects"):
                number = numbers["rejects"][0]["number"]
                found[f"reject {ask(port, 'GET', f'/image.jpg?camera={name}&number={number}')[0]}"] += 1
                mark = {
                    "camera": name,
                    "run": numbers["run"],
                    "name": "soak",
                    "label": "good",
                    "number": number,
                }
                found[f"mark {ask(port, 'POST', '/mark', mark)[0]}"] += 1
    counts.send(found)


class Allocated(ctypes.Structure):
    """The structure `mallinfo2` of glibc."""

    _fields_ = [(f"field{number}", ctypes.c_size_t) for number in range(10)]

    @property
    def n_bytes(self) -> int:
        """Bytes that are given out: in pages of their own (hblkhd), and of the heap (uordblks)."""
        return int(self.field4) + int(self.field7)


def sample() -> tuple[float, float, int, int]:
    """Return resident memory and the part of it that glibc has given out, in MiB, open files and threads."""
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = Allocated
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return (
        pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        mallinfo2().n_bytes / 2**20,
        len(os.listdir("/proc/self/fd")),
        threading.active_count(),
    )


def soak(frames: int, fps: float) -> bool:
    samples: list[tuple[float, float, int, int]] = []
    context = multiprocessing.get_context("spawn")
    stop, pipes = context.Event(), [context.Pipe() for _ in range(N_VIEWERS)]
    with tempfile.TemporaryDirectory() as folder, Page(PageAddress("127.0.0.1", 0)) as page:
        feedback = FeedbackFolder(FeedbackAddress(Path(folder), 50_000_000), {"part"})
        lines = [LineControl() for _ in range(N_CAMERAS)]
        desk = ThresholdDesk(0.9, "part", None, *lines)
        shown = [
            PageCamera(f"camera{n}", desk, line, None, feedback, None, N_CAMERAS)
            for n, line in enumerate(lines)
        ]
        page.start(shown)
        policy = StreamPolicy(max_frames=frames // N_CAMERAS)
        cameras = [
            Camera(Paced(n, fps), one.sinks(), 0.9, policy, one.line, one.name) for n, one in enumerate(shown)
        ]
        viewers = [context.Process(target=view, args=(page.port, stop, pipe)) for _, pipe in pipes]
        found: list[LineSummary] = []
        rng = np.random.default_rng(0)
        with FakeSession(SIZE, score=lambda image: float(rng.random())) as session:
            loop = threading.Thread(target=lambda: found.append(stream_cameras(session, cameras, size=SIZE)))
            for one in (*viewers, loop):
                one.start()
            while loop.is_alive():
                samples.append(sample())
                loop.join(1.0)
        stop.set()
        counts = sum((pipe.recv() for pipe, _ in pipes), Counter[str]())
    is_flat = True
    print(f"| {len(samples)} s | second tenth | last tenth |\n|---|---|---|")
    names = ("resident memory, MiB", "of it in use, MiB", "open files", "threads")
    tenths = np.array_split(np.array(samples), 10)
    for column, name in enumerate(names):
        # The least of each: the images in hand at one moment differ by a dozen.
        early, late = float(tenths[1][:, column].min()), float(tenths[-1][:, column].min())
        is_flat &= late <= 1.02 * early
        print(f"| {name} | {early:.1f} | {late:.1f} |")
    print("resident memory of each tenth:", *(f"{one[:, 0].min():.1f}" for one in tenths))
    for camera, summary in found[0].cameras.items():
        print(
            camera,
            summary.frames_scored,
            "scored",
            summary.frames_dropped,
            "dropped",
            summary.rejected,
            "rejected",
        )
    print(dict(sorted(counts.items())))
    return is_flat


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["latency", "throughput", "soak"])
    parser.add_argument("--fps", type=float, default=15.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--frames", type=int, default=None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--together", action="store_true")
    chosen = parser.parse_args()
    if chosen.what == "latency":
        latency(chosen.fps, chosen.seconds, chosen.rounds, together=chosen.together)
    elif chosen.what == "throughput":
        throughput(chosen.frames or 200, chosen.rounds)
    elif not ALLOCATOR.items() <= os.environ.items():
        # Memory in use is measured, not the pieces that glibc keeps for each thread.
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ALLOCATOR})
    elif not soak(chosen.frames or 20_000, chosen.fps):
        sys.exit(1)


if __name__ == "__main__":
    main()
