"""edgead beside anomalib, PyTorch, ONNX Runtime and OpenVINO: the same weights, in one run, in turns.

    python benchmarks/peers.py WORK --prepare     environments, models and bundles; once, 20 minutes on two cores
    python benchmarks/peers.py WORK               the measurement

Run it with a Python that has `edgead[train]`. WORK is a folder for 9 GB: environments of anomalib (newest 2.x, with
OpenVINO and ONNX Runtime), of `edgead` and of `edgead[openvino]`, with the same versions of shared libraries. anomalib
trains its models on synthetic parts, `edgead import` and `edgead build` make bundles of its checkpoints. ImageNet's
weights are not needed: the teachers are random, which changes no time.

Every contestant is a process of its own (`peers_worker.py`) on the same cores with the same number of threads. They
take turns, and ratios are medians of the ratios of the rounds. The figures of each network are kept in WORK/results, so
an interrupted run goes on with the next network; `--again` forgets them. The results are peers.json and peers.md in
benchmarks/results/.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.peers_prepare import HERE, environment, prepare, python
from benchmarks.peers_report import NETWORKS, report
from edgead.runtime.environment import this_environment

ENVIRONMENTS = {
    "edgead": "edgead",
    "edgead-openvino": "intel",
    "edgead-int8": "intel",
    "anomalib-torch": "anomalib",
    "anomalib-openvino": "anomalib",
    "onnxruntime": "edgead",
    "openvino": "intel",
    "onnxruntime-same": "edgead",
    "torch": "anomalib",
    "torch-compile": "anomalib",
}
BATCH = 8
BORDER_PX = 16
IMPORTS = {
    "edgead": ("edgead", "from edgead import load"),
    "edgead, with its libraries": ("edgead", "from edgead import load; import onnxruntime, cv2"),
    "anomalib": ("anomalib", "from anomalib.deploy import TorchInferencer"),
    "ONNX Runtime": ("edgead", "import onnxruntime"),
    "OpenVINO": ("intel", "import openvino"),
    "PyTorch": ("anomalib", "import torch"),
}


class Worker:
    """A contestant's process. `started_s` is the time from its start to the first score."""

    def __init__(self, work: Path, network: str, contestant: str, threads: int) -> None:
        executable = python(work, ENVIRONMENTS[contestant])
        folder = work / network
        variables = environment(executable, threads) | {"XDG_CACHE_HOME": str(work / "cache")}
        variables["TORCHINDUCTOR_CACHE_DIR"] = str(work / "cache/inductor")
        self.log = work / f"results/{network}-{contestant}.log"
        start = time.perf_counter()
        self.process = subprocess.Popen(
            [executable, HERE / "peers_worker.py", contestant, folder, str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log.open("w"), text=True, cwd=folder,
            env=variables,
        )  # fmt: skip
        self._answer()
        self.started_s = time.perf_counter() - start

    def _answer(self) -> Any:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a contestant ended: {self.log}\n{self.log.read_text()[-2000:]}")
        return json.loads(line)

    def ask(self, name: str, value: Any = None) -> Any:
        self.process.stdin.write(json.dumps({name: value}) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def measure_network(work: Path, network: str, threads: int, rounds: int) -> dict[str, Any]:
    """Start, time and compare all contestants with one network."""
    found: dict[str, Any] = {name: {"starts_s": [], "rounds_ms": [], "batch_ms": []} for name in ENVIRONMENTS}
    for (
        name
    ) in ENVIRONMENTS:  # The first one fills caches of files and of compiled models, and is not counted.
        Worker(work, network, name, threads).close()
    for number in range(4):
        for name, entry in found.items():
            if number == 0 or entry["starts_s"][0] < 4.0:
                worker = Worker(work, network, name, threads)
                entry["starts_s"].append(worker.started_s)
                worker.close()
    print(f"{network}: starts are timed", flush=True)
    workers = {name: Worker(work, network, name, threads) for name in ENVIRONMENTS}
    with tempfile.TemporaryDirectory() as folder:
        maps = {}
        for name, worker in workers.items():
            worker.ask("time", [1, 0.5])
            worker.ask("maps", f"{folder}/{name}.npy")
            maps[name] = np.load(f"{folder}/{name}.npy")
            found[name]["peak_mib"] = worker.ask("memory")
    for _ in range(rounds):
        for name, worker in workers.items():
            found[name]["rounds_ms"].append(median(worker.ask("time", [1, 1.0])))
    for _ in range(max(2, rounds // 4)):
        for name, worker in workers.items():
            found[name]["batch_ms"].append(median(worker.ask("time", [BATCH, 0.5])))
    for worker in workers.values():
        worker.close()
    print(f"{network}: inferences are timed", flush=True)
    compare_maps(work / network, maps, found)
    return {
        "contestants": found,
        "predict": predict_folder(work, network, threads),
        "epoch": time_epoch(work, network, threads),
    }


def compare_maps(folder: Path, maps: dict[str, np.ndarray], found: dict[str, Any]) -> None:
    """Note the largest differences from anomalib's maps in PyTorch: everywhere, and without the border."""
    oracle = np.load(folder / "maps.npz")
    for name, of_contestant in maps.items():
        normalised = name.startswith("anomalib") or name in ("onnxruntime", "openvino")
        exact = oracle["normalised" if normalised else "raw"][:, 0]
        difference = np.abs(of_contestant - exact)
        inside = difference[:, BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX]
        found[name]["map"] = {
            "largest": float(exact.max()),
            "everywhere": float(difference.max()),
            "inside": float(inside.max()),
        }


def run(command: list[Any], threads: int) -> tuple[float, str]:
    """Run a command and return its seconds and its output."""
    start = time.perf_counter()
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment(command[0], threads)
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return time.perf_counter() - start, done.stdout


def predict_folder(work: Path, network: str, threads: int) -> dict[str, Any]:
    """Time both commands on a folder of image files, from the start of the process to its end."""
    images = work / ("few" if "wide" in network else "many") / "train/good"
    count = len(list(images.iterdir()))
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        executable = python(work, "edgead")
        command = [Path(executable).with_name("edgead"), "predict", work / network / "cpu", images]
        seconds["edgead"], _ = run([*command, "--out", f"{folder}/out"], threads)
    command = [
        python(work, "anomalib"),
        HERE / "peers_anomalib.py",
        "predict",
        network,
        images,
        work / network,
    ]
    seconds["anomalib"], text = run(command, threads)
    if (scored := json.loads(text.splitlines()[-1])["images"]) != count:
        raise SystemExit(f"anomalib scored {scored} of {count} images")
    return {"images": count, "seconds": seconds}


def time_epoch(work: Path, network: str, threads: int) -> dict[str, float]:
    """Return the seconds for an image in the second epoch of a training, in batches of 8."""
    method, teacher = network.split("-")
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "edgead", "train", work / "data", "--out", f"{folder}/run", "--method", method,
            "--preset", "paper", "--teacher", teacher, "--teacher-weights", "random", "--alignment", "unaligned",
            "--epochs", "2", "--batch-size", str(BATCH), "--hold-out", "8",
        ]  # fmt: skip
        # A random teacher may teach nothing, which edgead refuses at the end. The epochs are over then.
        done = subprocess.run(
            command, env=environment(command[0], threads), check=False, capture_output=True, text=True
        )
        file = Path(folder) / "run/metrics.csv"
        if not file.exists():
            raise SystemExit(done.stderr[-2000:])
        with file.open() as lines:
            ours_s = float(list(csv.DictReader(lines))[-1]["seconds"])
    with tempfile.TemporaryDirectory() as folder:
        anomalib = [
            python(work, "anomalib"),
            HERE / "peers_anomalib.py",
            "epoch",
            network,
            work / "data",
            folder,
        ]
        theirs_s = json.loads(run(anomalib, threads)[1].splitlines()[-1])["seconds"][-1]
    # edgead holds 8 of the 24 images out, anomalib takes its validation images from those of the test.
    return {"edgead": ours_s / 16, "anomalib": theirs_s / 24}


def measure_installations(work: Path, threads: int) -> dict[str, Any]:
    """Sizes of the environments, and the times to import and to print the help."""
    sizes = {}
    for name in ("edgead", "intel", "anomalib"):
        files = [file for file in (work / "envs" / name / "lib").rglob("*") if file.is_file()]
        tools = ("pip", "setuptools", "__pycache__")
        sizes[name] = sum(file.stat().st_size for file in files if not set(tools) & set(file.parts)) / 1e6
    help_s: dict[str, list[float]] = {"edgead": [], "anomalib": []}
    import_s: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for number in range(4):
        for name, taken in help_s.items():
            seconds, _ = run([work / f"envs/{name}/bin/{name}", "--help"], threads)
            taken += [seconds] * bool(number)
        for name, (where, code) in IMPORTS.items():
            seconds, _ = run([python(work, where), "-c", code], threads)
            import_s[name] += [seconds] * bool(number)
    shutil.copy(work / "constraints.txt", work / "results/versions.txt")
    return {"size_mb": sizes, "help_s": help_s, "import_s": import_s}


def kept(file: Path, measure: Any) -> Any:
    """Return the content of a file of results, or measure and write it."""
    if not file.exists():
        record = measure()
        file.write_text(json.dumps(record, indent=1) + "\n")
    return json.loads(file.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--prepare", action="store_true", help="make what is missing, and measure nothing")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--rounds", type=int, default=8, help="turns of each contestant, half with WideResNet50-2"
    )
    parser.add_argument("--again", action="store_true", help="forget earlier results")
    parser.add_argument(
        "--out", type=Path, default=HERE / "results", help="folder of peers.md and peers.json"
    )
    options = parser.parse_args()
    # All of them get the same cores.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    prepare(work, options.networks)
    if options.prepare:
        return
    if options.again:
        shutil.rmtree(work / "results", ignore_errors=True)
    (work / "results").mkdir(exist_ok=True)
    record: dict[str, Any] = {
        "machine": str(this_environment(options.threads)),
        "threads": options.threads,
        "installations": kept(
            work / "results/installations.json", lambda: measure_installations(work, options.threads)
        ),
        "networks": {},
    }
    for network in options.networks:
        rounds = max(2, options.rounds // 2) if "wide" in network else options.rounds
        file = work / f"results/{network}.json"
        record["networks"][network] = kept(
            file,
            lambda network=network, rounds=rounds: measure_network(work, network, options.threads, rounds),
        )
    options.out.mkdir(exist_ok=True)
    (options.out / "peers.json").write_text(json.dumps(record, indent=1) + "\n")
    (options.out / "peers.md").write_text(report(record))
    print(options.out / "peers.md")


if __name__ == "__main__":
    main()
