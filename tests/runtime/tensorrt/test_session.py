"""The session on a stand-in for CUDA and TensorRT: everything except the GPU itself, which tests/gpu uses."""

from __future__ import annotations

import logging
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from edgead.errors import BackendError, InputError
from edgead.imaging.preprocess import ModelSize
from edgead.runtime import Session
from edgead.runtime.base import largest_batch
from edgead.runtime.tensorrt import cuda
from edgead.runtime.tensorrt import session as tensorrt
from edgead.runtime.tensorrt.library import load_library
from edgead.runtime.tensorrt.session import TensorRTSession, chunks
from tests.fakes.cuda_driver import PRIMARY, STREAM, CUresult, StandInDriver, stand_in_core
from tests.fakes.tensorrt_runtime import StandInTensorRT, record

SIZE = ModelSize(32, 64)
FLAVOURS = ("8.6", "10", "rtx")


@pytest.fixture
def driver(monkeypatch, tmp_path) -> StandInDriver:
    driver = StandInDriver()
    monkeypatch.setattr(cuda, "_library", lambda: (stand_in_core(driver), driver, "13.5.0"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return driver


@pytest.fixture
def use(monkeypatch, driver):
    """Make a stand-in TensorRT the installed one."""

    def install(flavour: str = "10", **options) -> StandInTensorRT:
        module = StandInTensorRT(driver, flavour, **options)
        monkeypatch.setattr(tensorrt, "load_library", lambda backend: module.library())
        return module

    return install


@pytest.fixture
def engine(tmp_path):
    file = tmp_path / "model.engine"
    file.write_bytes(b"engine of brightness")
    return file


def open_(module, engine, **changes) -> TensorRTSession:
    return TensorRTSession(engine, record(module), SIZE, "edgead build b", **changes)


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 64, 3), dtype=np.uint8)


def oracle(images: np.ndarray) -> np.ndarray:
    return images.astype(np.float64).mean(axis=3)[:, None] / 255


class OnGpu:
    """An array in host memory with the interface of one on the GPU; for the stand-in both are the same memory."""

    def __init__(self, array: np.ndarray, stream: int | None = None) -> None:
        self._array = array
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (array.ctypes.data, False),
            "strides": array.strides,
            "version": 3,
            "stream": stream,
        }


@pytest.mark.parametrize("cuda_graphs", [True, False])
@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("count", [1, 3, 4, 11])
def test_a_batch_of_any_size_gives_the_numbers_of_the_engine(use, engine, flavour, count, cuda_graphs):
    with open_(use(flavour), engine, cuda_graphs=cuda_graphs) as session:
        for seed in (0, 1):
            prediction = session.infer(images(count, seed))
            expected = oracle(images(count, seed))
            np.testing.assert_allclose(prediction.anomaly_map, expected, atol=1e-6)
            np.testing.assert_allclose(prediction.anomaly_score, expected.max((1, 2, 3)), atol=1e-6)
    assert prediction.anomaly_map.dtype == prediction.anomaly_score.dtype == np.float32


def test_a_view_is_scored_by_its_elements(use, engine):
    flipped = images(3)[:, ::-1, :, ::-1]
    with open_(use(), engine) as session:
        np.testing.assert_allclose(session.infer(flipped).anomaly_map, oracle(flipped), atol=1e-6)


def test_results_belong_to_the_caller(use, engine):
    with open_(use(), engine) as session:
        first = session.infer(images(2))
        kept = first.anomaly_map.copy()
        session.infer(images(2, seed=1))
        np.testing.assert_array_equal(first.anomaly_map, kept)
    np.testing.assert_array_equal(first.anomaly_map, kept)


def test_it_describes_its_inputs_and_outputs(use, engine):
    with open_(use(), engine) as session:
        assert isinstance(session, Session)
        assert session.inputs[0].shape == (None, 32, 64, 3)
        assert [spec.shape for spec in session.outputs] == [(None, 1, 32, 64), (None,)]


