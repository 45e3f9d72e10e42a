"""Speed of `edgead predict` on 2000 images in folders, compared with the bare session and the same decoding.

The bare loop reads 8 image files, resizes them and calls `infer`, again and again, in one thread. `predict` reads the
same files, decides, and writes lines, a table and, in the second measurement, the maps. Both alternate, each on the
same quarter of the images, so other work on the machine affects both. The target is at least 0.95 times the images per
second of the loop.

The saved maps are compared with the maps of the loop, and a command that was killed with SIGKILL and started again with
a command without an interrupt.

The model is RD with a Lite0 teacher at 256 pixels and random weights, which do not change the time. The images are PNG
files of synthetic parts of 512 pixels. Run on an idle machine: ``pytest benchmarks/test_predict.py``.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.random_bundle import write_random_bundle
from edgead.api import load
from edgead.bundle import Bundle
from edgead.data.synthetic.dataset import write_dataset
from edgead.imaging.decode import read_image
from edgead.imaging.preprocess import ModelSize, batch_from_images
from edgead.prediction.inputs import find_inputs
from edgead.prediction.record import model_digest
from edgead.prediction.run import predict_files
from edgead.runtime import Session, open_session
from edgead.runtime.model import BATCH
from edgead.types import Float32Array

SIZE = ModelSize(256, 256)
IMAGES = 2000
DIFFERENT = 40
ROUNDS = 4


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_random_bundle(tmp_path_factory.mktemp("bundle") / "bundle", "tf_efficientnet_lite0", SIZE)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 4 folders, each with 5 folders of 100 images."""
    folder = tmp_path_factory.mktemp("images")
    write_dataset(folder / "drawn", "washer", DIFFERENT, 1, 1, seed=0, size_px=512)
    drawn = sorted((folder / "drawn/train/good").iterdir())
    for number in range(IMAGES):
        file = folder / f"parts/{number * ROUNDS // IMAGES}/{number // 100:02d}/{number % 100:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        os.link(drawn[number % DIFFERENT], file)
    shutil.rmtree(folder / "drawn")
    return folder / "parts"


def bare_loop(session: Session, files: list[Path], use: Callable[[Path, Float32Array], None] | None) -> None:
    """Read, resize and score batch by batch."""
    for start in range(0, len(files), BATCH):
        batch = files[start : start + BATCH]
        prediction = session.infer(batch_from_images([read_image(file) for file in batch], SIZE))
        if use is not None:
            for file, of_image in zip(batch, prediction.anomaly_map[:, 0], strict=True):
                use(file, of_image)


@pytest.mark.parametrize("save", [[], ["map"]], ids=["table", "maps"])
def test_predict_beside_the_bare_session(
    benchmark: BenchmarkFixture, bundle: Bundle, images: Path, tmp_path: Path, save: list[str]
) -> None:
    quarters = sorted(images.iterdir())
    loop_s: list[float] = []
    predict_s: list[float] = []
    cpu_s: dict[str, list[float]] = {"loop": [], "predict": []}

    with load(bundle) as model:

        def loop() -> None:
            files = sorted(quarters[len(loop_s)].glob("*/*.png"))
            start, cpu = time.perf_counter(), time.process_time()
            bare_loop(model.session, files, None)
            loop_s.append(time.perf_counter() - start)
            cpu_s["loop"].append(time.process_time() - cpu)

        def predict() -> None:
            folder = quarters[len(predict_s)]
            out = tmp_path / folder.name
            start, cpu = time.perf_counter(), time.process_time()
            inputs = find_inputs([str(folder)], True, out)
            summary = predict_files(model, model_digest(bundle.path), inputs, out, save=save)
            predict_s.append(time.perf_counter() - start)
            cpu_s["predict"].append(time.process_time() - cpu)
            assert summary.counts.images == IMAGES // ROUNDS

        bare_loop(model.session, sorted(images.glob("0/00/*.png"))[:BATCH], None)
        benchmark.pedantic(predict, setup=loop, rounds=ROUNDS)
    ratios = [loop / predict for loop, predict in zip(loop_s, predict_s, strict=True)]
    benchmark.extra_info |= {
        "loop_images_per_s": [round(IMAGES / ROUNDS / seconds, 1) for seconds in loop_s],
        "predict_images_per_s": [round(IMAGES / ROUNDS / seconds, 1) for seconds in predict_s],
        "predict_over_loop": [round(ratio, 3) for ratio in ratios],
        "predict_over_loop_in_all": round(sum(loop_s) / sum(predict_s), 3),
        "cpu_ms_per_image": {name: round(1e3 * sum(of_kind) / IMAGES, 2) for name, of_kind in cpu_s.items()},
    }


def test_maps_and_a_killed_command(
    benchmark: BenchmarkFixture, bundle: Bundle, images: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "edgead", "predict", bundle.path, images, "--recursive", "--save", "map"]

    def whole() -> None:
        subprocess.run([*command, "--out", tmp_path / "whole"], check=True, capture_output=True)

    benchmark.pedantic(whole, rounds=1)
    out = tmp_path / "killed"
    with subprocess.Popen([*command, "--out", out], stderr=subprocess.DEVNULL) as process:
        lines = out / "predictions.jsonl"
        while not lines.exists() or lines.read_bytes().count(b"\n") < 0.4 * IMAGES:
            assert process.poll() is None
            time.sleep(0.2)
        process.send_signal(signal.SIGKILL)
    kept = lines.read_bytes().count(b"\n")
    subprocess.run([*command, "--out", out], check=True, capture_output=True)
    for name in ("predictions.csv", "predictions.jsonl"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()

    differences: list[float] = []

    def compare(file: Path, of_image: Float32Array) -> None:
        saved = tifffile.imread(out / "maps" / file.relative_to("/").with_suffix(".tiff"))
        full = cv2.resize(of_image, saved.shape[::-1], interpolation=cv2.INTER_LINEAR)
        differences.append(float(np.abs(saved - full).max()))

    with open_session(bundle) as session:
        bare_loop(session, sorted(images.glob("*/*/*.png")), compare)
    benchmark.extra_info |= {"rows_after_the_kill": kept, "largest_map_difference": max(differences)}
    assert len(differences) == IMAGES
