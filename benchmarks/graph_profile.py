"""Where the time of an inference goes on ONNX Runtime: the operators of one or more bundles, in turns.

    python benchmarks/graph_profile.py BUNDLE [BUNDLE ...]

Each session runs one image with one thread, and ONNX Runtime records the time of each operator. The sessions take
turns, and the table has the sums of the medians, by kind of operator. Its last row has the wall times without
records. A line for each further bundle has their ratio to the first one.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import onnxruntime

from edgead.bundle import open_bundle

KINDS = {
    "Conv": "convolutions",
    "FusedConv": "convolutions",
    "ConvTranspose": "transposed convolutions",
    "ReorderInput": "layout of memory",
    "ReorderOutput": "layout of memory",
}
HEAD, OTHER = "head", "pre-processing, sums and resizing of the student"
ROUNDS, EACH = 10, 20


def session(bundle: Path, profile: Path | None) -> onnxruntime.InferenceSession:
    """Open the graph of a bundle with one thread, and with records if there is a file for them."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    return onnxruntime.InferenceSession(
        open_bundle(bundle).graph(), options, providers=["CPUExecutionProvider"]
    )


def kinds_ms(record: Path) -> dict[str, float]:
    """Return the milliseconds of an inference by kind of operator, from the records of many."""
    times: dict[str, list[float]] = defaultdict(list)
    kinds = {}
    for event in json.loads(record.read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times[event["name"]].append(event["dur"] / 1e3)
            is_head = event["name"].startswith("anomaly_map_head/")
            kinds[event["name"]] = HEAD if is_head else KINDS.get(event["args"]["op_name"], OTHER)
    found: dict[str, float] = defaultdict(float)
    for name, taken in times.items():
        found[kinds[name]] += median(taken)
    return dict(found)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundles", nargs="+", type=Path)
    bundles = parser.parse_args().bundles
    image = np.random.default_rng(0).integers(0, 256, (1, 256, 256, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        recording = [session(bundle, Path(folder) / f"{place}") for place, bundle in enumerate(bundles)]
        plain = [session(bundle, None) for bundle in bundles]
        wall: list[list[float]] = [[] for _ in bundles]
        for _ in range(ROUNDS):
            for place in range(len(bundles)):
                for _ in range(EACH):
                    recording[place].run(None, {recording[place].get_inputs()[0].name: image})
                taken = []
                for _ in range(EACH):
                    began = time.perf_counter()
                    plain[place].run(None, {plain[place].get_inputs()[0].name: image})
                    taken.append(1e3 * (time.perf_counter() - began))
                wall[place].append(median(taken))
        records = [kinds_ms(Path(one.end_profiling())) for one in recording]
    print("| ms | " + " | ".join(str(bundle) for bundle in bundles) + " |")
    print("|---" * (len(bundles) + 1) + "|")
    for kind in (*dict.fromkeys(KINDS.values()), HEAD, OTHER):
        print(f"| {kind} | " + " | ".join(f"{record.get(kind, 0.0):.2f}" for record in records) + " |")
    sums = [sum(record.values()) for record in records]
    print("| sum | " + " | ".join(f"{total:.2f}" for total in sums) + " |")
    print("| without records | " + " | ".join(f"{median(taken):.2f}" for taken in wall) + " |")
    for place in range(1, len(bundles)):
        ratios = sorted(one / first for one, first in zip(wall[place], wall[0], strict=True))
        spread = f"{ratios[0]:.3f} to {ratios[-1]:.3f} in {ROUNDS} rounds"
        print(f"{bundles[place]}: {median(ratios):.3f} of the first ({spread})")


if __name__ == "__main__":
    main()
