"""The steps of `benchmarks/peers.py` that need anomalib: train, export, time an epoch, score a folder of images.

`peers.py` runs this file with the Python of anomalib's environment, which has no edgead. Each command prints one line
of JSON at its end.

    python peers_anomalib.py train NETWORK DATA FOLDER     checkpoint, model.pt, model.onnx, OpenVINO's model, maps.npz
    python peers_anomalib.py epoch NETWORK DATA FOLDER     the seconds of each of two epochs
    python peers_anomalib.py predict NETWORK IMAGES FOLDER the number of scored images
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from anomalib.data import Folder, PredictDataset
from anomalib.engine import Engine
from anomalib.models import ReverseDistillation, Stfpm
from lightning.pytorch import Callback, seed_everything
from torch import nn

SIZE = (256, 256)
BATCH = 8
EPOCHS = 12


class EpochTimes(Callback):
    """Seconds of each epoch of a training, without its validation."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_epoch_start(self, *_: Any) -> None:
        self._start = time.perf_counter()

    def on_train_epoch_end(self, *_: Any) -> None:
        self.seconds.append(time.perf_counter() - self._start)


def create(network: str) -> Any:
    """Return the model of a network with random weights, the same ones in every call."""
    seed_everything(0)
    method, backbone = network.split("-")
    if method == "rd":
        return ReverseDistillation(backbone=backbone, pre_trained=False, visualizer=False)
    # Stfpm always asks for ImageNet's weights, which have to be downloaded.
    with_weights = timm.create_model
    timm.create_model = lambda *given, **options: with_weights(*given, **{**options, "pretrained": False})
    try:
        return Stfpm(backbone=backbone, visualizer=False)
    finally:
        timm.create_model = with_weights


def teach(teacher: nn.Module, pixels: torch.Tensor) -> None:
    """Set the statistics of a random teacher's batch normalisation, so that its features have a usual size."""
    norms = [layer for layer in teacher.modules() if isinstance(layer, nn.BatchNorm2d)]
    for layer in norms:
        layer.momentum = None
        nn.init.ones_(layer.weight)
        layer.reset_running_stats()
        layer.train()
    with torch.no_grad():
        teacher.feature_extractor(pixels)
    for layer in norms:
        layer.momentum = 0.1
        layer.eval()


def data_module(data: Path) -> Folder:
    return Folder(
        "parts", root=data, normal_dir="train/good", normal_test_dir="test/good", abnormal_dir="test/scratch",
        train_batch_size=BATCH, eval_batch_size=BATCH, num_workers=0, seed=0, val_split_mode="same_as_test",
    )  # fmt: skip


def fit(model: Any, data: Path, folder: Path, epochs: int) -> tuple[Engine, list[float]]:
    shutil.rmtree(folder / "anomalib", ignore_errors=True)
    times = EpochTimes()
    engine = Engine(
        [times], max_epochs=epochs, accelerator="cpu", devices=1, default_root_dir=folder / "anomalib",
        enable_progress_bar=False,
    )  # fmt: skip
    engine.fit(model, datamodule=data_module(data))
    return engine, times.seconds


def train(network: str, data: Path, folder: Path) -> dict[str, Any]:
    model = create(network)
    images = np.load(folder / "images.npy")
    pixels = model.pre_processor(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
    teach(model.model.encoder if network.startswith("rd") else model.model.teacher_model, pixels)
    engine, _ = fit(model, data, folder, EPOCHS)
    engine.trainer.save_checkpoint(folder / "model.ckpt")
    model.eval()
    for kind in ("torch", "onnx", "openvino"):
        engine.export(model, kind, export_root=folder, input_size=None if kind == "torch" else SIZE)
    with torch.inference_mode():
        # The map of the network itself, and the one that the post-processor maps to 0 to 1, as the exports give it.
        raw = model.model(pixels).anomaly_map.numpy()
        normalised = model(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255).anomaly_map.numpy()
    np.savez(folder / "maps.npz", raw=raw, normalised=normalised)
    return {"largest": float(raw.max())}


def epoch(network: str, data: Path, folder: Path) -> dict[str, Any]:
    _, seconds = fit(create(network), data, folder, 2)
    return {"seconds": seconds}


def predict(network: str, images: Path, folder: Path) -> dict[str, Any]:
    model = create(network)
    engine = Engine(
        accelerator="cpu", devices=1, default_root_dir=folder / "anomalib", enable_progress_bar=False
    )
    found = engine.predict(
        model, dataset=PredictDataset(images), return_predictions=True, ckpt_path=folder / "model.ckpt"
    )
    return {"images": sum(len(batch.pred_score) for batch in found)}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    command, network, source, folder = sys.argv[1:]
    steps = {"train": train, "epoch": epoch, "predict": predict}
    print(json.dumps(steps[command](network, Path(source), Path(folder))))
