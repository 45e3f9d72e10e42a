"""The tables of `benchmarks/peers.py`. Ratios above 1 are in favour of edgead."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Any

CONTESTANTS = {
    "edgead": "edgead (`--target cpu`, float32)",
    "edgead-openvino": "edgead (`--target intel`, float32)",
    "edgead-int8": "edgead (`--target intel`, INT8)",
    "anomalib-torch": "anomalib, PyTorch",
    "anomalib-openvino": "anomalib, OpenVINO",
    "onnxruntime": "ONNX Runtime alone, anomalib's file",
    "openvino": "OpenVINO alone, anomalib's file",
    "onnxruntime-same": "ONNX Runtime alone, edgead's file",
    "torch": "PyTorch, eager",
    "torch-compile": "PyTorch, `torch.compile`",
}
NETWORKS = {
    "rd-resnet18": "Reverse Distillation, ResNet18",
    "rd-wide_resnet50_2": "Reverse Distillation, WideResNet50-2",
    "stfpm-resnet18": "STFPM, ResNet18",
}
COLUMNS = {
    "latency": "one image, ms",
    "throughput": "batch of 8, images/s",
    "memory": "peak memory, MiB",
    "start": "start to first verdict, s",
}
HEADER = """# edgead beside its peers

    python benchmarks/peers.py WORK

{machine}, {threads} threads for every contestant on the same {threads} cores. anomalib trains each model on synthetic
parts with a random teacher and exports it, and edgead imports it: all have the same weights. 256 x 256 pixels, float32
if nothing else is said.

The number in brackets is the ratio to edgead with `--target cpu`: above 1 edgead is ahead. Every contestant is a
process of its own, and they take turns. Latency: median, and the median of the ratios of the rounds.

- one image: uint8 pixels in hand to score and map (H, W). Of edgead and anomalib these are the public calls
  (`Model.predict`, `TorchInferencer.predict`, `OpenVINOInferencer.predict`), with the decision and regions.
- batch of 8: images given at once. anomalib's inferencers and its exported file take one image, so they get
  them in turn.
- peak memory: resident set after some ten images one by one.
- start to first verdict: from the start of the process, with its imports, to the first score. Files and compiled
  models are in caches.
- map: largest difference from the map of anomalib's network in PyTorch, as a share of its largest value: everywhere,
  and without a border of 16 pixels, where edgead smooths Reverse Distillation as RD4AD does
  ([imports.md](imports.md)). Maps of anomalib's exports are compared after its normalisation. OpenVINO computes in
  bfloat16 where a processor can, if nobody forbids it, as edgead does.
- INT8: built without the limits of decision flips and AUROC, because scores of a random teacher say nothing. The time
  does not depend on them.
"""
WORK = """Image files of 256 x 256 pixels, from the start of the process to its end, without images of results.
Training: the second epoch in batches of 8, hyperparameters of the paper, without validation; edgead computes the
teacher's features once, before the first epoch, if they fit into the memory.
"""
_SPIN = (
    "edgead's threads spin for 50 us while they wait for the next operator, those of ONNX Runtime alone for tens of "
    "milliseconds, which saves 18 % beside a program that decodes images ([speed.md](speed.md#threads-that-wait)). "
    "Repeated on an idle machine, edgead takes 1.03 to 1.11 of the time of ONNX Runtime alone (ResNet18), and ONNX "
    "Runtime alone with this limit 1.02 to 1.11 in the same runs, with five, ten or thirteen contestants alive. So it "
    "is the limit, and not the number of processes; a larger distance was not seen again. The decision and the regions "
    "take about a millisecond more."
)
_MEMORY = (
    "edgead holds OpenCV (26 MiB) and, while it opens, the bytes of the graph once more: those whose hash was checked "
    "are those that are loaded (21 MiB for STFPM, 307 MiB for WideResNet50-2)."
)
_START = (
    "Before its first verdict edgead checks the hashes of the bundle, the chart and nine golden images, which is nine "
    "times the work of the first verdict."
)
EXPLANATIONS: dict[tuple[str, str], str] = {
    ("onnxruntime", "latency"): _SPIN,
    ("onnxruntime", "throughput"): _SPIN,
    ("onnxruntime-same", "latency"): _SPIN,
    (
        "onnxruntime-same",
        "throughput",
    ): f"{_SPIN} A list of images is also read in threads beside the inference.",
    **{(name, "memory"): _MEMORY for name in ("onnxruntime", "onnxruntime-same", "openvino")},
    **{(name, "start"): _START for name in ("onnxruntime", "onnxruntime-same", "openvino")},
}
"""Causes of the ratios below 1, by contestant and column."""

BEHIND = 0.98
"""Largest ratio that counts as behind: the rounds of one contestant differ by as much."""


def figures(of_network: dict[str, Any], name: str) -> dict[str, tuple[float, float]]:
    """Return each column's value of a contestant, and its ratio to edgead, above 1 if edgead is ahead."""
    own, entry = of_network["edgead"], of_network[name]
    paired = [theirs / ours for ours, theirs in zip(own["rounds_ms"], entry["rounds_ms"], strict=True)]
    in_batch = [theirs / ours for ours, theirs in zip(own["batch_ms"], entry["batch_ms"], strict=True)]
    start_s = median(entry["starts_s"])
    return {
        "latency": (median(entry["rounds_ms"]), median(paired)),
        "throughput": (8e3 / median(entry["batch_ms"]), median(in_batch)),
        "memory": (entry["peak_mib"], entry["peak_mib"] / own["peak_mib"]),
        "start": (start_s, start_s / median(own["starts_s"])),
    }


