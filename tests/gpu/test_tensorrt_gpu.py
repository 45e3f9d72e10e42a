"""Engines on a real GPU, against ONNX Runtime on the same graph and images."""

from __future__ import annotations

import ctypes
import os
import threading

import numpy as np
import pytest

from edgead.data.pseudo_anomalies.rectangles import synthetic_defects
from edgead.data.synthetic.parts import draw_part
from edgead.engine.fidelity import MAP_TOLERANCE
from edgead.engine.refusal import verify
from edgead.engine.target import find_target
from edgead.errors import BackendError, InputError
from edgead.export.graph_sections import computed_tensors
from edgead.export.precision.calibration import absolute_maxima_of
from edgead.export.precision.float16 import float16_from_float32
from edgead.imaging.preprocess import ModelSize
from edgead.runtime.onnxruntime import OnnxRuntimeSession
from edgead.runtime.tensorrt.library import load_library
from tests.helpers.int8_graph import int8_graph
from tests.helpers.toy_graph import HEIGHT, WIDTH, toy_graph, toy_images

MAX_BATCH = 4
INT8_BESIDE_FP16 = "int8 beside fp16"


@pytest.fixture(scope="module")
def toy(backend, build):
    return build(backend, toy_graph(), batch=(1, 1, MAX_BATCH))


def reference(engine, images: np.ndarray):
    with OnnxRuntimeSession(engine.graph) as session:
        return session.infer(images)


def washers(count: int, size_px: int) -> np.ndarray:
    rng = np.random.default_rng(11)
    return np.stack([draw_part("washer", rng, size_px) for _ in range(count)])


@pytest.fixture(scope="module")
def washer_graphs():
    """RD on Lite0 with random weights at 128 pixels, in each precision."""
    torch = pytest.importorskip("torch", reason="the model needs torch: pip install 'edgead[train]'")
    pytest.importorskip("timm", reason="the model needs timm: pip install 'edgead[train]'")
    from edgead.export.from_torch import onnx_from_method
    from edgead.models import create_method
    from edgead.models.components.teacher import create_teacher

    torch.manual_seed(0)
    size = ModelSize(128, 128)
    teacher = create_teacher("tf_efficientnet_lite0", "random")
    exact = onnx_from_method(create_method("rd", teacher, size, "per-position", "unaligned").eval(), size)
    good = washers(16, 128)
    mixed = int8_graph(exact, good, "mse")
    maxima, mixed_maxima = (
        absolute_maxima_of(graph, good, computed_tensors(graph)) for graph in (exact, mixed)
    )
    return {
        "fp32": exact,
        "fp16": float16_from_float32(exact, maxima),
        "int8": int8_graph(exact, good, "mse"),
        INT8_BESIDE_FP16: float16_from_float32(mixed, mixed_maxima),
    }


@pytest.mark.parametrize("graph", ["fp32", "fp16", "int8", INT8_BESIDE_FP16])
def test_an_engine_agrees_with_its_graph(backend, build, washer_graphs, graph):
    if graph == INT8_BESIDE_FP16 and not load_library(backend).strongly_typed:
        pytest.skip("TensorRT 8.6 does not parse float16 Q/DQ pairs")
    precision = "int8" if graph == INT8_BESIDE_FP16 else graph
    good = washers(24, 128)
    images = np.concatenate([good, synthetic_defects(good)])
    engine = build(backend, washer_graphs[graph], precision, (1, 8, 8))
    with OnnxRuntimeSession(engine.graph) as exact, engine.open() as session:
        threshold = float(exact.infer(good).anomaly_score.max())
        limits = find_target(None, "datacenter")[1].tolerances.of(precision).limits(len(images))
        verify(exact, session, images, threshold, limits)


@pytest.mark.parametrize("cuda_graphs", [True, False])
@pytest.mark.parametrize("count", [1, 3, MAX_BATCH, 2 * MAX_BATCH + 1])
def test_a_batch_of_any_size(toy, count, cuda_graphs):
    images = toy_images(count, seed=count)
    expected = reference(toy, images)
    with toy.open(cuda_graphs=cuda_graphs) as session:
        for _ in range(3):  # directly, then as a graph
            found = session.infer(images)
            np.testing.assert_allclose(found.anomaly_map, expected.anomaly_map, atol=MAP_TOLERANCE)
            np.testing.assert_allclose(found.anomaly_score, expected.anomaly_score, atol=MAP_TOLERANCE)
            np.testing.assert_array_equal(found.anomaly_map.max((1, 2, 3)), found.anomaly_score)


