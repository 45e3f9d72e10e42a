"""What an update with brighter images changes: false alarms, found defects, and the run that it goes on with.

    OMP_NUM_THREADS=1 python benchmarks/update.py --data ../shared/data/screw --methods rd --gain 1.4

The first training sees the good images of a part but 50, which are chosen at random. Then the light gets stronger: the
50 images are brightened by the gain and added, and `edgead train --from` goes on with the run. All test images are
scored as they are and brightened, so no image that gives a figure was seen by a training. Finished runs are kept, so a
killed measurement can be started again. The results are update_PART.json in benchmarks/results/, beside those of other
options, and printed as the table of update.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import random
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import edgead
from edgead.data import load_images, open_dataset
from edgead.files.parsing import write_json
from edgead.training.finish import image_scores
from edgead.training.run import Run

RESULTS = Path(__file__).parent / "results"
NEW, SEED = 50, 20261129
COLUMNS = ("false alarms", "brighter false alarms", "found defects", "brighter found defects")


def write_data(source: Path, folder: Path, gain: float, seed: int) -> tuple[Path, Path]:
    """Write the images before and after the change of the light.

    Args:
        source: Folder of the part, with `train/good` and `test`.
        folder: Folder to write; images that are there are kept.
        gain: Factor of the brightness.
        seed: Seed of the choice of the new images.

    Returns:
        Datasets of both trainings, with the same name. The second one has the test images, as they are and brightened,
        as kinds `brighter-KIND`.
    """
    before, after = folder / "before" / source.name, folder / f"after-{gain}" / source.name
    good = sorted((source / "train" / "good").iterdir())
    new = set(random.Random(SEED + seed).sample(good, NEW))
    for file in good:
        if file in new:
            _brighten(file, after / "train" / "good" / f"brighter-{file.name}", gain)
        else:
            for data in (before, after):
                _copy(file, data / "train" / "good" / file.name)
    for file in sorted((source / "test").glob("*/*")):
        kind = file.parent.name
        _copy(file, after / "test" / kind / file.name)
        _brighten(file, after / "test" / f"brighter-{kind}" / file.name, gain)
    return before, after


def _copy(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copyfile(file, target)


def _brighten(file: Path, target: Path, gain: float) -> None:
    """Write an image with all values multiplied; a sensor cuts them off at its largest value."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        image = cv2.imread(str(file))
        assert image is not None, file
        assert cv2.imwrite(str(target), cv2.convertScaleAbs(image, alpha=gain))


def figures(run: Run, data: Path) -> dict[str, Any]:
    """Score the test images as they are and brightened.

    Args:
        run: Finished run.
        data: One of the datasets of `write_data`.

    Returns:
        Counts of false alarms and found defects, and what the training took.
    """
    groups: dict[tuple[bool, bool], list[Path]] = {}
    for file in sorted((data / "test").glob("*/*")):
        kind = file.parent.name
        groups.setdefault((kind.startswith("brighter-"), kind.endswith("good")), []).append(file)
    (threshold,) = (found.value for found in run.thresholds.values() if found)
    samples = {sample.path: sample for sample in open_dataset(data).test}
    result: dict[str, Any] = {"threshold": threshold, "minutes": run.summary["seconds"] / 60}
    with run.session() as session:
        for (brighter, is_good), files in groups.items():
            scores = image_scores(session, load_images([samples[file] for file in files], run.size))
            name = ("brighter " if brighter else "") + ("false alarms" if is_good else "found defects")
            result[name] = [int((scores > threshold).sum()), len(scores)]
            result[f"{name}: scores"] = [round(float(score), 4) for score in np.sort(scores)]
    return result


def measure(source: Path, runs: Path, options: dict[str, Any], gain: float) -> dict[str, Any]:
    """Train and update with one method, and score all test images with both runs.

    Args:
        source: Folder of the part.
        runs: Folder of the images and the runs.
        options: Options of `edgead.train`.
        gain: Factor of the brightness of the new images.

    Returns:
        Figures of the old run and of the update.
    """
    before, after = write_data(source, runs / str(options["seed"]), gain, options["seed"])
    name = "-".join([source.name, *map(str, options.values())])
    old = edgead.train(before, runs / name, **options)
    content = {file.name: file.read_bytes() for file in old.path.iterdir()}
    update = edgead.train(after, runs / f"{name}-after-{gain}", base=old.path)
    assert content == {file.name: file.read_bytes() for file in old.path.iterdir()}, "the old run is changed"
    both = {"old": figures(old, after), "update": figures(update, after)}
    machine = {"machine": platform.processor() or platform.machine(), "torch": version("torch")}
    return {"part": source.name, **machine, "options": options, "gain": gain, **both}


def _key(row: dict[str, Any]) -> tuple[dict[str, Any], float]:
    """What a row is a measurement of. The oldest rows have neither a rate nor a seed."""
    return {"false_alarm_rate": 0.01, "seed": 0, **row["options"]}, row["gain"]


def table(rows: list[dict[str, Any]]) -> str:
    """Return the results as a Markdown table.

    Args:
        rows: Results of `measure`.
    """
    lines = [
        f"| method | rate | seed | gain | run | {' | '.join(COLUMNS)} | threshold |",
        "|---" * (len(COLUMNS) + 6) + "|",
    ]
    for row in rows:
        for run in ("old", "update"):
            counts = [f"{count} of {total}" for count, total in (row[run][column] for column in COLUMNS)]
            options = [row["options"][name] for name in ("method", "false_alarm_rate", "seed")]
            cells = [*map(str, (*options, row["gain"], run)), *counts, f"{row[run]['threshold']:.4f}"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure each method and gain, and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of a part")
    parser.add_argument("--runs", type=Path, default=Path("runs/update"))
    parser.add_argument("--methods", nargs="+", default=["linear", "rd"])
    parser.add_argument("--gain", nargs="+", type=float, default=[1.4])
    parser.add_argument("--size", default="128")
    parser.add_argument("--epochs", type=int, default=20, help="of rd")
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[0], help="of the training and of the new images"
    )
    parser.add_argument("--rates", nargs="+", type=float, default=[0.01], help="false-alarm rates")
    arguments = parser.parse_args()
    file = RESULTS / f"update_{arguments.data.name}.json"
    earlier = json.loads(file.read_text())["rows"] if file.exists() else []
    rows: list[dict[str, Any]] = []
    for method in arguments.methods:
        options: dict[str, Any] = {"method": method, "size": arguments.size}
        if method != "linear":
            options["epochs"] = arguments.epochs
        for rate, seed in itertools.product(arguments.rates, arguments.seeds):
            options |= {"false_alarm_rate": rate, "seed": seed}
            rows += [
                measure(arguments.data.resolve(), arguments.runs, dict(options), gain)
                for gain in arguments.gain
            ]
        print(table(rows), flush=True)
        measured = [_key(row) for row in rows]
        write_json(file, {"rows": [row for row in earlier if _key(row) not in measured] + rows})


if __name__ == "__main__":
    main()
