"""Accuracy of the default settings on real parts: train, build and evaluate several seeds, and write one table.

    python benchmarks/accuracy.py --data ../shared/data --parts transistor screw --seeds 3

For each part and seed the script runs the three commands of a user (`edgead train`, `build`, `eval` of a bundle), then
compares the trained model with the bundle on every test image. Existing runs are continued, so a killed measurement can
be started again. The results are accuracy_seeds.json and accuracy_seeds.md in benchmarks/results/; accuracy.md says
what they mean.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from edgead.bundle import open_bundle
from edgead.data import open_dataset
from edgead.evaluation.dataset_scores import score_dataset
from edgead.runtime import open_session
from edgead.training.run import open_run

RESULTS = Path(__file__).parent / "results"
COLUMNS = {
    "image_auroc": "image AUROC",
    "pixel_auroc": "pixel AUROC",
    "aupro": "AUPRO",
    "image_f1_max": "F1-max",
    "dice": "Dice at threshold",
    "minutes": "training, min",
    "s_per_epoch": "s an epoch",
    "map_error_max": "largest absolute map error, bundle to torch",
    "decision_flips": "decisions that differ",
}


def measure(data: Path, runs: Path, seed: int, options: list[str]) -> dict[str, Any]:
    """Measure one part with one seed.

    Args:
        data: Folder of the dataset.
        runs: Folder of all runs, bundles and reports.
        seed: Seed of the training.
        options: Further options of `edgead train`.

    Returns:
        Figures of the bundle on the test images.
    """
    name = f"{data.name}-seed{seed}"
    run, bundle, report = runs / name, runs / f"{name}-bundle", runs / f"{name}-report"
    edgead = [sys.executable, "-m", "edgead"]
    subprocess.run([*edgead, "train", data, "--out", run, "--seed", str(seed), *options], check=True)
    subprocess.run([*edgead, "build", run, "--out", bundle], check=True)
    subprocess.run([*edgead, "eval", bundle, data, "--out", report], check=True)
    evaluation = json.loads((report / "results.json").read_text())["evaluation"]
    epochs = json.loads((run / "metrics.json").read_text())
    opened, built = open_run(run), open_bundle(bundle)
    samples, threshold = open_dataset(data).test, built.manifest.thresholds[data.resolve().name].value
    with opened.session() as session:
        reference = score_dataset(session, samples, opened.size)
    with open_session(built) as session:
        other = score_dataset(session, samples, opened.size)
    seconds = [row["seconds"] for row in epochs]
    return {
        "part": data.name,
        "seed": seed,
        "epochs": len(epochs),
        **{key: evaluation[key] for key in ("image_auroc", "pixel_auroc", "aupro", "image_f1_max", "dice")},
        "false_alarms": evaluation["false_alarms"],
        "misses": evaluation["misses"],
        "minutes": opened.summary["seconds"] / 60,
        "s_per_epoch": sorted(seconds)[len(seconds) // 2],
        "map_error_max": float(np.abs(other.maps - reference.maps).max()),
        "decision_flips": int(((other.scores > threshold) != (reference.scores > threshold)).sum()),
        "images": len(reference.samples),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return a Markdown table: a line for each part and seed, and mean and spread for each part.

    Args:
        rows: Results of `measure`.

    Returns:
        Text of several lines.
    """
    lines = [f"| part | seed | {' | '.join(COLUMNS.values())} |", f"|---|---|{'---|' * len(COLUMNS)}"]
    for part in dict.fromkeys(row["part"] for row in rows):
        of_part = [row for row in rows if row["part"] == part]
        lines += [
            f"| {part} | {row['seed']} | {' | '.join(_text(row[key]) for key in COLUMNS)} |"
            for row in of_part
        ]
        if len(of_part) > 1:
            spread = " | ".join(
                f"**{_text(mean(row[key] for row in of_part))}** ± {_text(stdev(row[key] for row in of_part))}"
                for key in COLUMNS
            )
            lines.append(f"| {part} | mean ± spread | {spread} |")
    return "\n".join(lines)


def _text(value: float) -> str:
    """Text of a figure."""
    if isinstance(value, int):
        return str(value)
    return f"{value:.1e}" if 0 < value < 1e-3 else f"{value:.4f}" if value < 1.5 else f"{value:.1f}"


def main() -> None:
    """Measure all parts and seeds, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with one folder per part")
    parser.add_argument("--parts", nargs="+", default=["transistor", "screw"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=Path("runs/accuracy"))
    parser.add_argument("options", nargs="*", help="further options of edgead train, after --")
    arguments = parser.parse_args()
    rows = [
        measure(arguments.data / part, arguments.runs, seed, arguments.options)
        for part in arguments.parts
        for seed in range(arguments.seeds)
    ]
    about = {
        "command": " ".join(["python", *sys.argv]),
        "machine": f"{platform.machine()}, {_processor()}",
        "versions": {
            name: version(name) for name in ("edgead", "torch", "timm", "onnxruntime", "opencv-python")
        },
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "accuracy_seeds.json").write_text(json.dumps({**about, "rows": rows}, indent=2) + "\n")
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    (RESULTS / "accuracy_seeds.md").write_text(
        "# Accuracy of the default settings\n\n"
        f"`{about['command']}` on {about['machine']}; {versions}. A training sees "
        f"no test image, and neither does the threshold.\n\n{table(rows)}\n"
    )
    print(table(rows))


def _processor() -> str:
    """Number and name of the processors."""
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":")[1].strip() for line in cpuinfo if line.startswith("model name")]
    return f"{len(models)} x {models[0]}" if models else platform.processor()


if __name__ == "__main__":
    main()