@pytest.mark.parametrize("batch", [images(1)[0], images(0), images(1)[:, :16], images(1).astype(np.float32)])
def test_a_batch_that_does_not_fit_gives_the_same_error_on_host_and_gpu(use, engine, batch):
    errors = []
    with open_(use(), engine) as session:
        for place in (batch, OnGpu(np.ascontiguousarray(batch))):
            with pytest.raises(InputError) as caught:
                session.infer(place)
            errors.append((caught.value.what, caught.value.hint))
    assert errors[0] == errors[1]
    assert str(batch.shape) in errors[0][0]
    assert batch.dtype.name in errors[0][0]


def test_a_graph_is_captured_once_for_each_size_and_replayed(use, driver, engine):
    module = use()
    with open_(module, engine) as session:
        for count in (1, 3, 1, 3, 7):
            session.infer(images(count))
        launches = [entry for entry in driver.journal if entry[0] == "launch"]
    # 7 images are 4 and 3.
    assert len(module.contexts) == 3
    assert len(launches) == 6


def test_all_contexts_share_one_scratch_memory(use, engine):
    module = use()
    with open_(module, engine) as session:
        session.infer(images(7))
    assert len({context.memory for context in module.contexts}) == 1


@pytest.mark.parametrize(("flavour", "graphs"), [("rtx", 0), ("10", 1)])
def test_rtx_captures_by_itself(use, driver, engine, flavour, graphs):
    module = use(flavour)
    with open_(module, engine) as session:
        session.infer(images(1))
        assert driver.left[1] == graphs
    if flavour == "rtx":
        assert module.config.cuda_graph_strategy == "whole"
        assert module.config.dynamic_shapes_kernel_specialization_strategy == "eager"


def test_rtx_does_not_capture_without_cuda_graphs(use, engine):
    module = use("rtx")
    with open_(module, engine, cuda_graphs=False) as session:
        session.infer(images(1))
    assert module.config.cuda_graph_strategy == "disabled"


def test_work_that_cannot_be_captured_runs_without_a_graph_and_is_logged(use, driver, engine, caplog):
    module = use()
    module.refuse = "capture"
    with caplog.at_level(logging.WARNING), open_(module, engine) as session:
        for seed in (0, 1):
            np.testing.assert_allclose(
                session.infer(images(2, seed)).anomaly_map, oracle(images(2, seed)), atol=1e-6
            )
    (line,) = (record.getMessage() for record in caplog.records)
    assert str(engine) in line
    assert "not permitted when the stream is capturing" in line
    assert ("launch", STREAM) not in driver.journal


def test_an_engine_for_larger_batches_alone_scores_fewer_images_too(use, engine):
    with open_(use(batch=(2, 2, 4)), engine) as session:
        # A stream scores as many cameras together.
        assert largest_batch(session) == 4
        prediction = session.infer(images(5))
    np.testing.assert_allclose(prediction.anomaly_map, oracle(images(5)), atol=1e-6)


@pytest.mark.parametrize("count", [1, 4, 9])
def test_an_array_on_the_gpu_never_passes_through_the_host(use, driver, engine, count):
    batch = images(count)
    with open_(use(), engine) as session:
        np.testing.assert_array_equal(
            session.infer(OnGpu(batch)).anomaly_map, session.infer(batch).anomaly_map
        )
        driver.journal.clear()
        session.infer(OnGpu(batch))
    copied = sum(size for kind, size in driver.journal if kind == "copy")
    # One copy of the images, on the GPU, and the results.
    assert copied == batch.nbytes + count * (32 * 64 + 1) * 4


