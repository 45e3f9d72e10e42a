"""Attacks on the page of a stream: how much of its rate the loop keeps.

    python benchmarks/page_attacks.py [NAME ...] [--seconds 6] [--rounds 3]

A stream with four cameras scores images of 640 x 480 pixels as fast as it can, with a session that computes for about
five milliseconds, so every moment that the page takes is missing in its rate. It has one core of the machine, and the
attackers have the other ones. The rate is the number of frames in a second of the CPU time of the process with loop and
page, so other programs of the machine do not count. The rate under each attack is compared with the mean of the rates
right before and after it. Where the rate itself varies, because other machines share the memory, the share of the CPU
time of the process that the thread of the loop has tells more; it is compared in the same way. Names choose some of the
attacks.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from edgead.imaging.preprocess import ModelSize
from edgead.runtime import FakeSession
from edgead.streaming import LineControl
from edgead.streaming.camera import Camera
from edgead.streaming.loop import stream_cameras
from edgead.streaming.page import Page, PageAddress, PageCamera
from edgead.streaming.page.feedback import FeedbackAddress, FeedbackFolder
from edgead.streaming.page.threshold import ThresholdDesk
from edgead.streaming.sources import Source
from edgead.types import Float64Array, Frame, UInt8Array

TOKEN = "a token of 27 characters ok"
SIZE = ModelSize(256, 256)
SLOW_CLIENTS = 1000
N_CAMERAS = 4
CAMERA = "camera0"


class Endless(Source):
    """The same image with other noise, again and again, as fast as the loop takes it."""

    live = False

    def __init__(self) -> None:
        super().__init__("endless")

    def __iter__(self) -> Iterator[Frame]:
        image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
        index = 0
        while not self._stopping.is_set():
            yield Frame(np.roll(image, index, 0), index, time.monotonic_ns(), self.uri)
            index += 1


def score(image: UInt8Array) -> float:
    """Compute for about five milliseconds, half of them with the lock of the interpreter."""
    sum(range(100_000))
    pixels = image.astype(np.float32)
    for _ in range(25):
        np.sqrt(pixels, out=pixels)
    return float(image[0, 0, 0])


def serve(pipe: Any, core: int) -> None:
    """Run the stream and its page on one core. The parent gets the port, and a number of frames for each request."""
    os.sched_setaffinity(0, {core})
    lines = [LineControl() for _ in range(N_CAMERAS)]
    with tempfile.TemporaryDirectory() as folder, Page(PageAddress("127.0.0.1", 0, TOKEN)) as page:
        feedback = FeedbackFolder(FeedbackAddress(Path(folder)), {"part"})
        desk = ThresholdDesk(250.0, "part", None, *lines)
        shown = [
            PageCamera(f"camera{n}", desk, line, None, feedback, None, N_CAMERAS)
            for n, line in enumerate(lines)
        ]
        page.start(shown)
        stop = threading.Event()
        cameras = [Camera(Endless(), one.sinks(), 250.0, line=one.line, name=one.name) for one in shown]
        arguments = {"size": SIZE, "stop": stop}
        loop = threading.Thread(
            target=stream_cameras, args=(FakeSession(SIZE, score), cameras), kwargs=arguments
        )
        loop.start()
        pipe.send(page.port)
        while pipe.recv():
            counts = [one.feed.numbers() for one in shown]
            loop_s = time.clock_gettime(time.pthread_getcpuclockid(loop.ident or 0))
            pipe.send((time.process_time(), sum(one["good"] + one["rejected"] for one in counts), loop_s))
        assert desk.value == 250.0
        assert not any(line.is_paused for line in lines)
        stop.set()
        loop.join()


def head(method: str, path: str, *more: str) -> bytes:
    """A request without its body."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *more, "", ""]).encode()


def cookie_of(port: int) -> str:
    """Log in, and return the header with the cookie."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", "/login", json.dumps({"token": TOKEN}), {"Content-Type": "application/json"})
    return f"Cookie: {connection.getresponse().headers['Set-Cookie'].partition(';')[0]}"


def mark_of(port: int, cookie: str) -> bytes:
    """Open the newest image, which the page then keeps, and return the body that marks it."""

    def get(path: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", path, headers={"Cookie": cookie.partition(" ")[2]})
        return connection.getresponse()

    while (live := get(f"/live.jpg?camera={CAMERA}")).status != 200:
        time.sleep(0.05)
    number = json.loads(live.headers["X-Verdict"])["number"]
    assert get(f"/image.jpg?camera={CAMERA}&number={number}").status == 200
    run = json.loads(get(f"/numbers?camera={CAMERA}").read())["run"]
    return json.dumps({"camera": CAMERA, "name": "x", "run": run, "number": number, "label": "good"}).encode()


async def ask(port: int, data: bytes, body: bytes = b"", repeat: int = 0) -> None:
    """Send one request and read its whole answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        for _ in range(repeat):
            writer.write(body)
            await writer.drain()
        await reader.read()
    finally:
        writer.close()


async def flood(port: int, data: bytes) -> None:
    await ask(port, data)


async def large(port: int, data: bytes) -> None:
    await ask(port, data, b"x" * 2**20, 1024)


async def view(port: int, data: bytes) -> None:
    await ask(port, data)
    await asyncio.sleep(0.2)


async def drip(port: int, data: bytes) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for number in range(1000):
            writer.write(data[number % len(data) : number % len(data) + 1])
            await writer.drain()
            await asyncio.sleep(0.5)
    finally:
        writer.close()