def _table(of_network: dict[str, Any]) -> Iterator[str]:
    yield f"| | {' | '.join(COLUMNS.values())} | map: everywhere, inside |"
    yield "|---|---|---|---|---|---|"
    for name, title in CONTESTANTS.items():
        cells = []
        for column, (value, ratio) in figures(of_network, name).items():
            shown = (
                f"{value:.2f}" if column == "start" else f"{value:.1f}" if value < 1000 else f"{value:.0f}"
            )
            cells.append(shown if name == "edgead" else f"{shown} ({ratio:.2f})")
        found = of_network[name]["map"]
        cells.append(
            ", ".join(f"{found[where] / found['largest']:.1e}" for where in ("everywhere", "inside"))
        )
        yield f"| {title} | {' | '.join(cells)} |"


def _behind(record: dict[str, Any]) -> Iterator[str]:
    rows: dict[tuple[str, str], list[str]] = {}
    for network, entry in record["networks"].items():
        for name in CONTESTANTS:
            for column, (_, ratio) in figures(entry["contestants"], name).items():
                if ratio < BEHIND and not name.startswith("edgead"):
                    rows.setdefault((name, column), []).append(f"{ratio:.2f} ({NETWORKS[network]})")
    for (name, column), ratios in rows.items():
        cause = EXPLANATIONS.get((name, column), "not explained.")
        yield f"- {CONTESTANTS[name]}, {COLUMNS[column].split(',')[0]}: {'; '.join(ratios)}. {cause}"


def _work(record: dict[str, Any]) -> Iterator[str]:
    """Yield the rows for a folder of images, and for training."""
    yield "| network | | edgead | anomalib | ratio |"
    yield "|---|---|---|---|---|"
    for network, entry in record["networks"].items():
        folder, epoch = entry["predict"], entry["epoch"]
        for title, seconds in (
            (f"`predict` on {folder['images']} image files, s", folder["seconds"]),
            ("an image in an epoch of training, s", epoch),
        ):
            ours, theirs = seconds["edgead"], seconds["anomalib"]
            yield f"| {NETWORKS[network]} | {title} | {ours:.2f} | {theirs:.2f} | {theirs / ours:.2f} |"


def report(record: dict[str, Any]) -> str:
    """Return the content of peers.md."""
    installed = record["installations"]
    lines = [HEADER.format(machine=record["machine"], threads=record["threads"])]
    for network, entry in record["networks"].items():
        lines += [f"\n## {NETWORKS[network]}\n", *_table(entry["contestants"])]
    lines += ["\n## A folder of images, and training\n", WORK, *_work(record)]
    lines += ["\n## Installation\n", "| | |", "|---|---|"]
    sizes = {"edgead": "edgead", "intel": "edgead[openvino]", "anomalib": "anomalib[openvino], onnxruntime"}
    lines += [f"| size of {title} | {installed['size_mb'][name]:.0f} MB |" for name, title in sizes.items()]
    lines += [f"| `{name} --help` | {median(taken):.2f} s |" for name, taken in installed["help_s"].items()]
    lines += [
        f"| import of {name} | {median(taken):.2f} s |" for name, taken in installed["import_s"].items()
    ]
    lines += ["\n## Where edgead is behind\n", *(list(_behind(record)) or ["Nowhere."])]
    return "\n".join(lines) + "\n"
