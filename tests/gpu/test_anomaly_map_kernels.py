"""The CUDA kernels on a GPU, against the oracle, and in a CUDA graph.

NVIDIA's compute-sanitizer finds races and wrong addresses that do not show in a result:

    compute-sanitizer --tool memcheck python -m pytest tests/gpu/test_anomaly_map_kernels.py
    compute-sanitizer --tool racecheck python -m pytest tests/gpu/test_anomaly_map_kernels.py

and likewise with `--tool initcheck` and `--tool synccheck`.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgead.plugin.kernels import AnomalyMapKernels
from edgead.plugin.launches import Buffers, workspace_bytes
from edgead.types import HeadSpec
from tests.helpers.kernel_cases import CASES, cases_with_layouts, check, features, laid_out

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs an NVIDIA GPU: torch finds no CUDA device"
)

PAIRS = list(cases_with_layouts())
BY_NAME = {case.name: case for case in CASES}


class OnGpu:
    """The operator with its buffers on the GPU; outputs and workspace begin as NaN."""

    def __init__(self, kernels, layout, teacher, student, spec, shift=0):
        def upload(feature):
            values = torch.from_numpy(laid_out(feature, layout))
            # `shift` elements off the alignment.
            buffer = torch.full((len(values) + shift,), torch.nan, dtype=values.dtype, device="cuda")
            buffer[shift:] = values.cuda()
            return buffer[shift:]

        def poisoned(size):
            return torch.full((size,), torch.nan, dtype=torch.float32, device="cuda")

        shapes = [feature.shape for feature in teacher]
        n = len(teacher[0])
        self.kernels = kernels
        self.teacher, self.student = ([upload(feature) for feature in side] for side in (teacher, student))
        self.workspace = poisoned(workspace_bytes(shapes) // 4)
        self.maps, self.scores = poisoned(n * spec.height * spec.width), poisoned(n)
        self.shape = (n, 1, spec.height, spec.width)
        buffers = Buffers(
            [feature.data_ptr() for feature in self.teacher],
            [feature.data_ptr() for feature in self.student],
            *(tensor.data_ptr() for tensor in (self.workspace, self.maps, self.scores)),
        )
        self.planned = kernels.plan(layout, shapes, spec, buffers)
        torch.cuda.synchronize()

    def enqueue(self):
        self.kernels.enqueue(self.planned, torch.cuda.current_stream().cuda_stream)

    def results(self):
        torch.cuda.synchronize()
        return self.maps.cpu().numpy().reshape(self.shape), self.scores.cpu().numpy()


@pytest.fixture(scope="module")
def kernels():
    torch.cuda.init()
    torch.zeros(1, device="cuda")  # makes the device's context current
    return AnomalyMapKernels()


@pytest.fixture
def run(kernels):
    def run_on_gpu(layout, teacher, student, height, width, fusion, sigma, align_corners, weights, shift=0):
        spec = HeadSpec(height, width, fusion, sigma, align_corners, weights)
        on_gpu = OnGpu(kernels, layout, teacher, student, spec, shift)
        on_gpu.enqueue()
        return on_gpu.results()

    return run_on_gpu


@pytest.mark.parametrize(("case", "layout"), PAIRS, ids=[f"{case.name}-{layout}" for case, layout in PAIRS])
def test_agrees_with_the_oracle_and_with_itself(run, case, layout):
    assert len({check(case, layout, run) for _ in range(3)}) == 1


@pytest.mark.parametrize("layout", ["float", "half"])
def test_features_off_alignment_agree(run, layout):
    check(BY_NAME["three scales"], layout, run, shift=1)


@pytest.mark.parametrize("layout", ["float", "half", "half8"])
def test_a_captured_graph_gives_the_same_bits(kernels, run, layout):
    case = BY_NAME["batch of 5"]
    teacher, student = features(case)
    spec = HeadSpec(*case.attributes)
    on_gpu = OnGpu(kernels, layout, teacher, student, spec)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        on_gpu.enqueue()
    attributes = case.attributes
    # The second replay has lower scores than the first, so a score left over from the first would show.
    for other in (student, [t + np.float32(0.01) * s for t, s in zip(teacher, student, strict=True)]):
        for target, feature in zip(on_gpu.student, other, strict=True):
            target.copy_(torch.from_numpy(laid_out(feature, layout)))
        graph.replay()
        maps, scores = on_gpu.results()
        expected_maps, expected_scores = run(layout, teacher, other, *attributes)
        np.testing.assert_array_equal(maps, expected_maps)
        np.testing.assert_array_equal(scores, expected_scores)