@pytest.mark.parametrize(
    ("named", "given", "recorded"),
    [
        (None, None, [1]),
        (2, None, [2]),
        (None, 0xF00, [0xF00]),
        (2, 0xF00, [0xF00, 2]),
        (0xF00, 0xF00, [0xF00]),
        (None, SimpleNamespace(handle=0xF00), [0xF00]),
        (None, SimpleNamespace(ptr=0), [1]),
    ],
)
def test_the_streams_of_an_array_are_waited_for_by_an_event(use, driver, engine, named, given, recorded):
    with open_(use(), engine) as session:
        session.infer(images(1))
        driver.journal.clear()
        session.infer(OnGpu(images(1), named), stream=given)
        kinds = [kind for kind, _ in driver.journal]
    assert [stream for kind, stream in driver.journal if kind == "record"] == recorded
    assert kinds == ["record", "wait"] * len(recorded) + ["copy", "launch", "copy", "copy", "sync"]


def test_a_stream_of_another_context_is_refused_with_the_hint(use, engine):
    with open_(use(), engine) as session, pytest.raises(BackendError, match=r"pycuda\.autoprimaryctx"):
        session.infer(OnGpu(images(1)), stream=0xBAD)


def test_a_stream_with_a_numpy_array_is_refused(use, engine):
    with open_(use(), engine) as session, pytest.raises(InputError, match="stream"):
        session.infer(images(1), stream=1)


def test_a_thread_keeps_the_context_it_had(use, driver, engine):
    driver.contexts.append(0xAB)
    session = open_(use(), engine)
    assert driver.contexts == [0xAB]
    session.infer(images(1))
    assert driver.contexts == [0xAB]
    with pytest.raises(BackendError):
        session.infer(OnGpu(images(1)), stream=0xBAD)
    session.close()
    assert driver.contexts == [0xAB]


def test_another_thread_can_use_and_close_it(use, driver, engine):
    session = open_(use(), engine)
    found = []

    def work() -> None:
        found.append(session.infer(images(3)).anomaly_map)
        session.close()
        found.append(list(driver.contexts))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    np.testing.assert_allclose(found[0], oracle(images(3)), atol=1e-6)
    assert found[1] == []
    assert driver.left == (0, 0)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_close_frees_everything_and_twice_is_fine(use, driver, engine, flavour):
    session = open_(use(flavour), engine)
    session.infer(images(7))
    assert driver.left[0] == 7
    session.close()
    session.close()
    assert driver.left == (0, 0)
    assert driver.journal[-1] == ("close", STREAM)
    with pytest.raises(BackendError, match=r"model\.engine") as caught:
        session.infer(images(1))
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("limit", "purpose", "on_gpu"),
    [
        ({"total": 40_000}, "anomaly_map of 4", True),
        ({"total": 24_600}, "anomaly_map of 4", True),
        ({"total": 57_370}, "scratch of 4", True),
        ({"host_free": 1000}, "images of 4", False),
    ],
)
def test_memory_that_does_not_suffice_is_named_with_the_hint_and_given_back(
    use, driver, engine, limit, purpose, on_gpu
):
    for name, size in limit.items():
        setattr(driver, name, size)
    with pytest.raises(BackendError) as caught:
        open_(use(), engine)
    assert purpose in caught.value.what
    assert ("Stand-in" in caught.value.what) == on_gpu
    assert "batch" in caught.value.hint
    assert "\n" not in str(caught.value)
    assert driver.left == (0, 0)
    assert driver.journal[-1] == ("close", STREAM)


def test_memory_that_tensorrt_itself_does_not_get_is_named(use, engine):
    module = use()
    module.refuse = "deserialise"
    with pytest.raises(BackendError, match=r"model\.engine.*Stand-in") as caught:
        open_(module, engine)
    assert "batch" in caught.value.hint


