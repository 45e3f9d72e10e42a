"""Sessions with the anomaly map of a plugin, or of kernels behind the engine, on stand-ins for the GPU."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from edgead.errors import BackendError
from edgead.imaging.anomaly_map import anomaly_map
from edgead.imaging.preprocess import ModelSize
from edgead.plugin.loader import plugin_file
from edgead.runtime.tensorrt import cuda, kernel_head
from edgead.runtime.tensorrt import session as tensorrt
from edgead.runtime.tensorrt.feature_record import FeatureRecord
from edgead.runtime.tensorrt.session import TensorRTSession
from edgead.types import HeadSpec
from tests.fakes.cuda_driver import STREAM, StandInDriver, stand_in_core
from tests.fakes.cuda_kernels import StandInKernels
from tests.fakes.tensorrt_runtime import StandInTensorRT, feature, record

SIZE = ModelSize(32, 64)
HEAD = HeadSpec(32, 64, "multiply", 1.5, False, (0.5, 2.0))
FEATURES = FeatureRecord("float32", ((5, 8, 16), (7, 4, 8)), HEAD)
FLAVOURS = ("8.6", "10", "rtx")
DTYPES = {"float32": "FLOAT", "float16": "HALF"}


@pytest.fixture
def driver(monkeypatch, tmp_path) -> StandInDriver:
    driver = StandInDriver()
    monkeypatch.setattr(cuda, "_library", lambda: (stand_in_core(driver), driver, "13.5.0"))
    monkeypatch.setattr(kernel_head, "AnomalyMapKernels", lambda cubin_for: StandInKernels(driver))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return driver


@pytest.fixture
def use(monkeypatch, driver):
    """Make a stand-in TensorRT the installed one; `features`: outputs of its engine."""

    def install(flavour: str = "rtx", features: FeatureRecord | None = FEATURES) -> StandInTensorRT:
        module = StandInTensorRT(driver, flavour)
        if features is not None:
            module.tensors = {"images": module.tensors["images"]}
            for spec in features.outputs:
                module.tensors[spec.name] = (DTYPES[spec.dtype], (-1, *spec.shape[1:]))
        monkeypatch.setattr(tensorrt, "load_library", lambda backend: module.library())
        return module

    return install


@pytest.fixture
def engine(tmp_path):
    file = tmp_path / "model.engine"
    file.write_bytes(b"engine")
    return file


def open_(module, engine, features: FeatureRecord = FEATURES, **options) -> TensorRTSession:
    written = record(module, head="kernels", features=features)
    return TensorRTSession(engine, written, SIZE, "edgead build b", **options)


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 64, 3), dtype=np.uint8)


def oracle(images: np.ndarray, features: FeatureRecord) -> tuple[np.ndarray, np.ndarray]:
    teacher, student = (
        [
            feature(f"{side}_features_{k}", images, shape).astype(features.dtype)
            for k, shape in enumerate(features.shapes, start=1)
        ]
        for side in ("teacher", "student")
    )
    head = features.head
    return anomaly_map(
        teacher, student, head.height, head.width, head.fusion, head.sigma, head.align_corners, head.weights
    )


@pytest.mark.parametrize("cuda_graphs", [True, False])
@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_features_become_maps_and_scores(use, engine, flavour, dtype, cuda_graphs):
    features = replace(FEATURES, dtype=dtype)
    with open_(use(flavour, features), engine, features, cuda_graphs=cuda_graphs) as session:
        # More than a largest batch, and each size again when it is captured.
        for seed, count in enumerate((1, 3, 11, 3, 1)):
            found = session.infer(images(count, seed))
            maps, scores = oracle(images(count, seed), features)
            np.testing.assert_allclose(found.anomaly_map, maps, atol=1e-6)
            np.testing.assert_allclose(found.anomaly_score, scores, atol=1e-6)


@pytest.mark.parametrize("flavour", ["8.6", "10"])
def test_one_graph_holds_the_engine_and_the_kernels(use, driver, engine, flavour):
    with open_(use(flavour), engine) as session:
        session.infer(images(2))
        driver.journal.clear()
        session.infer(images(2, 1))
        assert [kind for kind, _ in driver.journal] == ["copy", "launch", "copy", "copy", "sync"]
        assert driver.left[1] == 1


@pytest.mark.parametrize("cuda_graphs", [True, False])
def test_rtx_captures_by_itself_and_the_kernels_come_behind(use, driver, engine, cuda_graphs):
    module = use("rtx")
    with open_(module, engine, cuda_graphs=cuda_graphs) as session:
        for seed in range(2):
            driver.journal.clear()
            session.infer(images(2, seed))
            assert driver.journal[1] == ("kernels", STREAM)
            assert [kind for kind, _ in driver.journal] == ["copy", "kernels", "copy", "copy", "sync"]
        assert driver.left[1] == 0
    assert module.config.cuda_graph_strategy == ("whole" if cuda_graphs else "disabled")


def test_work_that_cannot_be_captured_runs_without_a_graph(use, driver, engine, caplog):
    module = use("10")
    module.refuse = "capture"
    with open_(module, engine) as session:
        for seed in range(2):
            maps, _ = oracle(images(2, seed), FEATURES)
            np.testing.assert_allclose(session.infer(images(2, seed)).anomaly_map, maps, atol=1e-6)
    (line,) = (record.getMessage() for record in caplog.records)
    assert str(engine) in line


def test_an_engine_that_fails_launches_no_kernels(use, driver, engine):
    module = use("rtx")
    with open_(module, engine) as session:
        module.refuse = "enqueue"
        with pytest.raises(BackendError, match=r"model\.engine.*illegal memory access"):
            session.infer(images(2))
        assert ("kernels", STREAM) not in driver.journal


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_close_frees_everything(use, driver, engine, flavour):
    session = open_(use(flavour), engine)
    session.infer(images(7))
    # Images, map and score on both sides; four features, room for the kernels and TensorRT's on the GPU.
    assert driver.left[0] == 3 + 3 + 4 + 1 + 1
    session.close()
    session.close()
    assert driver.left == (0, 0)


def test_memory_that_does_not_suffice_is_named(use, driver, engine):
    # Images, maps and scores of 4, and not a feature more.
    driver.total = 4 * (32 * 64 * 3 + 32 * 64 * 4 + 4) + 100
    with pytest.raises(BackendError, match=r"teacher_features_1 of 4.*Stand-in"):
        open_(use(), engine)
    assert driver.left == (0, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda tensors: tensors.update(teacher_features_2=("HALF", (-1, 7, 4, 8))),
            r"teacher_features_2 float16 \(N, 7, 4, 8\).*teacher_features_2 float32 \(N, 7, 4, 8\)",
        ),
        (
            lambda tensors: tensors.update(student_features_1=("FLOAT", (-1, 5, 16, 8))),
            r"student_features_1 \(2, 5, 16, 8\).*\(2, 5, 8, 16\)",
        ),
        (
            lambda tensors: tensors.pop("student_features_2"),
            # Once, in the expected outputs.
            r"^(?!.*student_features_2.*student_features_2).*student_features_2",
        ),
        (lambda tensors: tensors.update(student_features_3=("FLOAT", (-1, 7, 4, 8))), "student_features_3"),
    ],
    ids=["type", "size", "missing", "more"],
)
def test_outputs_that_differ_from_the_record_are_refused(use, engine, change, message):
    module = use()
    change(module.tensors)
    with pytest.raises(BackendError, match=message), open_(module, engine) as session:
        session.infer(images(2))


def test_features_for_an_engine_of_maps_are_refused_and_the_other_way_round(use, driver, engine):
    with pytest.raises(BackendError, match=r"anomaly_map .*teacher_features_1"):
        open_(use("rtx", None), engine)
    with pytest.raises(BackendError, match=r"student_features_1 .*anomaly_map"):
        TensorRTSession(engine, record(use()), SIZE, "edgead build b")
    assert driver.left == (0, 0)


def test_a_head_for_maps_of_another_size_is_refused(use, driver, engine):
    features = replace(FEATURES, head=replace(HEAD, height=64))
    with pytest.raises(BackendError, match=r"64x64.*32x64.*edgead build b"):
        open_(use(), engine, features)
    assert driver.left == (0, 0)


def test_a_head_that_the_kernels_do_not_take_is_refused(use, engine):
    features = replace(FEATURES, head=replace(HEAD, sigma=40.0))
    with (
        open_(use(), engine, features) as session,
        pytest.raises(BackendError, match=r"sigma.*32.*40"),
    ):
        session.infer(images(1))


@pytest.fixture
def order(monkeypatch, driver) -> list[str]:
    """The order of loading the plugin library and opening the engine."""
    done: list[str] = []

    def load(path: str) -> SimpleNamespace:
        done.append(path)
        return SimpleNamespace(
            edgead_tensorrt_of_headers=lambda: 100300, edgead_tensorrt_of_library=lambda: 100300
        )

    monkeypatch.setattr("edgead.plugin.loader.ctypes.CDLL", load)
    plain = StandInTensorRT.Runtime

    def runtime(module, log):
        done.append("engine")
        return plain(module, log)

    monkeypatch.setattr(StandInTensorRT, "Runtime", runtime)
    return done


@pytest.fixture
def plugin(driver):
    plugin_file().parent.mkdir(parents=True)
    plugin_file().write_bytes(b"library")
    return plugin_file()


@pytest.mark.parametrize("flavour", ["8.6", "10"])
def test_the_plugin_is_loaded_before_the_engine(use, engine, plugin, order, flavour):
    module = use(flavour, None)
    written = record(module, head="plugin", plugin_sha256=hashlib.sha256(b"library").hexdigest())
    with TensorRTSession(engine, written, SIZE, "edgead build b") as session:
        expected = images(3).astype(np.float64).mean(axis=3)[:, None] / 255
        np.testing.assert_allclose(session.infer(images(3)).anomaly_map, expected, atol=1e-6)
    assert order == [str(plugin), "engine"]


def test_an_engine_of_another_plugin_is_not_opened(use, driver, engine, plugin, order):
    written = record(use("10", None), head="plugin", plugin_sha256="0" * 64)
    with pytest.raises(BackendError, match=r"0000.*edgead build b"):
        TensorRTSession(engine, written, SIZE, "edgead build b")
    assert order == []
    assert driver.left == (0, 0)


@pytest.mark.parametrize("flavour", ["8.6", "10"])
@pytest.mark.parametrize("digest", [hashlib.sha256(b"library").hexdigest(), "0" * 64], ids=["same", "other"])
def test_an_engine_that_carries_its_plugin_loads_no_other(use, engine, plugin, order, flavour, digest):
    module = use(flavour, None)
    written = record(module, head="plugin", plugin_sha256=digest, version_compatible=True)
    with TensorRTSession(engine, written, SIZE, "edgead build b") as session:
        expected = images(3).astype(np.float64).mean(axis=3)[:, None] / 255
        np.testing.assert_allclose(session.infer(images(3)).anomaly_map, expected, atol=1e-6)
    assert order == ["engine"]
    assert module.runtimes[-1].engine_host_code_allowed is True


def test_an_engine_that_carries_its_plugin_needs_none_here(use, engine, order):
    assert not plugin_file().exists()
    written = record(use("10", None), head="plugin", plugin_sha256="0" * 64, version_compatible=True)
    TensorRTSession(engine, written, SIZE, "edgead build b").close()
    assert order == ["engine"]


def test_a_plugin_that_is_registered_already_is_one_line_with_a_hint(use, driver, engine):
    module = use("10", None)
    module.refuse = "plugin"
    written = record(module, head="plugin", plugin_sha256="0" * 64, version_compatible=True)
    with pytest.raises(BackendError) as caught:
        TensorRTSession(engine, written, SIZE, "edgead build b")
    assert str(engine) in caught.value.what
    assert "plugin creator of AnomalyMap exists already" in caught.value.what
    # A rebuilt engine would not help.
    assert "edgead build" not in caught.value.hint
    assert "process" in caught.value.hint
    assert driver.left == (0, 0)


def test_a_library_beside_the_engine_is_not_used(use, engine, order):
    # As a bundle might bring it.
    (engine.parent / "libedgead_plugin.so").write_bytes(b"library")
    written = record(use("10", None), head="plugin", plugin_sha256=hashlib.sha256(b"library").hexdigest())
    with pytest.raises(BackendError, match="edgead plugin build"):
        TensorRTSession(engine, written, SIZE, "edgead build b")
    assert order == []


def test_a_standard_engine_loads_nothing(use, engine, plugin, order):
    TensorRTSession(engine, record(use("10", None)), SIZE, "edgead build b").close()
    assert order == ["engine"]
