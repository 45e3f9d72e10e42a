"""Times of float32 and INT8 bundles on ONNX Runtime and on OpenVINO, which take turns.

    python benchmarks/intel.py FP32 INT8

The arguments are bundles of one run for the target `cpu`. The CPU time counts all threads of the process, so that it
hardly depends on other programs.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median

import numpy as np

from edgead.bundle import open_bundle
from edgead.runtime.environment import this_environment
from edgead.runtime.onnxruntime import OnnxRuntimeSession
from edgead.runtime.openvino import OpenVinoSession


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--runs", type=int, default=100)
    arguments = parser.parse_args()
    sessions, opened_s = {}, {}
    bundles = [open_bundle(path) for path in arguments.bundles]
    for bundle in bundles:
        precision, graph = bundle.manifest.precision, bundle.graph()
        for library in ("onnxruntime", "openvino"):
            start_s = time.process_time()
            sessions[library, precision] = (
                OnnxRuntimeSession(graph, threads=1)
                if library == "onnxruntime"
                else OpenVinoSession(graph, precision=precision, threads=1)
            )
            opened_s[library, precision] = time.process_time() - start_s
    image = bundles[0].golden().images[:1]
    times: dict[tuple[str, str], list[tuple[float, float]]] = {key: [] for key in sessions}
    for number in range(arguments.runs + 10):
        for key, session in sessions.items():
            wall_s, cpu_s = time.perf_counter(), time.process_time()
            session.infer(image)
            taken = 1e3 * (time.process_time() - cpu_s), 1e3 * (time.perf_counter() - wall_s)
            if number >= 10:
                times[key].append(taken)
    print(this_environment(1, "openvino"), this_environment(1).libraries, bundles[0].manifest.size, sep="\n")
    print(
        "| library | precision | CPU time, ms (p50) | of float32 | wall time, ms (p50) | least | opened, s |"
    )
    print("|---|---|---|---|---|---|---|")
    for (library, precision), taken in times.items():
        cpu_ms, wall_ms = median(one[0] for one in taken), [one[1] for one in taken]
        exact_ms = median(one[0] for one in times[library, "fp32"])
        print(
            f"| {library} | {precision} | {cpu_ms:.2f} | {cpu_ms / exact_ms:.2f} | {np.median(wall_ms):.2f} | "
            f"{min(wall_ms):.2f} | {opened_s[library, precision]:.2f} |"
        )


if __name__ == "__main__":
    main()
