from __future__ import annotations

import resource
import subprocess
import sys
import sysconfig
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from edgead.bundle import Bundle, Manifest, write_bundle
from edgead.bundle.golden import golden_bytes
from edgead.errors import BackendError, BundleError, InputError
from edgead.imaging.preprocess import ModelSize
from edgead.runtime import open_session
from edgead.runtime.onnxruntime import OnnxRuntimeSession
from edgead.scoring.threshold import Threshold
from edgead.types import BACKENDS
from tests.helpers.brightness_bundle import brightness_model, write_brightness_bundle
from tests.helpers.golden_answers import golden_of_model, verification_of


def bundle_of(path, files, size=None) -> Bundle:
    manifest = Manifest(
        method="rd",
        teacher="none",
        backend="onnxruntime",
        target="cpu",
        precision="fp32",
        size=size or ModelSize(32, 64),
        thresholds={"washer": Threshold(0.5, 0.01, 0.95, 0.96, 320, 299)},
        training={},
        verification=verification_of("washer"),
        verified=True,
        verified_on={},
    )
    if "model.onnx" in files:
        images = np.random.default_rng(0).integers(0, 256, (2, 32, 64, 3), np.uint8)
        files = {**files, "golden.npz": golden_bytes(golden_of_model(files["model.onnx"], images))}
    return write_bundle(path, manifest, files)


def test_a_bundle_opens_and_infers(make_model, images, tmp_path):
    bundle = bundle_of(tmp_path / "bundle", {"model.onnx": make_model().SerializeToString()})
    with open_session(bundle, threads=1) as session:
        scores = session.infer(images).anomaly_score
    np.testing.assert_allclose(
        scores, images.astype(np.float64).mean(axis=3).max(axis=(1, 2)) / 255, atol=1e-6
    )


def test_an_unknown_backend_lists_the_known(make_model, tmp_path):
    bundle = bundle_of(tmp_path / "bundle", {"model.onnx": make_model().SerializeToString()})
    other = replace(bundle, manifest=replace(bundle.manifest, backend="abacus"))
    with pytest.raises(BundleError, match="abacus") as caught:
        open_session(other)
    assert all(name in str(caught.value) for name in BACKENDS)


def test_threads_of_a_cpu_are_no_setting_of_an_engine(make_model, tmp_path):
    bundle = bundle_of(tmp_path / "bundle", {"model.onnx": make_model().SerializeToString()})
    engine = replace(bundle, manifest=replace(bundle.manifest, backend="tensorrt"))
    with pytest.raises(InputError, match="threads") as caught:
        open_session(engine, threads=2)
    assert str(bundle.path) in caught.value.what


def test_a_bundle_without_a_model_is_refused(tmp_path):
    with pytest.raises(BundleError, match=r"model\.onnx.*edgead build"):
        open_session(bundle_of(tmp_path / "bundle", {"notes.txt": b""}))


def test_a_model_that_was_changed_after_the_opening_is_refused(make_model, tmp_path):
    bundle = bundle_of(tmp_path / "bundle", {"model.onnx": make_model().SerializeToString()})
    other = make_model(gain=2.0).SerializeToString()
    assert len(other) == bundle.manifest.files["model.onnx"].bytes
    (bundle.path / "model.onnx").write_bytes(other)
    with pytest.raises(BundleError, match="SHA-256"):
        open_session(bundle)


def test_a_listed_file_of_weights_beside_the_model_is_refused(make_model, tmp_path):
    model = make_model()
    whole = bundle_of(tmp_path / "whole", {"model.onnx": model.SerializeToString()})
    (tmp_path / "outside").mkdir()
    onnx.save_model(
        model,
        tmp_path / "outside/model.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
        convert_attribute=True,
    )
    files = {name: tmp_path / "outside" / name for name in ("model.onnx", "weights.bin")}
    golden = whole.read("golden.npz")
    bundle = write_bundle(tmp_path / "bundle", whole.manifest, {**files, "golden.npz": golden})
    with pytest.raises(BundleError, match="another file"):
        open_session(bundle)


def test_a_loop_never_reaches_the_runtime(make_model, tmp_path, monkeypatch):
    model = make_model()
    golden = bundle_of(tmp_path / "whole", {"model.onnx": model.SerializeToString()})
    model.graph.node[0].op_type = "Loop"
    content = {"model.onnx": model.SerializeToString(), "golden.npz": golden.read("golden.npz")}
    bundle = write_bundle(tmp_path / "bundle", golden.manifest, content)
    monkeypatch.setattr(onnxruntime, "InferenceSession", None)
    with pytest.raises(BundleError, match="Loop"):
        open_session(bundle)


