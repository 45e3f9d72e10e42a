"""Driver, streams, graphs and the kernels behind them, on a GPU and without TensorRT."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from edgead.errors import BackendError
from edgead.runtime.tensorrt.feature_record import FeatureRecord
from edgead.runtime.tensorrt.kernel_head import KernelHead
from edgead.types import HeadSpec
from tests.helpers.kernel_cases import CASES, features, laid_out


@pytest.fixture
def stream(gpu):
    with gpu.entered():
        stream = gpu.stream()
        yield stream
        stream.close()


def upload(gpu, stream, pointer: int, values: np.ndarray) -> None:
    content = np.ascontiguousarray(values).view(np.uint8).ravel()
    here = gpu.pinned_memory(content.nbytes, "a test")
    here.array[:] = content
    stream.copy(pointer, here.pointer, content.nbytes)
    stream.synchronise()
    here.close()


def download(gpu, stream, pointer: int, size: int) -> np.ndarray:
    here = gpu.pinned_memory(size, "a test")
    here.array[:] = 0
    stream.copy(here.pointer, pointer, size)
    stream.synchronise()
    found = here.array.copy()
    here.close()
    return found


def test_bytes_go_to_the_gpu_and_back(gpu, stream):
    memory = gpu.device_memory(1001, "a test")
    sent = np.random.default_rng(0).integers(0, 256, 1001, np.uint8)
    upload(gpu, stream, memory.pointer, sent)
    np.testing.assert_array_equal(download(gpu, stream, memory.pointer, 1001), sent)
    memory.close()


def test_a_graph_is_replayed_on_new_content(gpu, stream):
    source, target = (gpu.device_memory(64, "a test") for _ in range(2))
    graph = stream.capture(lambda: stream.copy(target.pointer, source.pointer, 64) is None)
    assert graph is not None
    for value in (1, 2):
        upload(gpu, stream, source.pointer, np.full(64, value, np.uint8))
        stream.launch(graph)
        assert set(download(gpu, stream, target.pointer, 64)) == {value}
    graph.close()
    for memory in (source, target):
        memory.close()


def test_a_refused_capture_leaves_the_stream_usable(gpu, stream):
    memory = gpu.device_memory(16, "a test")

    def waits() -> bool:
        stream.synchronise()
        return True

    # A stream that captures cannot be waited for.
    with pytest.raises(BackendError):
        stream.capture(waits)
    with pytest.raises(ZeroDivisionError):
        stream.capture(lambda: bool(1 / 0))
    graph = stream.capture(lambda: stream.copy(memory.pointer, memory.pointer + 8, 8) is None)
    assert graph is not None
    stream.launch(graph)
    stream.synchronise()
    graph.close()
    memory.close()


def test_streams_of_others_are_waited_for(gpu, stream):
    other = gpu.stream()
    # 1 and 2 are the legacy and the per-thread default stream.
    for handle in (1, 2, other.handle):
        stream.wait_for(handle)
    stream.synchronise()
    other.close()


def test_memory_that_is_not_there_is_an_error_with_its_purpose(gpu, stream):
    with pytest.raises(BackendError) as caught:
        gpu.device_memory(2**50, "a test")
    assert "a test" in caught.value.what
    assert gpu.name in caught.value.what
    # The context is as good as before.
    gpu.device_memory(16, "a test").close()


def test_another_thread_may_work(gpu, stream):
    found = []

    def work() -> None:
        with gpu.entered():
            stream.synchronise()
            found.append(gpu.free_memory())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_head_is_captured_and_replayed(gpu, stream, dtype):
    (case,) = (case for case in CASES if case.name == "batch of 5")
    teacher, student = features(case)
    spec = HeadSpec(*case.attributes)
    record = FeatureRecord(dtype, tuple(feature.shape[1:] for feature in teacher), spec)
    head, count = KernelHead(record), len(teacher[0])
    sizes = {"anomaly_map": 4 * case.size[0] * case.size[1], "anomaly_score": 4, **head.bytes_of_image()}
    there = {name: gpu.device_memory(count * size, name) for name, size in sizes.items()}
    planned = head.plan(count, {name: memory.pointer for name, memory in there.items()})

    def load(student) -> None:
        layout = "float" if dtype == "float32" else "half"
        for output, feature in zip(record.outputs, (*teacher, *student), strict=True):
            upload(gpu, stream, there[output.name].pointer, laid_out(feature, layout))

    def answers() -> tuple[np.ndarray, np.ndarray]:
        maps, scores = (
            download(gpu, stream, there[name].pointer, count * sizes[name]).view(np.float32)
            for name in ("anomaly_map", "anomaly_score")
        )
        np.testing.assert_array_equal(maps.reshape(count, -1).max(1), scores)
        return maps, scores

    graph = stream.capture(lambda: head.enqueue(planned, stream) is None)
    assert graph is not None
    # The second content has lower scores, so a score left over from the first would show.
    for changed in (student, [t + np.float32(0.01) * s for t, s in zip(teacher, student, strict=True)]):
        load(changed)
        head.enqueue(planned, stream)
        expected, _ = answers()
        assert np.isfinite(expected).all()
        assert expected.any()
        stream.launch(graph)
        np.testing.assert_array_equal(answers()[0], expected)
    graph.close()
    for memory in there.values():
        memory.close()
