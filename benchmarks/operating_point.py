"""Found defects and false alarms at the thresholds of a user: the build's, of 100 more images, and the best F1.

    python benchmarks/operating_point.py --data ../shared/data --cuts magnetic_tile:90 screw:220 --runs runs

For each part, a number of good images is drawn for the training, 100 others are collected "at the line", and up to 200
others stay unseen. Half of the labelled test images are at hand for `--best-f1`. The other half counts what every
threshold finds, so no threshold is counted on the images that set it. The commands are `edgead train`, `build` and
`threshold`. An unfinished run is continued. The results are operating_point.json and operating_point.md in
benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from edgead.bundle import open_bundle
from edgead.data import Sample, open_dataset
from edgead.evaluation.threshold_setting import score_images
from edgead.files.parsing import write_json
from edgead.runtime import open_session
from edgead.scoring.metrics import auroc
from edgead.scoring.operating_points import LabelledScores
from edgead.scoring.threshold import smallest_rate

RESULTS = Path(__file__).parent / "results"
MORE = 100
# A false-alarm rate that 100 images support, beside the default of 0.01, which needs 299.
ACCEPTED = 0.1
MOST_UNSEEN = 200
SEED = 14


def measure(data: Path, count: int, hold_out: str, runs: Path, options: list[str]) -> list[dict[str, Any]]:
    """Train, build and set the thresholds of one part.

    Args:
        data: Folder of the dataset, in MVTec's layout.
        count: Number of good images for the training.
        hold_out: Hold-out of the training.
        runs: Folder of the run, the bundle and the chosen images.
        options: Further options of `edgead train`.

    Returns:
        One row for each threshold.
    """
    home = runs / f"{data.name}-{count}-{hold_out}"
    dataset = open_dataset(data)
    order = np.random.default_rng(SEED).permutation(len(dataset.train))
    good = [dataset.train[number] for number in order]
    of_kind = [[sample for sample in dataset.test if sample.label == label] for label in (0, 1)]
    at_hand, counted = ([samples[start::2] for samples in of_kind] for start in (0, 1))
    part, more = home / data.name, home / "more"
    _link(good[:count], part / "train" / "good")
    _link(good[count : count + MORE], more)
    for samples in at_hand:
        for sample in samples:
            _link([sample], part / "test" / sample.defect)
    edgead = [sys.executable, "-m", "edgead"]
    train = [*edgead, "train", part, "--out", home / "run", "--hold-out", hold_out, *options]
    subprocess.run(train, check=True)
    bundle = home / "bundle"
    subprocess.run([*edgead, "build", home / "run", "--out", bundle], check=True)
    unseen = good[count + MORE :][:MOST_UNSEEN]
    opened = open_bundle(bundle)
    with open_session(opened) as session:
        scores = [
            np.array(list(score_images(session, samples, opened.manifest, skip_broken=False)[0].values()))
            if samples
            else np.empty(0)
            for samples in (counted[0], counted[1], unseen)
        ]
    row = {
        "part": data.name,
        "images": count,
        "hold_out": hold_out,
        "image_auroc": auroc(
            np.concatenate(scores[:2]).astype(np.float32),
            np.repeat([False, True], list(map(len, scores[:2]))),
        ),
    }
    steps: dict[str, list[Any]] = {
        "of the build": [],
        f"{MORE} more good images": ["--good", more],
        f"{MORE} more, and the held-out images": ["--good", more, "--join"],
        f"{MORE} more, rate {ACCEPTED:g}": ["--good", more, "--false-alarm-rate", str(ACCEPTED)],
        "best F1 of the images at hand": [part, "--best-f1"],
    }
    rows = []
    for name, setting in steps.items():
        if setting:
            subprocess.run([*edgead, "threshold", bundle, *setting], check=True)
        rows.append({**row, "threshold": name, **_outcome(bundle, data.name, scores)})
    return rows


def _link(samples: list[Sample], folder: Path) -> None:
    """Link image files into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for sample in samples:
        link = folder / sample.path.name
        if not link.is_symlink():
            link.symlink_to(sample.path.resolve())


def _outcome(bundle: Path, part: str, scores: list[Any]) -> dict[str, Any]:
    """Count what the current threshold of a bundle finds."""
    threshold = open_bundle(bundle).manifest.thresholds[part]
    test_good, defects, unseen = scores
    point = LabelledScores(test_good, defects).at(threshold.value)
    promised = None
    if threshold.false_alarm_rate is not None:
        promised = max(threshold.false_alarm_rate, smallest_rate(threshold.n_normal))
    return {
        "value": threshold.value,
        "good_images": threshold.n_normal,
        "promised": promised,
        "found": point.found,
        "defects": point.n_defects,
        "recall_interval": point.recall_interval(),
        "false_alarms": point.false_alarms,
        "good": point.n_good,
        "false_alarm_interval": point.false_alarm_interval(),
        "unseen_alarms": int((unseen > threshold.value).sum()),
        "unseen": len(unseen),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return a Markdown table.

    Args:
        rows: Rows of `measure`.

    Returns:
        Text of several lines.
    """
    head = (
        "part", "good images", "hold-out", "image AUROC", "threshold", "images behind it", "promised rate",
        "found", "false alarms in test/good", "false alarms in unseen train/good",
    )  # fmt: skip
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in rows:
        promised = "none" if row["promised"] is None else f"{row['promised']:.3f}"
        cells = [row["part"], row["images"], row["hold_out"], f"{row['image_auroc']:.3f}", row["threshold"]]
        cells += [row["good_images"], promised, f"{row['found']} of {row['defects']}"]
        cells += [
            f"{row['false_alarms']} of {row['good']}",
            f"{row['unseen_alarms']} of {row['unseen']}" if row["unseen"] else "",
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main() -> None:
    """Measure all parts, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with one folder per part")
    parser.add_argument("--cuts", nargs="+", default=["magnetic_tile:90", "screw:220"], metavar="PART:N")
    parser.add_argument("--hold-outs", nargs="+", default=["auto"])
    parser.add_argument("--runs", type=Path, default=Path("runs/operating_point"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("options", nargs="*", help="further options of edgead train, after --")
    arguments = parser.parse_args()
    rows = []
    for hold_out in arguments.hold_outs:
        for cut in arguments.cuts:
            name, count = cut.split(":")
            rows += measure(
                arguments.data / name, int(count), hold_out, arguments.runs.resolve(), arguments.options
            )
    about = {
        "command": " ".join(["python", *sys.argv]),
        "machine": platform.machine(),
        "versions": {name: version(name) for name in ("edgead", "torch", "timm", "onnxruntime")},
        "seed": SEED,
    }
    arguments.out.mkdir(exist_ok=True)
    write_json(arguments.out / "operating_point.json", {**about, "rows": rows})
    print(json.dumps(about, indent=1))
    print(table(rows))


if __name__ == "__main__":
    main()
