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
from edgead.models.components.stages import StagesTeacher
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
    """Joint features of each position of each image, (N, H * W, C)."""
    with torch.no_grad():
        joint = joined(method.teacher_features(torch.from_numpy(images))).double().numpy()
    return joint.transpose(0, 2, 3, 1).reshape(len(joint), -1, joint.shape[1])


def reconstruction(known: Float64Array, new: Float64Array, share: float) -> tuple[Float64Array, Float64Array]:
    """New vectors (M, H * W, C) and their projections to the principal components of known ones.

    Both are coordinates on all components, divided by the fourth roots of their variances and by the root of their mean
    square root.
    """
    centre = known.mean(0)
    deviations = np.split(known - centre, np.cumsum(CHANNELS)[:-1], axis=2)
    spread = np.concatenate([np.full(x.shape[2], np.sqrt((x**2).mean())) for x in deviations])
    rows = ((known - centre) / spread).reshape(-1, known.shape[2])
    _, values, components = np.linalg.svd(rows, full_matrices=False)
    variances = values**2 / len(rows)
    count = int(np.argmax(np.cumsum(variances) >= share * variances.sum())) + 1
    kept = components[:count]
    projected = (new - centre) / spread @ kept.T @ kept + centre / spread
    roots = np.maximum(variances, 1e-4) ** 0.25
    roots *= np.sqrt((roots**2).mean())
    return new / spread @ components.T / roots, projected @ components.T / roots


@pytest.mark.parametrize("share", [0.5, 0.9, 0.98])
def test_it_projects_to_the_principal_components_of_all_features(share: float) -> None:
    method = fitted()
    method.set_capacity(share)
    train, other = good_parts(12), np.random.default_rng(5).integers(0, 256, (2, 64, 64, 3), np.uint8)
    expected = reconstruction(vectors(method, train), vectors(method, other), share)
    with torch.no_grad():
        found = [side[0] for side in method.features(torch.from_numpy(other))]
    sides = [side.double().numpy().transpose(0, 2, 3, 1).reshape(expected[0].shape) for side in found]
    # A component has no sign, so products of the two sides are compared.
    for one, two in ((0, 0), (0, 1), (1, 1)):
        values, products = sides[one] * sides[two], expected[one] * expected[two]
        np.testing.assert_allclose(values, products, rtol=0.0, atol=1e-3 * np.abs(products).max())


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
    # Both sides have the convolutions in common, so rounding cancels in the components that are kept.
    student_nodes = [graph.graph.node[i].op_type for i in sections_of(graph).student]
    assert sorted(student_nodes) == ["Add", "Mul"]


def test_its_loss_is_the_share_of_the_weighted_variance_that_it_leaves_unexplained() -> None:
    method, train = fitted(), good_parts(12)
    losses = []
    for share in (0.0, *method.capacities):
        method.set_capacity(share)
        with torch.no_grad():
            images = torch.from_numpy(train)
            losses.append(float(method(images, method.teacher_features(images))))
        assert losses[-1] == pytest.approx(method.training_loss(), rel=1e-3)
    assert losses[0] == pytest.approx(1.0, abs=0.05)
    assert losses == sorted(losses, reverse=True)


def test_more_capacity_is_more_components_but_never_all() -> None:
    method, counts = fitted(), []
    for share in method.capacities:
        method.set_capacity(share)
        counts.append(int(method.kept.sum()))
    assert counts == sorted(counts)
    assert len(set(counts)) > 2
    method.set_capacity(1.0)
    assert method.kept.sum() < sum(CHANNELS)


def test_a_part_in_another_place_is_reconstructed_as_the_usual_part() -> None:
    """Parts that lie alike, and the same part moved: the student that keeps nothing gives the mean of each position."""
    method, parts = fitted(), good_parts(12)
    method.set_capacity(0.0)
    with torch.no_grad():
        sides = method.features(torch.from_numpy(np.roll(parts[:1], 16, axis=2)))
        usual = method.features(torch.from_numpy(parts))[0][0].mean(0, keepdim=True)
    torch.testing.assert_close(sides[1][0], usual, rtol=0.0, atol=1e-4 * float(usual.abs().max()))


