"""Where the time of an inference goes on ONNX Runtime: the operators of one or more bundles, in turns.

    python benchmarks/graph_profile.py BUNDLE [BUNDLE ...]

Each session runs one image with one thread, and ONNX Runtime records the time of each operator. The sessions take
turns, and the table has the sums of the medians, by kind of operator. The row below has the wall times without
records, which make small operators look longer than they are; and the last one how much of them the head takes: the
median difference from the same graph without a head. A line for each further bundle has their ratio to the first one.
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
from onnx import ModelProto, TensorProto, helper

from edgead.bundle import open_bundle
from edgead.export.graph_sections import sections_of
from edgead.export.head.model_file import graph_from_file

KINDS = {
    "Conv": "convolutions",
    "FusedConv": "convolutions",
    "ConvTranspose": "transposed convolutions",
    "ReorderInput": "layout of memory",
    "ReorderOutput": "layout of memory",
}
HEAD, OTHER = "head", "pre-processing, sums and resizing of the student"
ROUNDS, EACH = 10, 20


def session(graph: bytes, profile: Path | None = None) -> onnxruntime.InferenceSession:
    """Open a graph with one thread, and with records if there is a file for them."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def without_head(graph: bytes) -> bytes:
    """Take the head from a graph; its outputs are the first number of each feature, so that nothing is copied."""
    model: ModelProto = graph_from_file(graph)
    sections = sections_of(model)
    kept = sorted(sections.image | sections.teacher | sections.student)
    features = dict.fromkeys(model.graph.node[sections.head].input)
    nodes = [model.graph.node[index] for index in kept]
    first = [helper.make_node("Slice", [name, "from", "to"], [f"{name}_first"]) for name in features]
    outputs = [helper.make_tensor_value_info(f"{name}_first", TensorProto.FLOAT, None) for name in features]
    ends = [
        helper.make_tensor(name, TensorProto.INT64, [4], [place] * 4)
        for name, place in (("from", 0), ("to", 1))
    ]
    cut = ModelProto()
    cut.CopyFrom(model)
    for field, content in ((cut.graph.node, nodes + first), (cut.graph.output, outputs)):
        del field[:]
        field.extend(content)
    cut.graph.initializer.extend(ends)
    return bytes(cut.SerializeToString())


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
        graphs = [open_bundle(bundle).graph() for bundle in bundles]
        recording = [session(graph, Path(folder) / f"{place}") for place, graph in enumerate(graphs)]
        plain = [(session(graph), session(without_head(graph))) for graph in graphs]
        wall: list[list[float]] = [[] for _ in bundles]
        head: list[list[float]] = [[] for _ in bundles]
        for _ in range(ROUNDS):
            for place in range(len(bundles)):
                for _ in range(EACH):
                    recording[place].run(None, {recording[place].get_inputs()[0].name: image})
                taken = []
                for _ in range(EACH):
                    both = []
                    for one in plain[place]:
                        began = time.perf_counter()
                        one.run(None, {one.get_inputs()[0].name: image})
                        both.append(1e3 * (time.perf_counter() - began))
                    taken.append(both[0])
                    head[place].append(both[0] - both[1])
                wall[place].append(median(taken))
        records = [kinds_ms(Path(one.end_profiling())) for one in recording]
    print("| ms | " + " | ".join(str(bundle) for bundle in bundles) + " |")
    print("|---" * (len(bundles) + 1) + "|")
    for kind in (*dict.fromkeys(KINDS.values()), HEAD, OTHER):
        print(f"| {kind} | " + " | ".join(f"{record.get(kind, 0.0):.2f}" for record in records) + " |")
    sums = [sum(record.values()) for record in records]
    print("| sum | " + " | ".join(f"{total:.2f}" for total in sums) + " |")
    print("| without records | " + " | ".join(f"{median(taken):.2f}" for taken in wall) + " |")
    shares = (
        f"{median(taken):.2f} ({median(taken) / median(whole):.1%})"
        for taken, whole in zip(head, wall, strict=True)
    )
    print("| head, without records | " + " | ".join(shares) + " |")
    for place in range(1, len(bundles)):
        ratios = sorted(one / first for one, first in zip(wall[place], wall[0], strict=True))
        spread = f"{ratios[0]:.3f} to {ratios[-1]:.3f} in {ROUNDS} rounds"
        print(f"{bundles[place]}: {median(ratios):.3f} of the first ({spread})")


if __name__ == "__main__":
    main()