async def never_read(port: int, data: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
    reader._transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(data)
    await asyncio.sleep(5.0)
    writer.close()


Attack = tuple[int, Callable[[int, bytes], Awaitable[None]], bytes]
JSON = "Content-Type: application/json"


def attacks(port: int) -> dict[str, Attack]:
    """Number of clients, what each does again and again, and its request."""
    cookie = cookie_of(port)
    pause, mark = json.dumps({"camera": CAMERA, "name": "x"}).encode(), mark_of(port, cookie)
    return {
        "no attack": (0, flood, b""),
        "four viewers": (4, view, head("GET", f"/live.jpg?camera={CAMERA}", cookie)),
        "no token": (16, flood, head("GET", "/numbers")),
        "wrong token": (16, flood, head("POST", "/login", JSON, "Content-Length: 13") + b'{"token":"x"}'),
        "another origin": (
            16,
            flood,
            head("POST", "/pause", cookie, JSON, "Origin: http://evil", f"Content-Length: {len(pause)}")
            + pause,
        ),
        "another host": (16, flood, b"GET /numbers HTTP/1.1\r\nHost: evil\r\n\r\n"),
        "paths": (16, flood, head("GET", "/../../../../etc/passwd", cookie)),
        "headers of 6 MB": (16, flood, head("GET", "/numbers", *["X: " + "\r" * 65_000] * 95)),
        "cookie of 60 KB": (16, flood, head("GET", "/numbers", 'Cookie: a="' + "\\" * 60_000)),
        "body of 1 GB": (4, large, head("POST", "/pause", cookie, JSON, f"Content-Length: {2**30}")),
        f"{SLOW_CLIENTS} slow clients": (SLOW_CLIENTS, drip, head("GET", "/numbers", "X: " + "y" * 500)),
        "100 clients that never read": (100, never_read, head("GET", f"/live.jpg?camera={CAMERA}", cookie)),
        "flood of a viewer": (16, flood, head("GET", f"/numbers?camera={CAMERA}", cookie)),
        "flood of marks": (
            16,
            flood,
            head("POST", "/mark", cookie, JSON, f"Content-Length: {len(mark)}") + mark,
        ),
        "marks of another origin": (
            16,
            flood,
            head("POST", "/mark", cookie, JSON, "Origin: http://evil", f"Content-Length: {len(mark)}") + mark,
        ),
    }


def attack(port: int, one: Attack, stop: Event, cores: set[int], connections: Any) -> None:
    """Attack until the end, in a process of its own."""
    os.sched_setaffinity(0, cores)
    clients, act, data = one

    async def client() -> None:
        while not stop.is_set():
            with suppress(OSError, asyncio.IncompleteReadError):
                connections.value += 1
                await act(port, data)

    async def run() -> None:
        tasks = [asyncio.create_task(client()) for _ in range(clients)]
        while not stop.is_set():
            await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()

    with suppress(asyncio.CancelledError):
        asyncio.run(run())


class Loop:
    """The stream in its process."""

    def __init__(self, core: int) -> None:
        self._pipe, other = multiprocessing.Pipe()
        self._process = multiprocessing.Process(target=serve, args=(other, core))
        self._process.start()
        self.port: int = self._pipe.recv()

    def rate(self, seconds: float) -> Float64Array:
        """Measure the frames in a second of CPU time of the process, and the part of it that the loop has."""
        times = []
        for _ in range(2):
            self._pipe.send(True)
            times.append(np.array(self._pipe.recv()))
            if len(times) == 1:
                time.sleep(seconds)
        process_s, frames, loop_s = times[1] - times[0]
        return np.array([frames, loop_s], np.float64) / float(process_s)

    def close(self) -> None:
        self._pipe.send(False)
        self._process.join()
        assert self._process.exitcode == 0


def measure(loop: Loop, one: Attack, seconds: float, cores: set[int]) -> tuple[Float64Array, float]:
    """Return `Loop.rate` under an attack as a share of the one beside it, and the connections a second."""
    before = loop.rate(seconds)
    stop, connections = multiprocessing.Event(), multiprocessing.Value("q", 0)
    attacker = multiprocessing.Process(target=attack, args=(loop.port, one, stop, cores, connections))
    attacker.start()
    time.sleep(1.0)
    opened = connections.value
    during = loop.rate(seconds)
    opened = connections.value - opened
    stop.set()
    attacker.join()
    time.sleep(2.5)
    after = loop.rate(seconds)
    return 2.0 * during / (before + after), opened / seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="attacks; all by default")
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    core, *rest = sorted(os.sched_getaffinity(0))
    loop = Loop(core)
    try:
        print("| attack | connections a second | rate of the loop | CPU time | lowest rate | CPU time |")
        print("|---|---|---|---|---|---|")
        for name, one in attacks(loop.port).items():
            if chosen.names and name not in chosen.names:
                continue
            found = [measure(loop, one, chosen.seconds, set(rest) or {core}) for _ in range(chosen.rounds)]
            shares = np.array([share for share, _ in found])
            opened = statistics.median(each for _, each in found)
            columns = " | ".join(f"{value:.1%}" for value in [*np.median(shares, 0), *shares.min(0)])
            print(f"| {name} | {opened:.0f} | {columns} |", flush=True)
    finally:
        loop.close()


if __name__ == "__main__":
    main()
