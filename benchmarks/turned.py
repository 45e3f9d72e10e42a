"""What `--fit turn` gives for parts at any angle: one training, and its figures on the images as they are.

    python benchmarks/turned.py --data ../shared/data/screw --run runs/turned -- --method linear
    python benchmarks/turned.py --data ../shared/data/screw --run runs/turned-0 -- --training-precision bf16-mixed

`edgead eval` compares maps and masks on the turned image, where most of the ground is missing. Here maps are turned
back and compared with the masks of whole images. Options after `--` are those of `edgead train`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np

import edgead
from edgead.data import open_dataset
from edgead.evaluation.dataset_scores import Scores
from edgead.evaluation.evaluate import evaluate


def main() -> None:
    """Train on turned images, and print the figures of the test images."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of one part, with test images")
    parser.add_argument("--run", type=Path, required=True, help="run directory to write, or to continue")
    parser.add_argument("--size", default="96x256")
    parser.add_argument("options", nargs="*", help="options of edgead train, after --")
    options = parser.parse_args()
    command = [sys.executable, "-m", "edgead", "train", options.data, "--fit", "turn", "--size", options.size]
    subprocess.run([*command, "--out", options.run, *options.options], check=True)
    samples = open_dataset(options.data).test
    with edgead.load(options.run) as model:
        results = [model.predict(sample.path, full_size=True) for sample in samples]
    scores = np.array([result.anomaly_score for result in results], np.float32)
    maps = np.stack([result.anomaly_map for result in results])
    found = evaluate(Scores(samples, scores, maps), None)
    print(
        f"{options.data.name} turned, {options.size} {' '.join(options.options)}: image AUROC "
        f"{found.image_auroc:.4f}, pixel AUROC {found.pixel_auroc:.4f}, AUPRO {found.aupro:.4f}"
    )
    for kind in found.defects:
        print(f"  {kind.defect} {kind.image_auroc:.3f}")


if __name__ == "__main__":
    main()