@pytest.mark.parametrize("batch_size", [1, 5])
def test_batches_of_another_size_change_it_by_rounding_only(batch_size: int) -> None:
    whole, parts = fitted(), fitted(batch_size=batch_size)
    for method in (whole, parts):
        method.set_capacity(0.9)
    other = torch.from_numpy(good_parts(16)[12:])
    with torch.no_grad():
        features = whole.teacher_features(other)
        one, two = (method.student_features(other, features)[0] for method in (whole, parts))
    # A component has no sign.
    torch.testing.assert_close(one.abs(), two.abs(), rtol=0.0, atol=1e-3 * float(one.abs().max()))


def test_moments_of_large_values_lose_nothing_that_float64_holds() -> None:
    rng = np.random.default_rng(7)
    values = (1000.0 + rng.normal(size=(30, 4, 5, 6))).astype(np.float32)
    parts = []
    for start, end in ((0, 7), (7, 8), (8, 30)):
        parts.append(Moments((4, 5, 6), torch.device("cpu")))
        parts[-1].add(torch.from_numpy(values[start:end]))
    moments = Moments.joined(parts)
    exact = values.astype(np.float64)
    rows = (exact - exact.mean(0)).transpose(0, 2, 3, 1).reshape(-1, 4)
    assert moments.count == len(values)
    np.testing.assert_allclose(moments.mean().numpy(), exact.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance().numpy(), rows.T @ rows / len(rows), rtol=1e-8, atol=1e-8)


def test_images_without_variance_give_finite_features() -> None:
    method = untrained()
    grey = torch.full((3, 64, 64, 3), 128, dtype=torch.uint8)
    with torch.no_grad():
        constant = method.teacher_features(grey)
        method.finish_stage([(grey, constant)])
        for share in (0.0, *method.capacities):
            method.set_capacity(share)
            assert all(side.isfinite().all() for side in method.student_features(grey, constant))
            assert method.training_loss() == pytest.approx(0.0, abs=1e-2)


def test_scales_are_joined_in_place() -> None:
    fine, coarse = torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 2, 2)
    fine[0, 0, 1, 3], coarse[0, 0, 0, 1] = 5.0, 16.0
    joint = joined([fine, coarse])[0]
    assert joint.shape == (3, 4, 4)
    assert torch.equal(joint[:2], fine[0])
    # Bilinear weights of the corner pixel of two by two: 3/4 of it for the neighbours inside, and their product.
    assert joint[2, :2, 2:].tolist() == [[12.0, 16.0], [9.0, 12.0]]


def test_all_stages_of_its_strides_take_part() -> None:
    """MobileNetV2 has two stages of stride 16; timm gives the last."""
    teacher = METHODS["linear"].create_teacher("mobilenetv2_035", "random")
    assert isinstance(teacher, StagesTeacher)
    images = torch.from_numpy(good_parts(1))
    with torch.no_grad():
        found, last = teacher(images), teacher.layers(teacher.normalised(images))
    assert [tuple(x.shape[1:]) for x in found] == [
        (channels, 64 // stride, 64 // stride)
        for channels, stride in zip(teacher.channels, teacher.strides, strict=True)
    ]
    assert teacher.strides == (4, 8, 16, 16)
    for one, two in zip((found[0], found[1], found[3]), last, strict=True):
        assert torch.equal(one, two)


def test_tensors_of_another_size_are_refused() -> None:
    method, loaded = fitted(), untrained()
    method.set_capacity(0.95)
    loaded.load_state_dict(method.state_dict())
    assert same_tensors(dict(loaded.state_dict()), dict(method.state_dict()))
    broken = {**method.state_dict(), "means": torch.zeros(1, 1, 1, 1)}
    with pytest.raises(RuntimeError):
        loaded.load_state_dict(broken)
    assert not loaded.trained()
