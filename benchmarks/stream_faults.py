"""Faults of a real RTSP camera, and the end of a stream beside sinks that hang: what a line sees, and how fast.

    python benchmarks/stream_faults.py [NAME ...]

The camera is GStreamer's RTSP server at 15 frames a second, with H.264 and a key image every 10 images. It draws the
time into its images, so the true age of each image at its verdict is read back. A relay loses and damages packets. The
times of the stream are those of the product. For each fault the table has

    state       seconds from the fault to the first change of the state after it, and this state with its causes
    oldest      largest true age of an image with a verdict, in milliseconds
    worst       largest error of a pixel of an image with a verdict, in levels; a good H.264 image has up to 25
    recovery    seconds from the end of the fault to the next verdict
    frames      scored, dropped, withheld and broken ones

Names of faults or sinks choose some of them. It takes four minutes.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from edgead.scoring.threshold import Threshold
from tests.helpers.brightness_bundle import write_brightness_bundle
from tests.helpers.rtsp_camera import free_port, rtsp_camera
from tests.helpers.rtsp_relay import RtspRelay, rtsp_relay
from tests.helpers.rtsp_stream import FPS, Running
from tests.helpers.stream_parts import SIZE

ROOT = Path(__file__).parents[1]
MAX_AGE_S = 1.0
STEADY_S = 3.0


@dataclass
class Line:
    """A camera, a relay in front of it, and a stream.

    Attributes:
        port: Port of the camera.
        relay: Relay that the stream reads from.
        running: The stream.
    """

    port: int
    relay: RtspRelay
    stack: ExitStack
    # It opens the camera, so it begins after it.
    running: Running = field(init=False)
    servers: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def pid(self) -> int:
        return self.servers[-1].pid

    def start_camera(self, *options: str) -> None:
        camera = rtsp_camera(self.port, "--fps", str(FPS), *options)
        self.servers.append(self.stack.enter_context(camera))

    def kill_camera(self) -> None:
        self.servers[-1].kill()
        self.servers[-1].wait()


Act = Callable[[Line], None]


def lose(rng: random.Random) -> Callable[[bytes], bytes | None]:
    return lambda packet: None if rng.random() < 0.02 else packet


def damage(rng: random.Random) -> Callable[[bytes], bytes | None]:
    def mangle(packet: bytes) -> bytes:
        if rng.random() > 0.02 or len(packet) < 300:
            return packet
        start = rng.randrange(60, len(packet) - 60)
        return packet[:start] + rng.randbytes(40) + packet[start + 40 :]

    return mangle


def mangles(make: Callable[[random.Random], Callable[[bytes], bytes | None]]) -> Act:
    return lambda line: setattr(line.relay, "mangle", make(random.Random(1)))


def leave(line: Line) -> None:
    line.relay.mangle = lambda packet: packet


def garbage(line: Line) -> None:
    line.relay.garbage = random.Random(1).randbytes(100_000)


def sends(number: signal.Signals) -> Act:
    return lambda line: os.kill(line.pid, number)


def nothing(line: Line) -> None:
    pass


# Name: what begins the fault, how long it lasts in seconds, what ends it, and the transport.
FAULTS: dict[str, tuple[Act, float, Act, str]] = {
    "none": (nothing, 10, nothing, "tcp"),
    "SIGSTOP for 5 s": (sends(signal.SIGSTOP), 5, sends(signal.SIGCONT), "tcp"),
    "SIGSTOP for 10 s": (sends(signal.SIGSTOP), 10, sends(signal.SIGCONT), "tcp"),
    "killed, back after 5 s": (Line.kill_camera, 5, Line.start_camera, "tcp"),
    "away for 30 s": (Line.kill_camera, 30, Line.start_camera, "tcp"),
    "garbage": (garbage, 0, nothing, "tcp"),
    "frozen before the encoder": (sends(signal.SIGUSR2), 8, sends(signal.SIGUSR2), "tcp"),
    "new size in a session": (sends(signal.SIGUSR1), 5, nothing, "tcp"),
    "new size in a new session": (
        lambda line: (line.kill_camera(), line.start_camera("--size", "320x192"))[0],
        8,
        nothing,
        "tcp",
    ),
    "2 % of the packets lost": (mangles(lose), 20, leave, "udp"),
    "2 % of the packets lost, TCP": (mangles(lose), 20, leave, "tcp"),
    "2 % of the packets damaged": (mangles(damage), 20, leave, "tcp"),
}


def show_fault(name: str) -> None:
    """Run one fault and print its row."""
    begin, length_s, end, transport = FAULTS[name]
    with ExitStack() as stack:
        port = free_port()
        line = Line(port, stack.enter_context(rtsp_relay(port)), stack)
        line.start_camera()
        line.running = Running(line.relay.port, f"#transport={transport}", MAX_AGE_S)
        with line.running:
            record = line.running.record
            line.running.more(int(STEADY_S * FPS))
            n_changes, start_s = len(record.changes), time.monotonic()
            begin(line)
            state, seen_s = "-", None
            while time.monotonic() - start_s < length_s:
                if seen_s is None and len(record.changes) > n_changes:
                    change, seen_s = record.changes[n_changes], time.monotonic() - start_s
                    state = f"{change.state} ({', '.join(change.causes)}), {seen_s:.1f}"
                time.sleep(0.01)
            end_s, before = time.monotonic(), len(record.verdicts)
            end(line)
            recovery = "-"
            if not name.startswith(("new size", "none")):
                line.running.more(1)
                recovery = f"{time.monotonic() - end_s:.1f}"
                line.running.wait_for(lambda: len(record.verdicts) >= before + FPS)
    counts = line.running.summaries[0]
    steady_ms = f"{statistics.median(record.true_ms):.0f}"
    frames = (
        f"{counts.frames_scored}, {counts.frames_dropped}, {counts.frames_withheld}, {counts.frames_broken}"
    )
    print(
        f"| {name} | {transport} | {state} | {steady_ms} | {max(record.true_ms):.0f} | {max(record.damages)} "
        f"| {recovery} | {frames} |",
        flush=True,
    )


COMMAND = [sys.executable, "-c", "from edgead.cli.main import main; main()", "stream"]
SOURCE = "synthetic:washer?size=96&fps=50"


def silent_server() -> int:
    """A server that takes connections and says nothing; return its port."""
    server = socket.create_server(("127.0.0.1", 0), backlog=100)
    accepted: list[socket.socket] = []

    def accept() -> None:
        while True:
            accepted.append(server.accept()[0])

    threading.Thread(target=accept, daemon=True).start()
    return int(server.getsockname()[1])


def sinks_that_hang(folder: Path) -> dict[str, str]:
    os.mkfifo(folder / "pipe")
    os.open(folder / "pipe", os.O_RDWR | os.O_NONBLOCK)
    port = silent_server()
    return {
        "jsonl: a file": f"jsonl:{folder}/file.jsonl",
        "jsonl: a pipe that nobody reads": f"jsonl:{folder}/pipe",
        "jsonl: a full disk": "jsonl:/dev/full",
        "mqtt: a broker that says nothing": f"mqtt://127.0.0.1:{port}/line?spool={folder}/mqtt.spool",
        "mqtt: no broker": f"mqtt://127.0.0.1:{free_port()}/line?spool={folder}/none.spool",
        "webhook: a server that says nothing": f"webhook:http://127.0.0.1:{port}/#spool={folder}/hook.spool",
        "modbus: a PLC that says nothing": f"modbus://127.0.0.1:{port}/?registers=100",
        "modbus: no PLC": f"modbus://127.0.0.1:{free_port()}/?registers=100",
        "opcua": f"opcua:{free_port()}",
        "rejects": f"rejects:{folder}/rejects",
        "video": f"video:{folder}/out.mkv",
        "prometheus": f"prometheus:{free_port()}",
        "status": "status:",
    }


def show_end(name: str, bundle: Path, sinks: list[str], log: Path) -> None:
    """End a stream with SIGTERM and print its row: the counts are those of the last sink."""
    options = [part for uri in (f"jsonl:{log}", *sinks) for part in ("--sink", uri)]
    process = subprocess.Popen(
        [*COMMAND, bundle, "--source", SOURCE, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )
    while not log.exists() or not log.read_bytes():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    time.sleep(3)
    process.send_signal(signal.SIGTERM)
    start_s = time.monotonic()
    output, _ = process.communicate(timeout=60)
    took_s = time.monotonic() - start_s
    n_lines = len(log.read_bytes().splitlines())
    log.unlink()
    counts = [(int(written), int(lost)) for written, lost in re.findall(r"(\d+) written, (\d+) lost", output)]
    # The log gets its last lines, about losses, while it ends.
    whole = n_lines >= counts[0][0] > 0 and not counts[0][1]
    print(
        f"| {name} | {took_s:.2f} | {counts[-1][0]} | {counts[-1][1]} | {'yes' if whole else 'no'} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    with tempfile.TemporaryDirectory() as folder:
        known = [*FAULTS, *sinks_that_hang(Path(folder)), "all"]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"all, or some of: {', '.join(known)}")
    chosen = parser.parse_args().names
    if unknown := set(chosen) - set(known):
        parser.error(f"unknown names: {', '.join(sorted(unknown))}")
    print("| fault | over | state, after s | median age, ms | oldest, ms | worst | recovery, s | frames |")
    print("|---|---|---|---|---|---|---|---|")
    for name in FAULTS:
        if not chosen or name in chosen:
            show_fault(name)
    print("\n| sink beside the log | SIGTERM to end, s | written | lost | log whole |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.jsonl"
        bundle = write_brightness_bundle(
            Path(folder) / "bundle", SIZE, Threshold(0.4, 0.01, 0.95, 0.96, 320, 299)
        )
        for name, uri in sinks_that_hang(Path(folder)).items():
            if not chosen or name in chosen:
                show_end(name, bundle, [uri], log)
        if not chosen or "all" in chosen:
            inner = Path(folder) / "all"
            inner.mkdir()
            show_end("all of them", bundle, list(sinks_that_hang(inner).values()), log)


if __name__ == "__main__":
    main()