@pytest.mark.parametrize(
    ("refuse", "reason"),
    [
        ("context", "cannot create a context"),
        ("enqueue", "illegal memory access"),
        ("raise", "the bindings raised"),
    ],
)
def test_a_failure_inside_tensorrt_is_one_line_and_leaves_the_session_usable(
    use, driver, engine, refuse, reason
):
    module = use()
    with open_(module, engine) as session:
        module.refuse = refuse
        with pytest.raises(BackendError) as caught:
            session.infer(images(2))
        assert str(engine) in caught.value.what
        assert reason in caught.value.what
        assert "edgead build b" in caught.value.hint
        assert "\n" not in str(caught.value)
        # The session waits for the queued work, because the caller may free the array now.
        assert driver.journal[-1] == ("sync", STREAM)
        module.refuse = ""
        np.testing.assert_allclose(session.infer(images(2)).anomaly_map, oracle(images(2)), atol=1e-6)


def test_a_file_that_is_no_engine_is_one_line_naming_it(use, driver, engine):
    engine.write_bytes(b"not one")
    with pytest.raises(BackendError, match=r"model\.engine.*magic tag does not match"):
        open_(use(), engine)
    assert driver.left == (0, 0)


@pytest.mark.parametrize("content", [b"", b"not one", b"x" * 10_000])
def test_the_real_tensorrt_for_rtx_refuses_a_file_that_is_no_engine(driver, engine, content):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed: pip install tensorrt-rtx")
    library = load_library("tensorrt-rtx")
    engine.write_bytes(content)
    written = record(
        StandInTensorRT(driver, "rtx"), backend=library.backend, library_version=library.version_text
    )
    with pytest.raises(BackendError, match=r"model\.engine.*edgead build b"):
        TensorRTSession(engine, written, SIZE, "edgead build b")
    assert driver.left == (0, 0)
    assert driver.contexts == []


def test_a_file_that_is_not_there_is_named(use, engine):
    engine.unlink()
    with pytest.raises(BackendError, match=r"model\.engine.*No such file.*edgead build b"):
        open_(use(), engine)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("images", ("FLOAT", (-1, 32, 64, 3)), r"images float32 \(N, 32, 64, 3\).*images uint8 \(N, 32,"),
        ("images", ("UINT8", (-1, 64, 64, 3)), r"images uint8 \(N, 64, 64, 3\)"),
        ("more", ("FLOAT", (1,)), "more float32"),
        ("anomaly_score", ("HALF", (-1,)), "anomaly_score float16.*anomaly_score float32"),
        ("anomaly_map", ("FLOAT", (-1, 1, 16, 64)), r"anomaly_map \(2, 1, 16, 64\).*\(2, 1, 32, 64\)"),
    ],
)
def test_other_inputs_and_outputs_are_refused(use, engine, name, tensor, message):
    module = use()
    module.tensors[name] = tensor
    with pytest.raises(BackendError, match=message), open_(module, engine) as session:
        session.infer(images(2))


def test_an_engine_of_another_record_is_refused(use, driver, engine):
    module = use()
    with pytest.raises(BackendError, match=r"\(1, 2, 4\).*engine\.json.*\(1, 1, 8\)"):
        TensorRTSession(engine, record(module, batch=(1, 1, 8)), SIZE, "edgead build b")
    assert driver.left == (0, 0)


@pytest.mark.parametrize("compatible", [False, True])
def test_host_code_is_allowed_to_a_version_compatible_engine_alone(use, engine, compatible):
    module = use()
    TensorRTSession(engine, record(module, version_compatible=compatible), SIZE, "edgead build b").close()
    assert module.runtimes[-1].engine_host_code_allowed is compatible


def test_a_gpu_of_another_compute_capability_is_refused_before_the_engine_is_read(use, engine):
    engine.unlink()
    with pytest.raises(BackendError, match=r"7\.5.*8\.6"):
        TensorRTSession(engine, record(use(), compute_capabilities=("7.5",)), SIZE, "edgead build b")


def test_another_version_is_refused_before_a_gpu_is_opened(use, monkeypatch, engine):
    module = use()
    monkeypatch.setattr(tensorrt, "Gpu", lambda: pytest.fail("the GPU was opened"))
    with pytest.raises(BackendError, match=r"10\.12\.0.*10\.13\.0"):
        TensorRTSession(engine, record(module, library_version="10.12.0"), SIZE, "edgead build b")


