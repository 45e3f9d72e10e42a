"""Time and peak memory of training, build, evaluation and prediction on many images of 1024 x 1024 pixels.

    python benchmarks/many_images.py --data DATA --work WORK [--count 10000] [--method linear] [--out DIR]

DATA is a part in the layout of MVTec AD. Each image is a part of DATA at four times its size, moved, and good ones with
another brightness and noise. Nine tenths of the test images are training images, because the figures are no accuracy.
Each command is a process of its own. Commands whose result exists are not repeated. For a limit of memory, run it in a
container or control group that has one. Writes `many_images.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import cv2
import numpy as np

from benchmarks.large_images import measured
from edgead.files.memory import host_bytes

SIDE_PX, MOVED_PX, DEFECT_EVERY = 1024, 64, 10


def moved(image: np.ndarray, number: int, interpolation: int = cv2.INTER_CUBIC) -> np.ndarray:
    """Enlarge an image and cut out a square whose place follows from the number of the image."""
    side = SIDE_PX + MOVED_PX
    large = cv2.resize(image, (side, side), interpolation=interpolation)
    x, y = (int(value) for value in np.random.default_rng(number).integers(0, MOVED_PX, 2))
    return large[y : y + SIDE_PX, x : x + SIDE_PX]


def write_data(source: Path, root: Path, count: int) -> None:
    """Write `count` good images to train on, and as many to test, of which a tenth are defects with masks."""
    if root.exists():
        return
    partial = root.with_name("partial")
    shutil.rmtree(partial, ignore_errors=True)
    for folder in ("train/good", "test/good", "test/defect", "ground_truth/defect"):
        (partial / folder).mkdir(parents=True)
    goods = sorted((source / "train/good").glob("*.png"))
    defects = [file for file in sorted((source / "test").glob("*/*.png")) if file.parent.name != "good"]
    quality = [cv2.IMWRITE_JPEG_QUALITY, 90]
    for number in range(count):
        rng = np.random.default_rng([number, 1])
        image = moved(cv2.imread(str(goods[number % len(goods)])), number).astype(np.float32)
        image = image * rng.uniform(0.97, 1.03) + rng.normal(0, 1.5, (SIDE_PX, SIDE_PX, 1))
        good = partial / f"train/good/{number:05d}.jpg"
        cv2.imwrite(str(good), np.clip(image, 0, 255).astype(np.uint8), quality)
        if number % DEFECT_EVERY:
            os.link(good, partial / "test/good" / good.name)
            continue
        file = defects[number // DEFECT_EVERY % len(defects)]
        mask = source / "ground_truth" / file.parent.name / f"{file.stem}_mask.png"
        cv2.imwrite(
            str(partial / f"test/defect/{number:05d}.jpg"), moved(cv2.imread(str(file)), number), quality
        )
        marked = moved(cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE), number, cv2.INTER_NEAREST)
        cv2.imwrite(str(partial / f"ground_truth/defect/{number:05d}_mask.png"), marked)
    partial.rename(root)


def main() -> None:
    """Run all commands and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--count", type=int, default=10000)
    parser.add_argument("--method", default="linear")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    data = given.work / f"data-{given.count}"
    write_data(given.data, data, given.count)
    place = given.work / f"{given.method}-{given.count}"
    place.mkdir(exist_ok=True)
    run, bundle = str(place / "run"), str(place / "bundle")
    # Of the folder of good images, so that the build has no test images to score as well.
    train = ["train", str(data / "train/good"), "--out", run, "--method", given.method]
    train += [] if given.method == "linear" else ["--epochs", "1"]
    commands = {
        "train": train,
        "build": ["build", run, "--out", bundle],
        "eval": ["eval", bundle, str(data), "--out", str(place / "report")],
        "predict": ["predict", bundle, str(data / "test"), "--recursive", "--out", str(place / "out")],
    }
    steps = {name: measured(place / f"{name}.json", *command) for name, command in commands.items()}
    results = {"count": given.count, "method": given.method, "limit_mb": host_bytes() >> 20, "steps": steps}
    (given.out / "many_images.json").write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
