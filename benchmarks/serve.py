"""`edgead serve` under load on this machine: throughput beside the bare session, and requests with faults.

    python benchmarks/serve.py --rounds 15 --requests 10000

The first part sends JPEG images of 640 x 480 pixels to one replica with one thread, one in a request and then archives
of 8, in rounds between rounds of the bare session, which scores batches of 8 images in this process with one thread.
It prints images a second, the times of the verdicts, and the CPU time of each process for one image. The second part
sends requests with faults to two replicas of a small model: broken images, clients that hang up, and replicas that are
killed. It ends with exit code 1 if a request is lost, answered twice or answered wrongly. All processes should have a
core of their own.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ["PYTHONPATH"] = sys.path[0]

import cv2
import numpy as np

from benchmarks.random_bundle import write_random_bundle
from edgead.api import load
from edgead.cluster.place import RayPlace
from edgead.imaging.preprocess import ModelSize
from edgead.models.components.teacher import DEFAULT_TEACHER
from edgead.runtime.framed import BATCH
from edgead.serving.plan import check_models, read_address
from edgead.serving.requests import ARCHIVE
from edgead.serving.start import serving
from tests.helpers.mqtt_broker import free_port
from tests.helpers.serve_load import Load, Request, kill_replica, replicas, run_load
from tests.helpers.training_parts import TINY_TEACHER

CLIENTS = 24
TICKS = os.sysconf("SC_CLK_TCK")


@contextmanager
def server(bundle: Path, count: int) -> Iterator[str]:
    """Serve a bundle with `count` replicas of one thread; gives the address of the model."""
    port = free_port()
    with serving(check_models([bundle], 1), read_address(f"127.0.0.1:{port}"), RayPlace(None), count, 1):
        yield f"http://127.0.0.1:{port}/models/{bundle.name}"


def jpegs(count: int) -> list[bytes]:
    """Return JPEG files of 640 x 480 pixels: blurred noise, each another."""
    rng = np.random.default_rng(0)
    files = []
    for _ in range(count):
        image = cv2.GaussianBlur(rng.integers(0, 256, (480, 640, 3), np.uint8), (0, 0), 3)
        files.append(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
    return files


def cpu_s(folder: Path) -> float:
    """Return the CPU time of a process or thread in seconds."""
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def cpu_times(model: str) -> dict[str, float]:
    """Return the CPU seconds of this process, the proxy, and each thread of the replicas."""
    found = {"client": time.process_time(), "HTTP proxy": 0.0}
    for pid in replicas(model):
        found |= {f"thread {task.name}": cpu_s(task) for task in Path(f"/proc/{pid}/task").iterdir()}
    for folder in Path("/proc").glob("[0-9]*"):
        if (folder / "cmdline").exists() and (folder / "cmdline").read_bytes().startswith(b"ray::ProxyActor"):
            found["HTTP proxy"] += cpu_s(folder)
    return found


def core_waits_s(model: str) -> dict[str, float]:
    """Return the time that each thread of the replicas was ready and waited for a core, in seconds."""
    tasks = (task for pid in replicas(model) for task in Path(f"/proc/{pid}/task").iterdir())
    return {f"thread {task.name}": int((task / "schedstat").read_text().split()[1]) / 1e9 for task in tasks}


def by_work(seconds: dict[str, float]) -> dict[str, float]:
    """Add up the threads of a replica: the one that scores takes most."""
    threads = sorted(value for name, value in seconds.items() if name.startswith("thread"))
    others = {name: value for name, value in seconds.items() if not name.startswith("thread")}
    return {"scoring in the replica": threads[-1], "rest of the replica": sum(threads[:-1]), **others}


def requests_of(number: int, files: list[bytes], count: int, each: int) -> list[Request]:
    """Return the requests of a round with `count` images, `each` in a request."""
    chosen = [files[index % len(files)] for index in range(count)]
    if each == 1:
        return [Request(f"{number}-{index}", data) for index, data in enumerate(chosen)]
    requests = []
    for start in range(0, count, each):
        with zipfile.ZipFile(data := io.BytesIO(), "w") as archive:
            for index in range(start, start + each):
                archive.writestr(f"{index}.jpg", chosen[index])
        requests.append(Request(f"{number}-{start}", data.getvalue(), kind=ARCHIVE))
    return requests


def throughput(bundle: Path, rounds: int, count: int, each: int) -> None:
    """Print the throughput of the bare session, and of the server with `each` images in a request, in turn."""
    files = jpegs(32)
    # One batch is scored, and the others are on their way.
    clients = CLIENTS if each == 1 else 3 * BATCH // each
    print(f"\n{each} images in a request, {clients} clients")
    rates: dict[str, list[float]] = {"bare": [], "served": []}
    times: list[float] = []
    with load(bundle, threads=1) as model, server(bundle, 1) as url:
        batch = np.random.default_rng(0).integers(0, 256, (BATCH, 256, 256, 3), np.uint8)
        spent: dict[str, float] = {}
        waited: dict[str, float] = {}
        bare_cpu = wall_s = 0.0
        for number in range(rounds + 1):
            began, cpu = time.monotonic(), time.process_time()
            for _ in range(count // BATCH):
                model.session.infer(batch)
            bare, cpu = count / (time.monotonic() - began), time.process_time() - cpu
            before, waited_before = cpu_times("part"), core_waits_s("part")
            requests = requests_of(number, files, count, each)
            done = run_load(url, requests, clients)
            assert not done.wrong(requests), done.wrong(requests)[:3]
            after, waited_after = cpu_times("part"), core_waits_s("part")
            if number:  # the first round warms up
                rates["bare"].append(bare)
                rates["served"].append(count / done.seconds)
                times += done.times_s
                bare_cpu += cpu
                wall_s += done.seconds
                for sums, one, other in ((spent, before, after), (waited, waited_before, waited_after)):
                    for name, value in other.items():
                        sums[name] = sums.get(name, 0.0) + value - one.get(name, 0.0)
    shares = [one / other for one, other in zip(rates["served"], rates["bare"], strict=True)]
    print(f"load of the machine: {os.getloadavg()[0]:.0f}, {len(os.sched_getaffinity(0))} cores")
    for name, found in rates.items():
        print(f"{name}: {statistics.median(found):.1f} images/s ({min(found):.1f} to {max(found):.1f})")
    quarters = statistics.quantiles(shares, n=4)
    print(f"share: median {quarters[1]:.1%}, quartiles {quarters[0]:.1%} and {quarters[2]:.1%}")
    print_times(times, clients)
    print(f"CPU time of one image: bare session {1e3 * bare_cpu / (rounds * count):.2f} ms")
    for name, seconds in by_work(spent).items():
        print(f"  {name}: {1e3 * seconds / (rounds * count):.2f} ms")
    # The scoring thread takes most. It has time left if it waits for images, which is what the server costs.
    scoring = max((name for name in spent if name.startswith("thread")), key=lambda name: spent[name])
    idle_s = wall_s - spent[scoring] - waited[scoring]
    print(
        f"the scoring thread was ready and waited for a core {waited[scoring] / wall_s:.0%} of the time, and had no "
        f"images {idle_s / wall_s:.0%}"
    )
    print(
        "share with a core for the scoring thread, from its CPU time and the time without images: "
        f"{bare_cpu / (spent[scoring] + idle_s):.1%}"
    )


def print_times(times_s: list[float], clients: int) -> None:
    p50, p99, most = np.percentile(np.array(times_s) * 1e3, [50, 99, 100])
    print(f"time of an answer with {clients} clients: p50 {p50:.0f} ms, p99 {p99:.0f} ms, max {most:.0f} ms")


def faults(folder: Path, count: int) -> bool:
    """Send requests with faults; return whether each of them got its own answer once."""
    bundle = folder / "small"
    write_random_bundle(bundle, TINY_TEACHER, ModelSize.parse("64"))
    files = jpegs(16)
    with load(bundle, threads=1) as model:
        scores = []
        for data in files:
            (path := folder / "image.jpg").write_bytes(data)
            scores.append(model.predict(path).anomaly_score)
    requests = []
    for number in range(count):
        chosen, broken = number % len(files), number % 20 == 7
        body = (files[chosen][:5000], b"a note, not an image")[number % 40 == 7] if broken else files[chosen]
        requests.append(
            Request(
                f"f{number}",
                body,
                422 if broken else 200,
                None if broken else scores[chosen],
                number % 50 == 3,
            )
        )
    with server(bundle, 2) as url:
        kills = {count * share // 4: lambda: kill_replica("small") for share in (1, 2, 3)}
        done: Load = run_load(url, requests, CLIENTS, kills)
    wrong = done.wrong(requests)
    bad = sum(request.status == 422 for request in requests)
    print(f"\n{count} requests in {done.seconds:.0f} s, {bad} broken images, {len(kills)} replicas killed")
    print(f"tries without an answer, sent again: {dict(done.again)}")
    print(f"lost, answered twice or wrongly: {len(wrong)} {wrong[:3]}")
    print_times(done.times_s, CLIENTS)
    return not wrong


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--images", type=int, default=80, help="images of a round, a multiple of 8")
    parser.add_argument("--requests", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.rounds:
            bundle = Path(folder) / "part"
            write_random_bundle(bundle, DEFAULT_TEACHER, ModelSize.parse("256"))
            for each in (1, BATCH):
                throughput(bundle, options.rounds, options.images, each)
        if options.requests and not faults(Path(folder), options.requests):
            sys.exit(1)


if __name__ == "__main__":
    main()