def test_another_platform_is_refused_before_the_library_is_imported(use, monkeypatch, engine):
    module = use()
    monkeypatch.setattr(tensorrt, "load_library", lambda backend: pytest.fail("the library was loaded"))
    with pytest.raises(BackendError, match="linux-m68k"):
        TensorRTSession(engine, record(module, platform="linux-m68k"), SIZE, "edgead build b")


def test_rtx_keeps_its_kernels_for_the_next_session(use, engine, tmp_path):
    module = use("rtx")
    open_(module, engine).close()
    (kept,) = (tmp_path / "cache").rglob("*.cache")
    assert kept.read_bytes() == b"kernels"
    assert module.cache_given == b""
    module.kept_kernels = b"kernels and more"
    open_(module, engine).close()
    assert module.cache_given == b"kernels"
    assert kept.read_bytes() == b"kernels and more"


def test_kernels_of_another_version_are_replaced(use, engine, tmp_path):
    module = use("rtx")
    open_(module, engine).close()
    (kept,) = (tmp_path / "cache").rglob("*.cache")
    kept.write_bytes(b"of another version")
    open_(module, engine).close()
    assert kept.read_bytes() == b"kernels"


def test_kernels_that_cannot_be_had_are_no_error(use, driver, engine, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    module = use("rtx")
    module.kept_kernels = None
    open_(module, engine).close()
    assert not list(tmp_path.rglob("*.cache"))
    assert ".cache" in caplog.text
    assert driver.left == (0, 0)


def test_rtx_keeps_its_kernels_before_the_session_ends(use, engine, tmp_path):
    module = use("rtx")
    with open_(module, engine) as session:
        assert not list(tmp_path.rglob("*.cache"))
        session.infer(images(2))
        (kept,) = (tmp_path / "cache").rglob("*.cache")
        assert kept.read_bytes() == b"kernels"
        # The same batch size compiles nothing, another one does.
        module.kept_kernels = b"kernels and more"
        session.infer(images(2))
        assert kept.read_bytes() == b"kernels"
        session.infer(images(3))
        assert kept.read_bytes() == b"kernels and more"


def test_a_cache_that_cannot_be_written_is_one_warning(use, engine, tmp_path, caplog):
    (tmp_path / "cache").write_bytes(b"in the way")
    module = use("rtx")
    for _ in range(2):
        with open_(module, engine) as session:
            for count in (1, 2):
                module.kept_kernels += b"more"
                session.infer(images(count))
    (warning,) = (record for record in caplog.records if record.levelno >= logging.WARNING)
    assert str(tmp_path / "cache") in warning.getMessage()


def test_unchanged_kernels_are_not_written_again(use, engine, tmp_path):
    module = use("rtx")
    open_(module, engine).close()
    (kept,) = (tmp_path / "cache").rglob("*.cache")
    before = kept.stat().st_ino
    open_(module, engine).close()
    assert kept.stat().st_ino == before


@pytest.mark.parametrize(
    ("count", "smallest", "largest", "expected"),
    [
        (1, 1, 4, [(0, 1, 1)]),
        (4, 1, 4, [(0, 4, 4)]),
        (9, 1, 4, [(0, 4, 4), (4, 8, 4), (8, 9, 1)]),
        (5, 2, 4, [(0, 4, 4), (4, 5, 2)]),
        (3, 1, 1, [(0, 1, 1), (1, 2, 1), (2, 3, 1)]),
    ],
)
def test_a_batch_is_split_into_batches_of_the_engine(count, smallest, largest, expected):
    assert list(chunks(count, smallest, largest)) == expected


def test_the_stand_in_refuses_work_without_a_context(driver):
    assert driver.cuMemAlloc(1) == (CUresult.CUDA_ERROR_INVALID_CONTEXT, None)
    driver.contexts.append(PRIMARY)
    assert driver.cuMemAlloc(1)[0] == CUresult.CUDA_SUCCESS
