"""The CUDA kernels and their launcher against the oracle, run thread by thread on the host."""

from __future__ import annotations

import ctypes
import shutil

import numpy as np
import pytest

from edgead.imaging.anomaly_map import cosine_map
from tests.helpers.host_kernels import FORMATS, HostKernels, LaunchError, Shape, Spec, compile_host
from tests.helpers.kernel_cases import CASES, cases_with_layouts, check, features

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++: apt-get install g++")

PAIRS = list(cases_with_layouts())
BY_NAME = {case.name: case for case in CASES}
FORWARDS, BACKWARDS, MIXED = 0, 1, 5


@pytest.fixture(scope="session")
def kernels(tmp_path_factory):
    return HostKernels(compile_host(tmp_path_factory.mktemp("host_kernels")))


@pytest.mark.parametrize(("case", "layout"), PAIRS, ids=[f"{case.name}-{layout}" for case, layout in PAIRS])
def test_agrees_with_the_oracle_in_any_order_of_threads(kernels, case, layout):
    bits = {
        check(case, layout, kernels, multiprocessors=case.multiprocessors, turns=turns)
        for turns in (FORWARDS, BACKWARDS, MIXED)
    }
    assert len(bits) == 1, "the result depends on the order of threads"


# The number of multiprocessors determines how many bytes neighbouring threads read together, from 32 to 512.
@pytest.mark.parametrize("multiprocessors", [1, 2, 4, 8, 16, 64])
@pytest.mark.parametrize("layout", FORMATS)
def test_every_cut_into_blocks_agrees(kernels, layout, multiprocessors):
    check(BY_NAME["batch of 5"], layout, kernels, multiprocessors=multiprocessors)


@pytest.mark.parametrize("layout", ["float", "half"])
def test_features_off_alignment_agree(kernels, layout):
    check(BY_NAME["three scales"], layout, kernels, shift=1)


def test_groups_of_eight_off_alignment_are_refused(kernels):
    with pytest.raises(LaunchError) as refused:
        check(BY_NAME["three scales"], "half8", kernels, shift=1)
    assert refused.value.status == 716  # cudaErrorMisalignedAddress


@pytest.mark.parametrize("layout", FORMATS)
def test_zero_vector_is_a_distance_of_exactly_one(kernels, layout):
    t = np.zeros((1, 24, 4, 4), np.float32)
    for s in (t, np.ones_like(t)):
        maps, scores = kernels(layout, [t], [s], 4, 4, sigma=0.0)
        np.testing.assert_array_equal(maps, 1.0)
        np.testing.assert_array_equal(scores, 1.0)


def test_norms_are_clamped_one_by_one(kernels):
    # |t| is 1e-9, under epsilon, and |s| is 1: the cosine is 1e-9 / 1e-8.
    t, s = np.full((1, 1, 1, 1), 1e-9, np.float32), np.ones((1, 1, 1, 1), np.float32)
    maps, _ = kernels("float", [t], [s], 1, 1, sigma=0.0)
    assert maps.item() == pytest.approx(0.9, abs=1e-6)


def test_scores_below_zero_are_maxima_too(kernels):
    # Rounding puts some distances of equal vectors just under zero; times a positive scale they make a map of many
    # negative values, whose bits run the other way round. More than one tile, so that the blocks compete.
    rng = np.random.default_rng(3)
    t = rng.standard_normal((1, 5, 40, 40)).astype(np.float32)
    maps, _ = kernels("float", [t], [t], 40, 40, sigma=0.0)
    y, x = np.argwhere(maps[0, 0] < 0)[0]
    under = np.tile(t[:, :, y : y + 1, x : x + 1], (1, 1, 40, 40))
    other, student = (rng.standard_normal((1, 5, 40, 40)).astype(np.float32) for _ in range(2))
    for turns in (FORWARDS, BACKWARDS):
        maps, scores = kernels(
            "float", [under, other], [under, student], 40, 40, "multiply", sigma=0.0, turns=turns
        )
        assert maps.max() < 0
        assert len(np.unique(maps)) > 100
        assert scores.item() == maps.max()


@pytest.mark.parametrize("layout", FORMATS)
def test_not_a_number_reaches_the_score(kernels, layout):
    case = BY_NAME["batch of 5"]
    teacher, student = features(case)
    student[1][3, 0, 0, 0] = np.nan
    _, scores = kernels(layout, teacher, student, *case.size)
    np.testing.assert_array_equal(np.isnan(scores), [False, False, False, True, False])


def test_cosine_maps_are_exact_to_float32(kernels):
    # The map of the features' own size without smoothing is the first launch alone.
    t, s = (np.random.default_rng(i).standard_normal((2, 300, 8, 8)).astype(np.float16) for i in range(2))
    for layout in FORMATS:
        maps, _ = kernels(layout, [t], [s], 8, 8, sigma=0.0)
        np.testing.assert_allclose(maps[:, 0], cosine_map(t, s), atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"height": 0},
        {"width": 16385},
        {"sigma": -1.0},
        {"sigma": 32.1},
        {"sigma": float("nan")},
        {"sigma": float("inf")},
        {"features": 5},
        {"features": 0},
        {"align_corners": 2},
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(kernels, change):
    arguments = {"height": 8, "width": 8, "sigma": 1.0, "align_corners": True} | change
    t = [np.ones((1, 2, 3, 3), np.float32)] * arguments.pop("features", 1)
    library = ctypes.CDLL(str(kernels.library))
    if t and len(t) < 5:
        with pytest.raises(LaunchError) as refused:
            kernels("float", t, t, **arguments)
        assert refused.value.status == 1  # cudaErrorInvalidValue
    else:
        shape = Shape(1, 8, 8, len(t), (2,) * 4, (3,) * 4, (3,) * 4)
        pointers = (ctypes.c_void_p * 5)(*[t[0].ctypes.data if t else 16] * 5)
        out = ctypes.c_void_p(16)
        spec = Spec(0, 1.0, 1)
        status = library.run(
            0, ctypes.byref(shape), ctypes.byref(spec), pointers, pointers, out, out, out, 1, 0, -1
        )
        assert status == 1
    assert library.launch_count() == 0


@pytest.mark.parametrize("failing", [0, 1])
def test_a_launch_that_fails_is_given_back_and_leaves_no_error(kernels, failing):
    t = [np.ones((1, 2, 3, 3), np.float32)]
    with pytest.raises(LaunchError) as failed:
        kernels("float", t, t, 8, 8, failing_launch=failing)
    library = ctypes.CDLL(str(kernels.library))
    assert failed.value.status == 719  # cudaErrorLaunchFailure
    assert library.launch_count() == failing + 1
    assert library.error_left() == 0


def test_two_launches_and_a_small_workspace(kernels):
    teacher, student = features(BY_NAME["batch of 5"])
    kernels("half", teacher, student, 40, 50)
    library = ctypes.CDLL(str(kernels.library))
    assert library.launch_count() == 2
    shape = Shape(5, 40, 50, 3, (24, 40, 112, 0), (16, 8, 4, 0), (12, 6, 3, 0))
    library.workspace_bytes.restype = ctypes.c_size_t
    spec = Spec(0, 4.0, 1)
    assert library.workspace_bytes(ctypes.byref(shape), ctypes.byref(spec)) == 4 * 5 * (192 + 48 + 12)