def test_with_and_without_graphs_the_bits_are_equal(toy):
    with toy.open(cuda_graphs=True) as captured, toy.open(cuda_graphs=False) as plain:
        # The sizes alternate, because a graph must give the same result after graphs of other sizes.
        for seed, count in enumerate((1, 4, 1, 2, 4, 3, 1)):
            images = toy_images(count, seed)
            one, other = captured.infer(images), plain.infer(images)
            np.testing.assert_array_equal(one.anomaly_map, other.anomaly_map)
            np.testing.assert_array_equal(one.anomaly_score, other.anomaly_score)


def test_tensorrt_lets_the_session_capture(backend, toy, caplog):
    if backend != "tensorrt":
        pytest.skip("TensorRT for RTX captures by itself")
    with toy.open() as session:
        session.infer(toy_images(2))
        assert [slot.graph is not None for slot in session._slots.values()] == [True]
    assert "without CUDA graphs" not in caplog.text


def test_results_belong_to_the_caller(toy):
    with toy.open() as session:
        first = session.infer(toy_images(2))
        kept = first.anomaly_map.copy()
        session.infer(toy_images(2, seed=1))
    np.testing.assert_array_equal(first.anomaly_map, kept)


def test_two_sessions_in_two_threads(toy):
    images = [toy_images(3, seed) for seed in range(2)]
    expected = [reference(toy, batch).anomaly_map for batch in images]
    errors: list[BaseException] = []
    start = threading.Barrier(2)

    def work(index: int) -> None:
        try:
            start.wait(60)
            with toy.open() as session:
                for _ in range(300):
                    found = session.infer(images[index][: 1 + _ % 3]).anomaly_map
                    np.testing.assert_allclose(found, expected[index][: len(found)], atol=MAP_TOLERANCE)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_a_session_made_in_one_thread_works_in_another(toy):
    images, found = toy_images(2), []
    with toy.open() as session:
        thread = threading.Thread(target=lambda: found.append(session.infer(images).anomaly_map))
        thread.start()
        thread.join()
    np.testing.assert_allclose(found[0], reference(toy, images).anomaly_map, atol=MAP_TOLERANCE)


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_ten_thousand_inferences_take_no_memory(gpu, toy):
    images = toy_images(MAX_BATCH)

    def run(count: int, session) -> None:
        for index in range(count):
            session.infer(images[: 1 + index % MAX_BATCH])

    with toy.open() as session:
        run(500, session)
        with gpu.entered():
            free, _ = gpu.free_memory()
        resident = resident_bytes()
        run(10_000, session)
        with gpu.entered():
            assert free - gpu.free_memory()[0] < 4 * 2**20
        assert resident_bytes() - resident < 8 * 2**20


def test_close_gives_the_memory_back(gpu, toy):
    for _ in range(2):  # the first session loads data that the library keeps in the process
        with gpu.entered():
            before, _ = gpu.free_memory()
        with toy.open() as session:
            session.infer(toy_images(3))
        session.close()
        with gpu.entered():
            after, _ = gpu.free_memory()
    assert before - after < 4 * 2**20
    with pytest.raises(BackendError) as caught:
        session.infer(toy_images(1))
    assert caught.value.__cause__ is None


def test_memory_that_does_not_suffice_is_named(gpu, backend, build):
    engine = build(backend, toy_graph(), batch=(1, 1, 2048))
    with engine.open() as session:
        session.infer(toy_images(1))
    with gpu.entered():
        taken = gpu.device_memory(gpu.free_memory()[0] - 24 * 2**20, "this test")
        try:
            with pytest.raises(BackendError, match=r" MiB.* MiB") as caught:
                engine.open()
        finally:
            taken.close()
    assert gpu.name in caught.value.what
    assert "batch" in caught.value.hint
    assert "\n" not in str(caught.value)
    # The failed session left no memory behind, so the next one opens.
    with engine.open() as session:
        session.infer(toy_images(1))