def test_an_outer_product_does_not_take_all_memory(tmp_path):
    """A small file asks for a tensor of half a terabyte."""
    length = 360_000
    model = brightness_model()
    nodes = {node.op_type: node for node in model.graph.node}
    nodes["Mul"].input[0] = "bomb"
    ones = np.ones(length, np.float32)
    model.graph.initializer.append(numpy_helper.from_array(ones[:, None], "column"))
    model.graph.initializer.append(numpy_helper.from_array(ones[None], "row"))
    added = [
        helper.make_node("ReduceMax", ["plane"], ["brightest"], keepdims=0),
        helper.make_node("Mul", ["column", "brightest"], ["scaled"]),
        helper.make_node("MatMul", ["scaled", "row"], ["product"]),
        helper.make_node("ReduceMax", ["product"], ["most"], keepdims=0),
        helper.make_node("Mul", ["plane", "most"], ["bomb"]),
    ]
    kept = [copy_of(node) for node in model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend([*kept[:3], *added, *kept[3:]])
    onnx.checker.check_model(model, full_check=True)
    good = bundle_of(tmp_path / "good", {"model.onnx": brightness_model().SerializeToString()})
    content = {"model.onnx": model.SerializeToString(), "golden.npz": good.read("golden.npz")}
    bundle = write_bundle(tmp_path / "bundle", good.manifest, content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BackendError):
        open_session(bundle)
    # Kilobytes.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000


def copy_of(node):
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy


def test_a_model_of_another_size_is_refused(make_model, tmp_path):
    files = {"model.onnx": make_model().SerializeToString()}
    with pytest.raises(BackendError, match="64x64"):
        open_session(bundle_of(tmp_path / "bundle", files, ModelSize(64, 64)))


def run_code(code: str, *arguments: object) -> float:
    """Return the number that a program prints."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


FREED_MIB = """
import ctypes, sys
from edgead.bundle import open_bundle
from edgead.runtime import open_session

def resident_mib():
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages * 4096 / 2**20

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
blocks = [libc.malloc(1000) for _ in range(200_000)]
for block in blocks:
    ctypes.memset(block, 1, 1000)
# The last block, at the top, keeps the heap as large as it is.
for block in blocks[:-1]:
    libc.free(block)
before = resident_mib()
with open_session(open_bundle(sys.argv[1])):
    print(before - resident_mib())
"""


@pytest.mark.skipif("gnu" not in str(sysconfig.get_config_var("HOST_GNU_TYPE")), reason="only glibc keeps it")
def test_an_opened_session_gives_freed_memory_back(tmp_path):
    bundle = bundle_of(tmp_path / "bundle", {"model.onnx": brightness_model().SerializeToString()})
    assert run_code(FREED_MIB, bundle.path) > 50


IDLE_S = """
import sys, time
import numpy as np
from edgead.bundle import open_bundle
from edgead.runtime import open_session

image = np.zeros((1, 512, 512, 3), np.uint8)
with open_session(open_bundle(sys.argv[1]), threads=2) as session:
    used = 0.0
    for _ in range(10):
        session.infer(image)
        start = time.process_time()
        time.sleep(0.1)
        used += time.process_time() - start
    print(used)
"""


def test_the_threads_of_a_session_rest_between_images(tmp_path):
    # With its defaults ONNX Runtime's threads run on for 15 to 500 ms after each image, as the processor is.
    level = Threshold(0.5, 0.01, 0.95, 0.96, 320, 299)
    bundle = write_brightness_bundle(tmp_path / "bundle", ModelSize(512, 512), level)
    assert run_code(IDLE_S, bundle) < 0.08


@pytest.mark.parametrize(
    ("version", "known"),
    [("1.18.0", False), ("1.25.1", False), ("1.26.0", True), ("2.0.0", True), ("1.100.0.dev20270101", True)],
)
def test_spinning_is_limited_where_the_library_can(monkeypatch, version, known):
    """The option is in the library since 1.26; older ones ignore it, and would spin as long as they like."""
    options = []

    class Recorded(onnxruntime.SessionOptions):
        def add_session_config_entry(self, key: str, value: str) -> None:
            options.append((key, value))
            super().add_session_config_entry(key, value)

    monkeypatch.setattr(onnxruntime, "SessionOptions", Recorded)
    monkeypatch.setattr(onnxruntime, "__version__", version)
    OnnxRuntimeSession(brightness_model().SerializeToString()).close()
    keys = {key for key, _ in options}
    assert ("session.intra_op.spin_duration_us" in keys) is known
    assert (("session.intra_op.allow_spinning", "0") in options) is not known
