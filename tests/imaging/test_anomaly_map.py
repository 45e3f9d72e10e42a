"""The reference against SciPy, torch and a case computed by hand; the matrices against the reference."""

import re

import numpy as np
import pytest
import scipy.ndimage
import torch

from edgead.imaging.anomaly_map import anomaly_map, bilinear_matrix, cosine_map, gaussian_matrix

SIZES = [(256, 256), (256, 192), (97, 131), (33, 64)]


def features(rng, shapes, dtype=np.float32):
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def pyramid(height, width, n=2):
    return [(n, 3, -(-height // 4), -(-width // 4)), (n, 5, -(-height // 8), -(-width // 8)), (n, 7, 3, 2)]


def reference(teacher, student, height, width, fusion, sigma, align_corners):
    """The same operator from torch in float64 and SciPy."""
    fused = None
    for t, s in zip(teacher, student, strict=True):
        t64, s64 = torch.from_numpy(t.astype(np.float64)), torch.from_numpy(s.astype(np.float64))
        distance = 1.0 - torch.nn.functional.cosine_similarity(t64, s64, dim=1, eps=1e-16)
        scale = torch.nn.functional.interpolate(
            distance[:, None], size=(height, width), mode="bilinear", align_corners=align_corners
        ).numpy()[:, 0]
        fused = scale if fused is None else fused + scale if fusion == "add" else fused * scale
    return np.stack([scipy.ndimage.gaussian_filter(m, sigma) if sigma else m for m in fused])


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("sigma", [0.0, 1.3, 4.0])
@pytest.mark.parametrize("fusion", ["add", "multiply"])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_agrees_with_scipy_and_torch(height, width, fusion, sigma, align_corners):
    rng = np.random.default_rng(1)
    shapes = pyramid(height, width)
    teacher, student = features(rng, shapes), features(rng, shapes)
    maps, scores = anomaly_map(teacher, student, height, width, fusion, sigma, align_corners)
    expected = reference(teacher, student, height, width, fusion, sigma, align_corners)
    assert maps.shape == (2, 1, height, width)
    assert maps.dtype == scores.dtype == np.float64
    np.testing.assert_allclose(maps[:, 0], expected, atol=1e-12)
    np.testing.assert_array_equal(scores, maps.reshape(2, -1).max(axis=1))


def test_case_computed_by_hand():
    # Orthogonal, equal, opposite and 60 degrees apart: distances 1, 0, 2 and 1/2.
    teacher = np.zeros((1, 2, 2, 2))
    student = np.zeros((1, 2, 2, 2))
    teacher[0, :, 0, 0], student[0, :, 0, 0] = (1, 0), (0, 5)
    teacher[0, :, 0, 1], student[0, :, 0, 1] = (3, 4), (6, 8)
    teacher[0, :, 1, 0], student[0, :, 1, 0] = (1, 1), (-2, -2)
    teacher[0, :, 1, 1], student[0, :, 1, 1] = (2, 0), (1, 3**0.5)
    np.testing.assert_allclose(cosine_map(teacher, student)[0], [[1, 0], [2, 0.5]], atol=1e-15)
    maps, scores = anomaly_map([teacher], [student], 3, 3, sigma=0.0)
    # With aligned corners, the corners stay and the other pixels are halfway between neighbours.
    np.testing.assert_allclose(maps[0, 0], [[1, 0.5, 0], [1.5, 0.875, 0.25], [2, 1.25, 0.5]], atol=1e-15)
    assert scores[0] == pytest.approx(2.0)
    weighted, _ = anomaly_map([teacher, teacher], [student, student], 3, 3, sigma=0.0, weights=(2.0, 0.5))
    np.testing.assert_allclose(weighted, 2.5 * maps, atol=1e-15)
    doubled, _ = anomaly_map([teacher, teacher], [student, student], 3, 3, "multiply", 0.0)
    np.testing.assert_allclose(doubled, maps**2, atol=1e-15)


def test_zero_vector_is_a_distance_of_one():
    t = np.zeros((1, 4, 2, 2), np.float32)
    s = np.ones((1, 4, 2, 2), np.float32)
    np.testing.assert_array_equal(cosine_map(t, s), np.ones((1, 2, 2)))
    np.testing.assert_array_equal(cosine_map(t, t), np.ones((1, 2, 2)))


def test_tiny_vectors_are_divided_by_epsilon():
    # |t| = |s| = 1e-9 is under 1e-8, so the cosine is 1e-18 / 1e-16.
    tiny = np.full((1, 1, 1, 1), 1e-9)
    assert cosine_map(tiny, tiny)[0, 0, 0] == pytest.approx(1 - 1e-2)


def test_half_precision_does_not_overflow():
    # The largest FP16 value squared is far beyond FP16.
    big = np.full((1, 64, 2, 2), 65504, np.float16)
    np.testing.assert_allclose(cosine_map(big, big), 0.0, atol=1e-12)
    np.testing.assert_allclose(cosine_map(big, -big), 2.0, atol=1e-12)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(
    ("size_out", "size_in"), [(256, 64), (97, 13), (5, 9), (1, 4), (7, 1), (6, 6), (2, 3)]
)
def test_bilinear_matrix_is_torch_interpolate(size_out, size_in, align_corners):
    column = np.random.default_rng(2).standard_normal((size_in, 3))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(column)[None, None], size=(size_out, 3), mode="bilinear", align_corners=align_corners
    )
    matrix = bilinear_matrix(size_out, size_in, align_corners)
    np.testing.assert_allclose(matrix @ column, expected[0, 0].numpy(), atol=1e-13)
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0)


# Sizes 3 and 1 are much smaller than the kernel, so the border is mirrored repeatedly.
@pytest.mark.parametrize("sigma", [0.0, 0.1, 0.5, 1.3, 4.0])
@pytest.mark.parametrize("size", [256, 97, 16, 3, 1])
def test_gaussian_matrix_is_scipy_gaussian_filter(size, sigma):
    column = np.random.default_rng(3).standard_normal(size)
    expected = scipy.ndimage.gaussian_filter1d(column, sigma, mode="reflect") if sigma else column
    np.testing.assert_allclose(gaussian_matrix(size, sigma) @ column, expected, atol=1e-13)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("fusion", ["add", "multiply"])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_matrix_form_agrees_with_the_reference(height, width, fusion, align_corners):
    rng = np.random.default_rng(4)
    shapes = pyramid(height, width, n=1)
    teacher, student = features(rng, shapes), features(rng, shapes)
    expected, _ = anomaly_map(teacher, student, height, width, fusion, 4.0, align_corners)
    rows, columns = gaussian_matrix(height, 4.0), gaussian_matrix(width, 4.0)
    total = None
    for t, s in zip(teacher, student, strict=True):
        small = cosine_map(t, s)[0]
        down = bilinear_matrix(height, small.shape[0], align_corners)
        across = bilinear_matrix(width, small.shape[1], align_corners)
        if fusion == "add":
            scale = (rows @ down) @ small @ (columns @ across).T
            total = scale if total is None else total + scale
        else:
            scale = down @ small @ across.T
            total = scale if total is None else total * scale
    result = total if fusion == "add" else rows @ total @ columns.T
    np.testing.assert_allclose(result, expected[0, 0], atol=1e-12)


def test_invalid_shapes_and_values_are_refused():
    one, two = np.ones((1, 2, 3, 3)), np.ones((2, 2, 3, 3))
    with pytest.raises(ValueError, match="0 for 0"):
        anomaly_map([], [], 4, 4)
    with pytest.raises(ValueError, match="1 for 2"):
        anomaly_map([one, one], [one], 4, 4)
    with pytest.raises(ValueError, match=r"\[1, 2\]"):
        anomaly_map([one, two], [one, two], 4, 4)
    for t, s in ((one, two), (one[0], one[0])):
        with pytest.raises(ValueError, match=re.escape(f"{t.shape} and {s.shape}")):
            cosine_map(t, s)
    with pytest.raises(ValueError, match="mean"):
        anomaly_map([one], [one], 4, 4, fusion="mean")
    with pytest.raises(ValueError, match="0 from 3"):
        bilinear_matrix(0, 3)
    with pytest.raises(ValueError, match=r"\b0\b"):
        gaussian_matrix(0, 1.0)
    for sigma in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=str(sigma)):
            gaussian_matrix(4, sigma)
