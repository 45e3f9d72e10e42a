"""A defect of 12 pixels on images of 4096 x 3000 pixels: stretched to 256 x 256 against tiles of the full resolution.

    python benchmarks/large_images.py --work WORK [--method linear] [--out benchmarks/results]

Writes synthetic images of a grained surface below WORK. Trains, builds, evaluates and predicts both ways with the
default teacher, and streams a part of the test images from a folder and from a watched folder. Each step is a process
of its own, whose time and peak memory count. Steps whose result exists are not repeated. Writes `large_images.json`
and `large_images.png`.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import edgead
from edgead.imaging.decode import read_image
from edgead.imaging.frame import cut_image
from edgead.imaging.heatmap import overlay
from edgead.runtime.framed import infer_rows

HEIGHT, WIDTH, DEFECT_PX = 3000, 4096, 12
GOOD, TEST_GOOD, TEST_DEFECT = 12, 8, 8
WAYS = {"stretched": ["--size", "256"], "tiled": ["--tile", "256", "--overlap", "32"]}
FOLDER_IMAGES, WATCHED_IMAGES = 6, 4


def surface(seed: int) -> np.ndarray:
    """Grained surface, (HEIGHT, WIDTH, 3) uint8 BGR."""
    rng = np.random.default_rng(seed)
    grey = np.full((HEIGHT, WIDTH), 120.0, np.float32)
    for cell_px, amplitude in ((2, 7.0), (8, 7.0), (32, 7.0), (128, 6.0), (1024, 8.0)):
        shape = -(-HEIGHT // cell_px) + 1, -(-WIDTH // cell_px) + 1
        noise = rng.normal(0.0, amplitude, shape).astype(np.float32)
        grey += cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
    return cv2.cvtColor(np.clip(grey, 0, 255).astype(np.uint8), cv2.COLOR_GRAY2BGR)


def write_data(root: Path) -> None:
    """Write a dataset in the layout of MVTec AD."""
    if root.exists():
        return
    partial = root.with_name("partial")
    shutil.rmtree(partial, ignore_errors=True)
    for folder in ("train/good", "test/good", "test/pit", "ground_truth/pit"):
        (partial / folder).mkdir(parents=True)
    for seed in range(GOOD + TEST_GOOD + TEST_DEFECT):
        image, mask = surface(seed), np.zeros((HEIGHT, WIDTH), np.uint8)
        folder = "train/good" if seed < GOOD else "test/good" if seed < GOOD + TEST_GOOD else "test/pit"
        if folder == "test/pit":
            rng = np.random.default_rng(1000 + seed)
            centre = int(rng.integers(20, WIDTH - 20)), int(rng.integers(20, HEIGHT - 20))
            cv2.circle(mask, centre, DEFECT_PX // 2, 255, -1)
            image[mask > 0] = (image[mask > 0] * 0.55).astype(np.uint8)
            cv2.imwrite(str(partial / f"ground_truth/pit/{seed:03d}_mask.png"), mask)
        cv2.imwrite(str(partial / f"{folder}/{seed:03d}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 95])
    partial.rename(root)


def measured(record: Path, *arguments: str, feed: tuple[list[Path], Path] | None = None) -> dict[str, float]:
    """Run a command of edgead unless its record exists; return its seconds and peak memory in MB.

    With `feed`, files are linked into a folder while the command runs, each written beside and renamed.
    """
    if record.exists():
        found: dict[str, float] = json.loads(record.read_text())
        return found
    began_s = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "edgead", *arguments])
    for file in feed[0] if feed else ():
        time.sleep(3.0)
        os.link(file, feed[1] / ".new")
        (feed[1] / ".new").rename(feed[1] / file.name)
    _, status, usage = os.wait4(process.pid, 0)
    # A model that is no better than guessing has exit code 4, and its figures count.
    if os.waitstatus_to_exitcode(status) not in (0, 4):
        raise SystemExit(f"edgead {' '.join(arguments)} failed")
    found = {
        "seconds": round(time.monotonic() - began_s, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mb": round(usage.ru_maxrss / 1024),
    }
    record.write_text(json.dumps(found))
    return found


def stream(
    folder: Path, bundle: str, files: list[Path], watched: bool
) -> tuple[dict[str, float], dict[str, Any]]:
    """Stream images from a folder; return the measures, and score and decision of each image."""
    name = "watched" if watched else "folder"
    camera, lines, record = folder / f"camera-{name}", folder / f"{name}.jsonl", folder / f"{name}.json"
    if not record.exists():
        shutil.rmtree(camera, ignore_errors=True)
        lines.unlink(missing_ok=True)
        camera.mkdir()
        for file in files[: 1 if watched else None]:
            os.link(file, camera / file.name)
    options = ["--source", str(camera), "--sink", f"jsonl:{lines}", "--max-frames", str(len(files))]
    options += ["--watch", "--max-age", "60"] if watched else []
    found = measured(record, "stream", bundle, *options, feed=(files[1:], camera) if watched else None)
    records = [json.loads(line) for line in lines.read_text().splitlines()]
    # Frames are numbered in the order in which they came: by name in a folder, and as they were fed in a watched one.
    verdicts = {
        file.name: (one["anomaly_score"], one["is_anomalous"])
        for file, one in zip(files, [r for r in records if "anomaly_score" in r], strict=True)
    }
    return found, verdicts


def compare(work: Path, data: Path, way: str, method: str) -> dict[str, Any]:
    """Train and use one of the two ways."""
    folder = work / f"{way}-{method}"
    folder.mkdir(exist_ok=True)
    run, bundle, test = str(folder / "run"), str(folder / "bundle"), str(data / "test")
    report, out = folder / "report", folder / "out"
    steps = {
        "train": measured(
            folder / "train.json", "train", str(data), "--out", run, "--method", method, *WAYS[way]
        ),
        "build": measured(folder / "build.json", "build", run, "--out", bundle),
        "predict": measured(
            folder / "predict.json", "predict", bundle, test, "--recursive", "--out", str(out)
        ),
        "eval": measured(folder / "eval.json", "eval", bundle, str(data), "--out", str(report)),
    }
    results = json.loads((report / "results.json").read_text())
    with open(out / "predictions.csv", newline="") as file:
        predicted = {
            Path(row["image"]).name: (float(row["anomaly_score"]), row["verdict"] == "anomalous")
            for row in csv.DictReader(file)
        }
    evaluated = {Path(one["path"]).name: (one["score"], one["is_anomalous"]) for one in results["images"]}
    good, pit = (sorted((data / "test" / kind).glob("*.jpg")) for kind in ("good", "pit"))
    half = FOLDER_IMAGES // 2
    steps["stream"], streamed = stream(folder, bundle, good[:half] + pit[:half], watched=False)
    end = half + WATCHED_IMAGES // 2
    steps["stream --watch"], watched = stream(folder, bundle, good[half:end] + pit[half:end], watched=True)
    streamed |= watched
    threshold = results["evaluation"]["threshold"]["value"]
    return {
        "steps": steps,
        "threshold": threshold,
        **{
            name: results["evaluation"][name]
            for name in ("image_auroc", "pixel_auroc", "aupro", "misses", "false_alarms", "good", "defect")
        },
        "eval_as_predict": evaluated == predicted,
        "stream_as_predict": streamed == {name: predicted[name] for name in streamed},
        "streamed": len(streamed),
        "shares_of_threshold": {name: round(score / threshold, 3) for name, (score, _) in predicted.items()},
        **seconds_and_seams(bundle, good[0], threshold),
        "seams_of_a_pit": seconds_and_seams(bundle, pit[0], threshold).get("seams"),
    }


def seconds_and_seams(bundle: str, file: Path, threshold: float) -> dict[str, Any]:
    """Time the steps of one image in a warm process, and measure its map at the borders of tiles."""
    with edgead.load(bundle) as model:
        seconds, began_s = {}, time.monotonic()

        def took(name: str) -> None:
            nonlocal began_s
            seconds[name], began_s = round(time.monotonic() - began_s, 3), time.monotonic()

        image = read_image(file)
        took("read")
        framing, rows = cut_image(image, model.view, model.size)
        took("cut")
        prediction = infer_rows(model.session, rows)
        took("infer")
        _, joined = framing.join(prediction)
        took("join")
        model.predict(file)
        took("predict as a whole")
    found: dict[str, Any] = {"seconds_an_image": seconds, "tiles": framing.count}
    if framing.count > 1:
        height, width, corners = model.size.height_px, model.size.width_px, framing.corners
        borders = (
            {y for _, y in corners} | {y + height for _, y in corners},
            {x for x, _ in corners} | {x + width for x, _ in corners},
        )
        found["seams"] = seams(joined / threshold, borders)
    return found


def seams(joined: np.ndarray, borders: tuple[set[int], set[int]]) -> dict[str, float]:
    """Measure a map at the borders of tiles, and elsewhere.

    A map that is only steep has about the same step on both sides of a border. So a seam is how much the step across
    the border differs from the mean of the steps before and after it.

    Args:
        joined: Map, (H, W), in units of the threshold.
        borders: Rows and columns where a tile begins or the one before it has ended.

    Returns:
        The largest steps between neighbouring pixels, and the largest seams.
    """
    at_borders, elsewhere, measured = [], [], []
    for axis in (0, 1):
        steps = np.moveaxis(np.diff(joined, axis=axis), axis, 0)
        kinks = np.abs(steps[1:-1] - (steps[:-2] + steps[2:]) / 2)
        inner = [place - 2 for place in sorted(borders[axis]) if 2 <= place <= len(steps) - 1]
        at_borders.append(kinks[inner].max())
        elsewhere.append(np.delete(kinks, inner, axis=0).max())
        measured.append(np.abs(steps).max())
    return {
        "largest_step": round(float(max(measured)), 5),
        "largest_seam_at_borders": round(float(max(at_borders)), 5),
        "largest_seam_elsewhere": round(float(max(elsewhere)), 5),
    }


def draw(work: Path, data: Path, file: Path, method: str) -> None:
    """Draw a defect with the maps of both ways around it."""
    image_file = sorted((data / "test/pit").glob("*.jpg"))[0]
    mask = cv2.imread(str(data / "ground_truth/pit" / f"{image_file.stem}_mask.png"), cv2.IMREAD_GRAYSCALE)
    y, x = (int(values.mean()) for values in np.nonzero(mask))
    image = cv2.imread(str(image_file))
    top, left = min(max(y - 200, 0), HEIGHT - 400), min(max(x - 300, 0), WIDTH - 600)
    at = slice(top, top + 400), slice(left, left + 600)
    shown = [cv2.resize(image, (600, 439), interpolation=cv2.INTER_AREA), image[at]]
    left, top = x * 600 // WIDTH, y * 439 // HEIGHT
    cv2.rectangle(shown[0], (left - 44, top - 29), (left + 44, top + 29), (0, 200, 255), 2)
    titles = ["image of 4096 x 3000", f"the defect, {DEFECT_PX} px"]
    for way in WAYS:
        with edgead.load(work / f"{way}-{method}" / "bundle") as model:
            result = model.predict(image[..., ::-1].copy(), full_size=True)
        lit = overlay(np.ascontiguousarray(image[at][..., ::-1]), result.anomaly_map[at], result.threshold)
        shown.append(np.ascontiguousarray(lit[..., ::-1]))
        share = result.anomaly_score / result.threshold
        titles.append(
            f"{way}: {'found' if result.is_anomalous else 'missed'}, score {share:.2f} of threshold"
        )
    panels = []
    for panel, title in zip(shown, titles, strict=True):
        framed = np.full((470, 610, 3), 255, np.uint8)
        panel = panel[:430, :600]
        framed[36 : 36 + len(panel), 5 : 5 + panel.shape[1]] = panel
        cv2.putText(framed, title, (6, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 1, cv2.LINE_AA)
        panels.append(framed)
    cv2.imwrite(str(file), np.vstack([np.hstack(panels[:2]), np.hstack(panels[2:])]))


def main() -> None:
    """Run all steps and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--method", default="linear")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    data = given.work / "surface"
    write_data(data)
    results = {way: compare(given.work, data, way, given.method) for way in WAYS}
    (given.out / "large_images.json").write_text(json.dumps(results, indent=2) + "\n")
    draw(given.work, data, given.out / "large_images.png", given.method)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