class OnGpu:
    """An array of images in a buffer of cuda-core."""

    def __init__(self, images: np.ndarray, strides: tuple[int, ...] | None = None) -> None:
        import cuda.core

        device = cuda.core.Device()
        device.set_current()
        self.stream = device.create_stream()
        host = cuda.core.LegacyPinnedMemoryResource().allocate(images.nbytes)
        ctypes.memmove(int(host.handle), images.ctypes.data, images.nbytes)
        self.buffer = device.allocate(images.nbytes, stream=self.stream)
        self.buffer.copy_from(host, stream=self.stream)
        self.stream.sync()
        host.close()
        self.__cuda_array_interface__ = {
            "shape": images.shape,
            "typestr": images.dtype.str,
            "data": (int(self.buffer.handle), False),
            "strides": strides,
            "version": 3,
            "stream": None,
        }

    def close(self) -> None:
        self.buffer.close(self.stream)
        self.stream.sync()
        self.stream.close()


@pytest.mark.parametrize("count", [1, MAX_BATCH, 2 * MAX_BATCH + 1])
def test_an_array_on_the_gpu_gives_the_same_bits(toy, count):
    images = toy_images(count)
    on_gpu = OnGpu(images)
    with toy.open() as session:
        expected = session.infer(images)
        for stream in (None, on_gpu.stream, int(on_gpu.stream.handle), 0):
            found = session.infer(on_gpu, stream=stream)
            np.testing.assert_array_equal(found.anomaly_map, expected.anomaly_map)
            np.testing.assert_array_equal(found.anomaly_score, expected.anomaly_score)
    on_gpu.close()


def test_a_strided_array_on_the_gpu_is_refused(toy):
    on_gpu = OnGpu(toy_images(1), strides=(HEIGHT * WIDTH * 3, WIDTH * 3, -3, 1))
    with toy.open() as session, pytest.raises(InputError, match=str(HEIGHT * WIDTH * 3)):
        session.infer(on_gpu)
    on_gpu.close()


def test_a_stream_is_waited_for(toy):
    """The array is filled by work that takes longer than the call takes to reach the GPU."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    images = toy_images(2)
    on_host, on_gpu = (
        torch.from_numpy(images).pin_memory(),
        torch.zeros(images.shape, dtype=torch.uint8).cuda(),
    )
    torch.cuda.synchronize()
    with toy.open() as session:
        expected = session.infer(images).anomaly_map
        session.infer(on_gpu)
        for stream in (torch.cuda.Stream(), torch.cuda.default_stream()):
            on_gpu.zero_()
            torch.cuda.synchronize()
            with torch.cuda.stream(stream):
                torch.cuda._sleep(200_000_000)
                on_gpu.copy_(on_host, non_blocking=True)
            # The session waits for the default stream without an argument.
            handle = {} if stream == torch.cuda.default_stream() else {"stream": stream.cuda_stream}
            np.testing.assert_array_equal(session.infer(on_gpu, **handle).anomaly_map, expected)


def test_a_file_cut_short_is_one_line(toy, tmp_path):
    from edgead.runtime.tensorrt.session import TensorRTSession

    content = toy.built.path.read_bytes()
    for kept in (0, 100, len(content) // 2):
        (tmp_path / "model.engine").write_bytes(content[:kept])
        with pytest.raises(BackendError, match=r"model\.engine") as caught:
            TensorRTSession(tmp_path / "model.engine", toy.built.record, toy.size, "edgead build")
        assert "\n" not in str(caught.value)


def test_rtx_starts_from_the_kernels_it_kept(backend, toy, monkeypatch, tmp_path):
    if backend != "tensorrt-rtx":
        pytest.skip("TensorRT compiles its kernels when it builds")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    images = toy_images(2)
    with toy.open() as session:
        first = session.infer(images).anomaly_map
        (kept,) = tmp_path.rglob("*.cache")
        assert kept.stat().st_size > 0
    with toy.open() as session:
        np.testing.assert_array_equal(session.infer(images).anomaly_map, first)
        assert session._engine._cache._content == kept.read_bytes()
