"""The anomaly map of the plugin, and of the kernels behind an engine, against the standard head of the same graph.

Tests of the plugin need nvcc and TensorRT's headers, which are found as by `edgead plugin build`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgead.data.pseudo_anomalies.rectangles import synthetic_defects
from edgead.data.synthetic.parts import draw_part
from edgead.errors import BackendError
from edgead.export.graph_sections import computed_tensors
from edgead.export.precision.calibration import absolute_maxima_of
from edgead.export.precision.float16 import float16_from_float32
from edgead.imaging.preprocess import ModelSize
from edgead.plugin.build import build_plugin
from edgead.plugin.loader import plugin_file
from tests.helpers.toy_graph import toy_graph, toy_images

TOLERANCE = 1e-3
MAX_BATCH = 4
MODELS = {"tf_efficientnet_lite0": 128, "wide_resnet50_2": 256}
HEADS = {"tensorrt": ("plugin", "kernels"), "tensorrt-rtx": ("kernels",)}


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory) -> Iterator[None]:
    """A cache for these tests, so that a plugin in the user's cache stays as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def plugin(own_cache, gpu) -> Path:
    try:
        return build_plugin(plugin_file().parent).path
    except BackendError as error:
        pytest.skip(f"the plugin cannot be compiled here: {error}")


@pytest.fixture(scope="module", params=["plugin", "kernels"])
def head(request, backend) -> str:
    if request.param not in HEADS[backend]:
        pytest.skip(f"{backend} has no plugins")
    if request.param == "plugin":
        request.getfixturevalue("plugin")
    return request.param


def washers(count: int, size_px: int) -> np.ndarray:
    rng = np.random.default_rng(11)
    good = np.stack([draw_part("washer", rng, size_px) for _ in range(count)])
    return np.concatenate([good, synthetic_defects(good)])


@pytest.fixture(scope="module", params=MODELS)
def graphs(request, gpu):
    """RD with random weights: images of its size, and its graph by precision."""
    torch = pytest.importorskip("torch", reason="the model needs torch: pip install 'edgead[train]'")
    pytest.importorskip("timm", reason="the model needs timm: pip install 'edgead[train]'")
    return rd_graphs(torch, request.param)


def rd_graphs(torch, teacher_name: str):
    from edgead.export.from_torch import onnx_from_method
    from edgead.models import create_method
    from edgead.models.components.teacher import create_teacher

    torch.manual_seed(0)
    size = ModelSize(MODELS[teacher_name], MODELS[teacher_name])
    teacher = create_teacher(teacher_name, "random")
    exact = onnx_from_method(create_method("rd", teacher, size, "per-position", "unaligned").eval(), size)
    images = washers(4, size.height_px)
    half = float16_from_float32(exact, absolute_maxima_of(exact, images, computed_tensors(exact)))
    return images, {"fp32": exact, "fp16": half}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_head_agrees_with_the_standard_head(backend, build, graphs, head, precision):
    images, models = graphs
    batch = (1, MAX_BATCH, MAX_BATCH)
    standard = build(backend, models[precision], precision, batch)
    other = build(backend, models[precision], precision, batch, head)
    assert other.built.record.head == head
    with standard.open() as session:
        expected = session.infer(images)
    answers = []
    for cuda_graphs in (True, False):
        with other.open(cuda_graphs=cuda_graphs) as session:
            for _ in range(2):  # directly, then as a graph
                found = session.infer(images)
                np.testing.assert_allclose(found.anomaly_map, expected.anomaly_map, atol=TOLERANCE)
                np.testing.assert_allclose(found.anomaly_score, expected.anomaly_score, atol=TOLERANCE)
                np.testing.assert_array_equal(found.anomaly_map.max((1, 2, 3)), found.anomaly_score)
                answers.append(found.anomaly_map)
    for maps in answers[1:]:
        np.testing.assert_array_equal(maps, answers[0])


@pytest.fixture(scope="module")
def toy(backend, build, head):
    return build(backend, toy_graph(), batch=(1, 1, MAX_BATCH), head=head)


@pytest.mark.parametrize("cuda_graphs", [True, False])
def test_a_batch_of_any_size(backend, build, toy, cuda_graphs):
    standard = build(backend, toy_graph(), batch=(1, 1, MAX_BATCH))
    with standard.open() as plain, toy.open(cuda_graphs=cuda_graphs) as session:
        for seed, count in enumerate((1, 4, 3, 2 * MAX_BATCH + 1, 1, 4)):
            images = toy_images(count, seed)
            expected, found = plain.infer(images), session.infer(images)
            np.testing.assert_allclose(found.anomaly_map, expected.anomaly_map, atol=TOLERANCE)
            np.testing.assert_allclose(found.anomaly_score, expected.anomaly_score, atol=TOLERANCE)


def test_the_session_captures_the_head_too(backend, toy, caplog):
    if backend != "tensorrt":
        pytest.skip("TensorRT for RTX captures by itself")
    with toy.open() as session:
        session.infer(toy_images(2))
        assert [slot.graph is not None for slot in session._slots.values()] == [True]
    assert "without CUDA graphs" not in caplog.text


def test_close_gives_the_memory_back(gpu, toy):
    for _ in range(2):  # the first session loads data that the library keeps in the process
        with gpu.entered():
            before, _ = gpu.free_memory()
        with toy.open() as session:
            session.infer(toy_images(3))
        with gpu.entered():
            after, _ = gpu.free_memory()
    assert before - after < 4 * 2**20


def test_kernels_are_kept_for_the_next_session(toy, head, monkeypatch, tmp_path):
    if head != "kernels":
        pytest.skip("a plugin has its kernels inside")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with toy.open() as session:
        first = session.infer(toy_images(2)).anomaly_map
    (kept,) = tmp_path.rglob("*.cubin")
    before = kept.stat().st_ino
    with toy.open() as session:
        np.testing.assert_array_equal(session.infer(toy_images(2)).anomaly_map, first)
    assert kept.stat().st_ino == before


def test_an_engine_names_the_library_it_was_built_with(toy, head, plugin):
    if head != "plugin":
        pytest.skip("there is no library")
    assert toy.built.record.plugin_sha256 == hashlib.sha256(plugin.read_bytes()).hexdigest()
    # Moved and not overwritten, because this process has it loaded.
    aside = plugin.rename(plugin.with_suffix(".aside"))
    try:
        plugin.write_bytes(aside.read_bytes() + b"changed")
        with pytest.raises(BackendError, match=toy.built.record.plugin_sha256):
            toy.open()
    finally:
        aside.replace(plugin)
