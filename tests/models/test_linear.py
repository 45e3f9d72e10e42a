"""The linear student against a singular value decomposition of all features at once, in float64 by NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgead.export.from_torch import onnx_from_method
from edgead.export.graph_sections import sections_of
from edgead.imaging.anomaly_map import bilinear_matrix, gaussian_matrix
from edgead.imaging.preprocess import ModelSize
from edgead.models import METHODS, create_method
from edgead.models.components.moments import Moments
from edgead.models.linear import LinearReconstruction, joined
from edgead.runtime.onnxruntime import OnnxRuntimeSession
from edgead.types import Float64Array
from tests.helpers.training_parts import TINY_TEACHER, good_parts, same_tensors

CHANNELS = (24, 32, 48)


def untrained() -> LinearReconstruction:
    torch.manual_seed(3)
    teacher = METHODS["linear"].create_teacher(TINY_TEACHER, "random")
    method = create_method("linear", teacher, ModelSize(64, 64), "squared-error").eval()
    assert isinstance(method, LinearReconstruction)
    return method


def fitted(count: int = 12, batch_size: int = 12) -> LinearReconstruction:
    method = untrained()
    fit(method, torch.from_numpy(good_parts(count)), batch_size)
    return method


def fit(method: LinearReconstruction, images: torch.Tensor, batch_size: int) -> None:
    with torch.no_grad():
        method.finish_stage(
            (batch, method.teacher_features(batch)) for batch in torch.split(images, batch_size)
        )


def vectors(method: LinearReconstruction, images: np.ndarray) -> Float64Array:
    """Joint features as rows, one for each position of each image."""
    joint = method.teacher_features(torch.from_numpy(images))[0].double().numpy()
    return joint.transpose(0, 2, 3, 1).reshape(-1, joint.shape[1])


def reconstruction(rows: Float64Array, new: Float64Array, share: float) -> tuple[Float64Array, Float64Array]:
    """New vectors and their projections to the principal components of `rows`, both divided by the spreads."""
    deviations = np.split(rows - rows.mean(0), np.cumsum(CHANNELS)[:-1], axis=1)
    spread = np.concatenate([np.full(x.shape[1], np.sqrt((x**2).mean())) for x in deviations])
    centre = rows.mean(0) / spread
    _, values, components = np.linalg.svd(rows / spread - centre, full_matrices=False)
    explained = np.cumsum(values**2) / np.sum(values**2)
    kept = components[: int(np.argmax(explained >= share)) + 1]
    return new / spread, (new / spread - centre) @ kept.T @ kept + centre


@pytest.mark.parametrize("share", [0.7, 0.9, 0.99])
def test_it_projects_to_the_principal_components_of_all_features(share: float) -> None:
    method = fitted()
    method.set_capacity(share)
    train, other = good_parts(12), np.random.default_rng(5).integers(0, 256, (2, 64, 64, 3), np.uint8)
    new = vectors(method, other)
    expected = reconstruction(vectors(method, train), new, share)
    with torch.no_grad():
        found = [side[0] for side in method.features(torch.from_numpy(other))]
    for side, rows in zip(found, expected, strict=True):
        values = side.numpy().transpose(0, 2, 3, 1).reshape(rows.shape)
        np.testing.assert_allclose(values, rows, rtol=0.0, atol=1e-4 * np.abs(rows).max())


def test_the_graph_gives_the_cosine_map_of_both_vectors() -> None:
    method = fitted()
    method.set_capacity(0.9)
    images = np.concatenate(
        [good_parts(14)[12:], np.random.default_rng(5).integers(0, 256, (1, 64, 64, 3), np.uint8)]
    )
    sides = reconstruction(vectors(method, good_parts(12)), vectors(method, images), 0.9)
    teacher, student = (rows.reshape(3, 8, 8, -1) for rows in sides)
    lengths = np.linalg.norm(teacher, axis=3) * np.linalg.norm(student, axis=3)
    distance = 1.0 - (teacher * student).sum(3) / lengths
    matrix = gaussian_matrix(64, 4.0) @ bilinear_matrix(64, 8, True)
    expected = matrix @ distance @ matrix.T
    graph = onnx_from_method(method, ModelSize(64, 64))
    with OnnxRuntimeSession(graph.SerializeToString(), size=ModelSize(64, 64)) as session:
        found = session.infer(images)
    np.testing.assert_allclose(found.anomaly_map[:, 0], expected, rtol=0.0, atol=1e-4 * expected.max())
    np.testing.assert_allclose(found.anomaly_score, expected.max((1, 2)), rtol=1e-4)
    sections = sections_of(graph)
    layers = [i for i, node in enumerate(graph.graph.node) if node.op_type == "Conv"]
    assert [i in sections.student for i in layers] == [False] * (len(layers) - 2) + [True] * 2


def test_its_loss_is_the_share_of_the_variance_that_it_leaves_unexplained() -> None:
    method, train = fitted(), good_parts(12)
    for share in (0.0, *method.capacities):
        method.set_capacity(share)
        with torch.no_grad():
            images = torch.from_numpy(train)
            loss = float(method(images, method.teacher_features(images)))
        if share == 0.0:
            assert loss == pytest.approx(1.0, rel=1e-4)
        else:
            assert loss == pytest.approx(method.training_loss(), rel=1e-3)
            assert loss <= 1.0 - share + 1e-6


def test_more_capacity_is_more_components_but_never_all() -> None:
    method, counts = fitted(), []
    for share in method.capacities:
        method.set_capacity(share)
        counts.append(method.encoder.out_channels)
    assert counts == sorted(counts)
    assert len(set(counts)) > 2
    method.set_capacity(1.0)
    assert method.encoder.out_channels < sum(CHANNELS)


@pytest.mark.parametrize("batch_size", [1, 5])
def test_batches_of_another_size_change_it_by_rounding_only(batch_size: int) -> None:
    whole, parts = fitted(), fitted(batch_size=batch_size)
    for method in (whole, parts):
        method.set_capacity(0.9)
    other = torch.from_numpy(good_parts(16)[12:])
    with torch.no_grad():
        features = whole.teacher_features(other)
        one, two = (method.student_features(other, features)[0] for method in (whole, parts))
    torch.testing.assert_close(one, two, rtol=0.0, atol=1e-5 * float(one.abs().max()))


def test_moments_of_large_values_lose_nothing_that_float64_holds() -> None:
    rng = np.random.default_rng(7)
    values = (1000.0 + rng.normal(size=(30, 4, 5, 6))).astype(np.float32)
    moments = Moments(4, torch.device("cpu"))
    for start, end in ((0, 7), (7, 8), (8, 30)):
        moments.add(torch.from_numpy(values[start:end]))
    rows = values.astype(np.float64).transpose(0, 2, 3, 1).reshape(-1, 4)
    assert moments.count == len(rows)
    np.testing.assert_allclose(moments.mean().numpy(), rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance().numpy(), np.cov(rows.T, bias=True), rtol=1e-8, atol=1e-8)


def test_images_without_variance_give_finite_features() -> None:
    method = untrained()
    grey = torch.full((3, 64, 64, 3), 128, dtype=torch.uint8)
    # Without borders, so that all positions are equal.
    with torch.no_grad():
        constant = [torch.ones_like(method.teacher_features(grey)[0])]
        method.finish_stage([(grey, constant)])
        for share in (0.0, *method.capacities):
            method.set_capacity(share)
            assert method.student_features(grey, constant)[0].isfinite().all()
            assert method.training_loss() == 0.0


def test_scales_are_joined_in_place() -> None:
    fine, middle, coarse = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 2, 2)
    fine[0, 0, 2:4, 6:8] = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    middle[0, 0, 1, 3], coarse[0, 0, 0, 1] = 5.0, 16.0
    joint = joined([fine, middle, coarse])[0]
    assert joint.shape == (3, 4, 4)
    assert joint[:2, 1, 3].tolist() == [3.0, 5.0]
    assert int(joint[0].count_nonzero()) == int(joint[1].count_nonzero()) == 1
    # Bilinear weights of the corner pixel of two by two: 3/4 of it for the neighbours inside, and their product.
    assert joint[2, :2, 2:].tolist() == [[12.0, 16.0], [9.0, 12.0]]


def test_tensors_are_loaded_with_their_number_of_components() -> None:
    method, loaded = fitted(), untrained()
    method.set_capacity(0.95)
    loaded.load_state_dict(method.state_dict())
    assert same_tensors(dict(loaded.state_dict()), dict(method.state_dict()))
    broken = {**method.state_dict(), "decoder.weight": torch.zeros(1, 1, 1, 1)}
    with pytest.raises(RuntimeError):
        loaded.load_state_dict(broken)
    assert not loaded.trained()
