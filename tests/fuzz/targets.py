"""What is fuzzed: for each reader its whole inputs, its mutations, and the call."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from edgead.bundle import open_bundle
from edgead.bundle.directory import Bundle
from edgead.bundle.golden import read_golden
from edgead.bundle.graph import check_graph
from edgead.bundle.manifest import Manifest
from edgead.cli.describe import describe
from edgead.data.masks import read_mask
from edgead.data.samples import Sample
from edgead.export.head.model_file import graph_from_file
from edgead.export.precision.calibration import calibrate
from edgead.export.precision.calibration_file import read_calibration
from edgead.files.addresses import Address, without_secrets
from edgead.imaging.preprocess import ModelSize
from edgead.prediction.inputs import Input
from edgead.prediction.journal import Journal, counts_of
from edgead.prediction.record import RECORD_FILE, Request, check_out, check_same, write_record
from edgead.prediction.rows import write_table
from edgead.runtime import open_session
from edgead.runtime.onnxruntime import OnnxRuntimeSession
from edgead.runtime.tensorrt.engine_record import EngineRecord
from edgead.runtime.tensorrt.feature_record import FeatureRecord
from edgead.scoring.threshold import Threshold
from edgead.streaming.uri import number_in, split_options
from edgead.types import HeadSpec
from tests.fuzz.mutations import ARCHIVE, BYTES, GRAPH, JSON, TEXT
from tests.fuzz.sink_targets import SINK_TARGETS
from tests.fuzz.source_targets import SOURCE_TARGETS
from tests.fuzz.target import Target
from tests.fuzz.trigger_targets import TRIGGER_TARGETS
from tests.helpers.brightness_bundle import brightness_model, write_brightness_bundle
from tests.helpers.golden_answers import sign_manifest
from tests.helpers.toy_graph import HEIGHT, WIDTH, toy_file, toy_graph, toy_images
from tests.imaging.device_codecs import decode_as_a_device
from tests.imaging.matrix_bmp import bmp_cases
from tests.imaging.matrix_files import jpeg_cases, png_cases, webp_cases
from tests.imaging.matrix_tiff import tiff_cases

SIZE = ModelSize(HEIGHT, WIDTH)


def _bundle(folder: Path) -> Bundle:
    """A bundle with the brightness as its model."""
    level = Threshold(0.5, 0.01, 0.95, 0.96, 320, 299)
    return open_bundle(write_brightness_bundle(folder / "bundle", SIZE, level))


def _engine_records(folder: Path) -> list[bytes]:
    features = FeatureRecord("float16", ((8, 8, 16), (12, 4, 8)), HeadSpec(HEIGHT, WIDTH))
    place = ("linux-x86_64", ("8.6", "8.9"), "none", False, "fp16", (1, 1, 8), "0" * 64, "rtx")
    return [
        EngineRecord("tensorrt", "10.3.0", *place, head="plugin", plugin_sha256="1" * 64).to_json().encode(),
        EngineRecord("tensorrt-rtx", "1.7.1", *place, head="kernels", features=features).to_json().encode(),
    ]


@cache
def _calibration() -> str:
    return calibrate(toy_graph(), toy_images(2), "minmax").to_json()


def _read_calibration(data: bytes, folder: Path) -> None:
    (folder / "calibration.json").write_bytes(data)
    key = json.loads(_calibration())["key"]
    read_calibration(folder / "calibration.json", key, toy_graph())


REQUEST = Request("0" * 64, "washer", 0.5, "edgead build", ("overlay", "map"), "1" * 64)
ROWS = b"""\
{"image": "a.png", "frame": null, "part": "washer", "anomaly_score": 0.6, "threshold": 0.5, \
"threshold_source": "edgead build", "share_of_threshold": 1.2, "is_anomalous": true, "regions": \
[{"x_px": 1, "y_px": 2, "width_px": 3, "height_px": 4, "area_px": 9, "highest_value": 0.6, \
"polygon": [[1, 2], [4, 6]]}]}
{"image": "b.png", "frame": null, "error": "b.png is broken"}
"""


def _prediction_records(folder: Path) -> list[bytes]:
    write_record(folder, REQUEST, finished=False)
    return [(folder / RECORD_FILE).read_bytes()]


def _read_prediction_record(data: bytes, folder: Path) -> None:
    (folder / RECORD_FILE).write_bytes(data)
    record = check_out(folder)
    if record is not None:
        check_same(folder, record, REQUEST)


def _read_rows(data: bytes, folder: Path) -> None:
    file = folder / "predictions.jsonl"
    file.write_bytes(data)
    # What is no row is cut off, and what is left makes a table.
    with Journal(file, [Input(Path("a.png"), False), Input(Path("b.png"), False)], lambda row: True):
        pass
    write_table(file, folder / "predictions.csv")
    file.write_bytes(data)
    counts_of(file)


def _read_graph(data: bytes, folder: Path) -> None:
    check_graph(data, "model.onnx")
    graph_from_file(data)
    with OnnxRuntimeSession(data, threads=1, size=SIZE, bounded=True) as session:
        session.infer(toy_images(1))


def _in_bundle(name: str) -> Callable[[bytes, Path], None]:
    """Reader of a whole bundle in which one file is another, with its hash."""

    def read(data: bytes, folder: Path) -> None:
        import hashlib

        if not (folder / "bundle").exists():
            _bundle(folder)
        path, manifest = folder / "bundle", folder / "bundle/manifest.json"
        whole = {file: file.read_bytes() for file in path.iterdir()}
        try:
            (path / name).write_bytes(data)
            if name != "manifest.json":
                content = json.loads(whole[manifest])
                entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
                signed = sign_manifest({**content, "files": {**content["files"], name: entry}})
                manifest.write_text(json.dumps(signed))
            describe(path)
            with open_session(open_bundle(path), threads=1) as session:
                session.infer(toy_images(1))
        finally:
            for file, content in whole.items():
                file.write_bytes(content)

    return read


def _files(name: str) -> Callable[[Path], list[bytes]]:
    return lambda folder: [(_bundle(folder).path / name).read_bytes()]


def _images(folder: Path) -> list[bytes]:
    rng = np.random.default_rng(0)
    grey, colour = rng.integers(0, 256, (9, 12), np.uint8), rng.integers(0, 256, (16, 16, 3), np.uint8)
    deep, four = colour.astype(np.uint16) * 257, rng.integers(0, 256, (9, 12, 4), np.uint8)
    found = []
    for suffix in (".png", ".jpg", ".bmp", ".tif", ".webp"):
        for image in (grey, colour, deep, four):
            with suppress(cv2.error):
                done, data = cv2.imencode(suffix, image)
                found += [data.tobytes()] * done
    for cases in (png_cases, jpeg_cases, webp_cases, bmp_cases, tiff_cases):
        found += [case.data for case in cases()]
    return found


def _read_mask(data: bytes, folder: Path) -> None:
    """A mask by its file, as a dataset has it."""
    image, file = folder / "000.png", folder / "000_mask.png"
    if not image.exists():
        image.write_bytes(cv2.imencode(".png", np.zeros((9, 12), np.uint8))[1].tobytes())
    file.write_bytes(data)
    read_mask(Sample(image, 1, "dot", file), (9, 12))


def _addresses(folder: Path) -> list[bytes]:
    addresses = (
        "rtsp://user:secret@10.0.0.1:554/live?channel=1&password=secret",
        "http://10.0.0.1/snapshot.jpg?user=a&pwd=secret",
        "v4l2:/dev/video0?width=640&height=480&fps=30",
        "synthetic:washer?seed=3&fps=25",
        "jsonl:out.jsonl?rotate=10",
        "video:out.mp4?fps=25.0",
        "folder:/data/parts?watch=1",
    )
    return [address.encode() for address in addresses]


def _read_address(data: bytes, folder: Path) -> None:
    # The command line gives names of other bytes in this form.
    address = data.decode("utf-8", "surrogateescape")
    without_secrets(address)
    if "://" in address:
        Address.parse(address)
    _, _, target = address.partition(":")
    number, whole = number_in(float, 0.0, 1000.0), number_in(int, 1)
    split_options(target, {"fps": number, "seed": whole, "width": whole, "height": whole, "watch": whole})


TARGETS: dict[str, Target] = {
    "manifest": Target(_files("manifest.json"), JSON, lambda data, folder: Manifest.from_json(data)),
    "golden": Target(
        _files("golden.npz"), ARCHIVE, lambda data, folder: read_golden(data, "golden.npz", SIZE, 1)
    ),
    "engine": Target(
        _engine_records, JSON, lambda data, folder: EngineRecord.from_json(data, "edgead build b")
    ),
    "calibration": Target(lambda folder: [_calibration().encode()], JSON, _read_calibration),
    "onnx": Target(
        lambda folder: [toy_file(), brightness_model(HEIGHT, WIDTH).SerializeToString()], GRAPH, _read_graph
    ),
    "prediction-record": Target(_prediction_records, JSON, _read_prediction_record),
    "prediction-rows": Target(lambda folder: [ROWS], BYTES, _read_rows),
    "bundle-manifest": Target(_files("manifest.json"), JSON, _in_bundle("manifest.json")),
    "bundle-golden": Target(_files("golden.npz"), ARCHIVE, _in_bundle("golden.npz")),
    "bundle-onnx": Target(_files("model.onnx"), GRAPH, _in_bundle("model.onnx")),
    "image": Target(_images, BYTES, lambda data, folder: decode_as_a_device(data)),
    "mask": Target(_images, BYTES, _read_mask),
    "address": Target(_addresses, TEXT, _read_address, in_a_file=False),
    **SINK_TARGETS,
    **SOURCE_TARGETS,
    **TRIGGER_TARGETS,
}
