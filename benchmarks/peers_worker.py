"""One contestant of `benchmarks/peers.py`, in a process of its own.

    python peers_worker.py CONTESTANT FOLDER THREADS

It loads the model of a folder, scores one image, and prints a line. Then each line of its input is a request in JSON,
and each answer a line in JSON: `{"time": [images, seconds]}` gives the milliseconds of each call, `{"maps": FILE}`
writes the maps of all images, `{"memory": null}` gives the peak of the resident memory in MiB. It imports nothing of
the repository, because the environments of the peers have no edgead.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Score = Callable[[Any], tuple[Any, Any]]
"""(N, H, W, 3) uint8 to maps (N, H, W) and scores (N,)."""


def edgead(folder: Path, threads: int, bundle: str = "cpu") -> Score:
    import edgead

    model = edgead.load(folder / bundle, threads=threads)

    def score(batch: Any) -> tuple[Any, Any]:
        results = [model.predict(batch[0])] if len(batch) == 1 else model.predict(list(batch))
        return [one.anomaly_map for one in results], [one.anomaly_score for one in results]

    return score


def anomalib_torch(folder: Path, threads: int) -> Score:
    import torch
    from anomalib.deploy import TorchInferencer

    torch.set_num_threads(threads)
    inferencer = TorchInferencer(folder / "weights/torch/model.pt", device="cpu")
    # It computes gradients otherwise, and takes longer.
    return _one_by_one(torch.inference_mode()(inferencer.predict))


def anomalib_openvino(folder: Path, threads: int) -> Score:
    from anomalib.deploy import OpenVINOInferencer

    file = folder / "weights/openvino/model.xml"
    return _one_by_one(OpenVINOInferencer(file, "CPU", {"INFERENCE_NUM_THREADS": threads}).predict)


def _one_by_one(predict: Callable[[Any], Any]) -> Score:
    """Give the images of a batch to an inferencer of anomalib, which takes one."""

    def score(batch: Any) -> tuple[Any, Any]:
        found = [predict(image) for image in batch]
        return [np.asarray(one.anomaly_map).squeeze() for one in found], [
            np.asarray(one.pred_score).item() for one in found
        ]

    return score


def onnxruntime(folder: Path, threads: int, file: str = "weights/onnx/model.onnx") -> Score:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(folder / file, options, providers=["CPUExecutionProvider"])
    if file != "weights/onnx/model.onnx":
        names = ["anomaly_map", "anomaly_score"]
        return lambda batch: (
            (found := session.run(names, {session.get_inputs()[0].name: batch}))[0][:, 0],
            found[1],
        )
    names = ["anomaly_map", "pred_score"]
    return _floats(lambda pixels: session.run(names, {"input": pixels}))


def openvino(folder: Path, threads: int) -> Score:
    import openvino

    compiled = openvino.Core().compile_model(
        folder / "weights/onnx/model.onnx",
        "CPU",
        {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"},
    )

    def run(pixels: Any) -> tuple[Any, Any]:
        found = compiled({"input": pixels})
        return found["anomaly_map"], found["pred_score"]

    return _floats(run)


def _floats(run: Callable[[Any], Any]) -> Score:
    """Give the images of a batch to anomalib's graph, which takes one of (1, 3, H, W) float32 from 0 to 1."""

    def score(batch: Any) -> tuple[Any, Any]:
        maps, scores = [], []
        for image in batch:
            found, value = run(np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32) / 255)
            maps.append(found.squeeze())
            scores.append(value.item())
        return maps, scores

    return score


def torch_eager(folder: Path, threads: int, is_compiled: bool = False) -> Score:
    import torch

    torch.set_num_threads(threads)
    # anomalib's own format, a pickle, which peers_anomalib.py has just written here.
    module = torch.load(folder / "weights/torch/model.pt", weights_only=False)["model"].eval()
    network = torch.compile(module.model) if is_compiled else module.model

    def score(batch: Any) -> tuple[Any, Any]:
        with torch.inference_mode():
            pixels = module.pre_processor(torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 255)
            found = network(pixels)
        return found.anomaly_map[:, 0].numpy(), found.pred_score.numpy().ravel()

    return score


CONTESTANTS: dict[str, Callable[[Path, int], Score]] = {
    "edgead": edgead,
    "edgead-openvino": lambda folder, threads: edgead(folder, threads, "intel"),
    "edgead-int8": lambda folder, threads: edgead(folder, threads, "int8"),
    "anomalib-torch": anomalib_torch,
    "anomalib-openvino": anomalib_openvino,
    "onnxruntime": onnxruntime,
    "openvino": openvino,
    "onnxruntime-same": lambda folder, threads: onnxruntime(folder, threads, "cpu/model.onnx"),
    "torch": torch_eager,
    "torch-compile": lambda folder, threads: torch_eager(folder, threads, True),
}


def times_ms(score: Score, images: Any, count: int, seconds: float) -> list[float]:
    """Score batches of `count` images, one at least, for some seconds, and return the milliseconds of each."""
    found: list[float] = []
    end = time.perf_counter() + seconds
    while not found or time.perf_counter() < end:
        place = 0 if count == len(images) else len(found) % len(images)
        batch = images[place : place + count]
        start = time.perf_counter()
        score(batch)
        found.append(1e3 * (time.perf_counter() - start))
    return found


def peak_mib() -> float:
    # Not getrusage: its peak starts from that of the process that forked this one.
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def main(contestant: str, folder: Path, threads: int) -> None:
    # The line of the protocol is not to be mixed with what the libraries print.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    images = np.load(folder / "images.npy")
    score = CONTESTANTS[contestant](folder, threads)
    _, scores = score(images[:1])
    print(json.dumps({"score": float(scores[0])}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        answer: Any = None
        if "time" in request:
            answer = times_ms(score, images, *request["time"])
        elif "maps" in request:
            maps = [np.array(score(images[number : number + 1])[0][0]) for number in range(len(images))]
            np.save(request["maps"], np.stack(maps))
        elif "memory" in request:
            answer = peak_mib()
        print(json.dumps(answer), file=answers, flush=True)
    answers.flush()
    # Some of the libraries end with an error when the interpreter releases them.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
