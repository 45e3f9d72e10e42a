"""Time of the stream compared with a plain loop over the same frames, and peak memory of the stream.

The plain loop calls `infer` once for each of 600 frames, which are decoded and resized before. The stream decodes the
same frames from a video file, resizes and scores them, decides, and writes JSON lines. Both alternate in one run, so
other work on the machine affects both. The target is at most 1.10 times the time of the loop. Memory is the peak
resident set, in MiB, of a process that only runs `edgead.stream`. The target is below 400 MB.

The sinks: the same session, with one thread, scores the same frames in a loop, in a stream without sinks, and in a
stream with `jsonl:`, `mqtt://` and `modbus://` (coils), in turn. Every verdict goes to each of the three sinks, and
opening and closing them counts. Mosquitto and a server that answers as a PLC run on the same machine. The target is at
least 0.95 of the rate of the loop and of the stream without sinks. The CPU time is the one of this process.

The model is RD with a Lite0 teacher at 256 pixels and random weights, which change neither time nor memory. Run on an
idle machine: ``pytest benchmarks/test_stream.py``.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.random_bundle import write_random_bundle
from edgead.bundle import Bundle
from edgead.data.synthetic.dataset import write_conveyor_video
from edgead.imaging.preprocess import ModelSize, batch_from_images
from edgead.runtime import open_session
from edgead.streaming import open_sink, open_sinks, open_source, stream
from tests.helpers.mqtt_broker import Broker, needs_broker

SIZE = ModelSize(256, 256)
FRAMES = 600
ROUNDS = 3


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_random_bundle(tmp_path_factory.mktemp("bundle") / "bundle", "tf_efficientnet_lite0", SIZE)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "line.mp4"
    write_conveyor_video(path, "washer", FRAMES, seed=0, size_px=256)
    return path


def test_stream_beside_a_plain_loop(
    benchmark: BenchmarkFixture, bundle: Bundle, video: Path, tmp_path: Path
) -> None:
    with open_source(str(video)) as source:
        batches = [batch_from_images([frame.image], SIZE) for frame in source]
    assert len(batches) == FRAMES
    loop_s: list[float] = []
    stream_s: list[float] = []

    with open_session(bundle) as session:

        def plain_loop() -> None:
            start = time.perf_counter()
            for batch in batches:
                session.infer(batch)
            loop_s.append(time.perf_counter() - start)

        def one_stream() -> None:
            start = time.perf_counter()
            with open_source(str(video)) as source, open_sink(f"jsonl:{tmp_path}/out.jsonl") as sink:
                summary = stream(session, source, [sink], size=SIZE, threshold=1e3)
            stream_s.append(time.perf_counter() - start)
            assert summary.frames_scored == FRAMES

        session.infer(batches[0])
        benchmark.pedantic(one_stream, setup=plain_loop, rounds=ROUNDS)
    ratios = [s / p for s, p in zip(stream_s, loop_s, strict=True)]
    benchmark.extra_info |= {
        "loop_ms_per_frame": [round(1e3 * seconds / FRAMES, 2) for seconds in loop_s],
        "stream_ms_per_frame": [round(1e3 * seconds / FRAMES, 2) for seconds in stream_s],
        "stream_over_loop_median": round(statistics.median(ratios), 3),
    }


def test_peak_memory(benchmark: BenchmarkFixture, bundle: Bundle, video: Path, tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, edgead\n"
        "edgead.stream(sys.argv[1], sys.argv[2], [sys.argv[3]])\n"
        # Not getrusage: its peak starts from that of the process that forked this one.
        "print(pathlib.Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])\n"
    )
    command = [sys.executable, "-c", code, str(bundle.path), str(video), f"jsonl:{tmp_path}/out.jsonl"]
    peaks: list[float] = []

    def run() -> None:
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks.append(int(done.stdout.splitlines()[-1]) / 1024)

    benchmark.pedantic(run, rounds=ROUNDS)
    benchmark.extra_info |= {"peak_mib": round(float(np.max(peaks)), 1)}


# A PLC that confirms every request. It needs no library: the time of one, 0.7 ms a frame, would count as the sink's.
PLC = """
import socket
with socket.create_server(("127.0.0.1", 0)) as server:
    print(server.getsockname()[1], flush=True)
    while True:
        connection, _ = server.accept()
        while request := connection.recv(260):
            connection.sendall(request[:4] + b"\\0\\6" + request[6:12])
"""


@needs_broker
def test_three_sinks_beside_the_bare_session(
    benchmark: BenchmarkFixture, bundle: Bundle, video: Path, tmp_path: Path
) -> None:
    with open_source(str(video)) as source:
        batches = [batch_from_images([frame.image], SIZE) for frame in source]
    seconds: dict[str, list[float]] = {"loop": [], "no_sinks": [], "three_sinks": []}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in seconds}
    losses = []
    plc = subprocess.Popen([sys.executable, "-c", PLC], stdout=subprocess.PIPE, text=True)
    with plc, Broker(tmp_path / "broker") as broker, open_session(bundle, threads=1) as session:
        assert plc.stdout is not None
        uris = [
            f"jsonl:{tmp_path}/out.jsonl",
            f"mqtt://127.0.0.1:{broker.port}/line?spool={tmp_path}/spool",
            f"modbus://127.0.0.1:{int(plc.stdout.readline())}/?coils=16",
        ]

        def plain_loop() -> None:
            for batch in batches:
                session.infer(batch)

        def stream_to(sinks: list[str]) -> None:
            with open_source(str(video)) as source:
                summary = stream(session, source, open_sinks(sinks), size=SIZE, threshold=1e3)
            assert summary.frames_scored == FRAMES
            losses.append(sum(count.lost for count in summary.sinks))

        def timed(name: str, work: Callable[[], None]) -> None:
            start, start_cpu = time.perf_counter(), time.process_time()
            work()
            seconds[name].append(time.perf_counter() - start)
            cpu_seconds[name].append(time.process_time() - start_cpu)

        def others() -> None:
            timed("loop", plain_loop)
            timed("no_sinks", lambda: stream_to([]))

        session.infer(batches[0])
        benchmark.pedantic(lambda: timed("three_sinks", lambda: stream_to(uris)), setup=others, rounds=ROUNDS)
        plc.kill()
    for name, found in seconds.items():
        benchmark.extra_info[f"{name}_ms_per_frame"] = [round(1e3 * s / FRAMES, 2) for s in found]
        cpu = [round(1e3 * s / FRAMES, 2) for s in cpu_seconds[name]]
        benchmark.extra_info[f"{name}_cpu_ms_per_frame"] = cpu
    for name in ("loop", "no_sinks"):
        ratios = [bare / full for bare, full in zip(seconds[name], seconds["three_sinks"], strict=True)]
        benchmark.extra_info[f"rate_over_{name}_median"] = round(statistics.median(ratios), 3)
    benchmark.extra_info["lost"] = sum(losses)
