"""The anomaly map on a GPU beside the least it can take, and beside the standard head.

The least is every byte of the features read once, at the speed of a copy measured in the same process. Features are
`warm`, as right after the network that made them (in the cache as far as they fit), or `cold`, in turn from as many
sets as the cache cannot hold. Replayed as a CUDA graph of many runs, so that no launch from Python is in the figure.

On an idle GPU: ``pytest benchmarks/gpu``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from edgead.models.components.head import AnomalyMapHead
from edgead.plugin.kernels import AnomalyMapKernels
from edgead.plugin.launches import Buffers, Format, workspace_bytes
from edgead.types import HeadSpec

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs an NVIDIA GPU: torch finds no CUDA device"
)

SPEC = HeadSpec(256, 256)
TEACHERS = {
    "wide_resnet50_2": [(256, 64), (512, 32), (1024, 16)],
    "tf_efficientnet_lite0": [(24, 64), (40, 32), (112, 16)],
}
LARGER_THAN_A_CACHE = 256 * 2**20


@pytest.fixture(scope="module")
def copied_bytes_a_second() -> float:
    """Bytes that a copy within the GPU's memory reads and writes."""
    source = torch.zeros(LARGER_THAN_A_CACHE, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * LARGER_THAN_A_CACHE / seconds_a_run(lambda _: target.copy_(source))


def seconds_a_run(work: Callable[[int], object], runs: int = 50) -> float:
    """The median over 20 replays of a graph of so many runs."""
    # A first run outside, because libraries allocate in theirs.
    work(0)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(runs):
            work(i)
    seconds = []
    for _ in range(20):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        seconds.append(begin.elapsed_time(end) / 1e3 / runs)
    return float(np.median(seconds))


@pytest.mark.parametrize("where", ["warm", "cold"])
@pytest.mark.parametrize("batch", [1, 32])
@pytest.mark.parametrize("layout", ["float", "half", "half8"])
@pytest.mark.parametrize("teacher", TEACHERS)
def test_anomaly_map(
    benchmark: BenchmarkFixture,
    copied_bytes_a_second: float,
    teacher: str,
    layout: Format,
    batch: int,
    where: str,
) -> None:
    torch.manual_seed(0)
    dtype = torch.float32 if layout == "float" else torch.float16
    shapes = [(batch, channels, size, size) for channels, size in TEACHERS[teacher]]
    feature_bytes = 2 * sum(int(np.prod(shape)) for shape in shapes) * dtype.itemsize
    sets = 1 if where == "warm" else -(-LARGER_THAN_A_CACHE // feature_bytes) + 1
    # All channels are multiples of 8, so the layout changes addresses and no byte: any numbers serve.
    features = [
        [[torch.randn(shape, device="cuda").to(dtype) for shape in shapes] for _ in range(2)]
        for _ in range(sets)
    ]
    workspace = torch.empty(workspace_bytes(shapes), dtype=torch.uint8, device="cuda")
    maps, scores = torch.empty((batch, 1, 256, 256), device="cuda"), torch.empty(batch, device="cuda")
    kernels = AnomalyMapKernels()
    plans = [
        kernels.plan(
            layout,
            shapes,
            SPEC,
            Buffers(
                *([feature.data_ptr() for feature in side] for side in sides),
                *(tensor.data_ptr() for tensor in (workspace, maps, scores)),
            ),
        )
        for sides in features
    ]
    runs = max(50, sets)
    head = AnomalyMapHead(SPEC, [shape[2:] for shape in shapes]).cuda()
    stream = torch.cuda.current_stream

    def ours(i: int) -> None:
        kernels.enqueue(plans[i % sets], stream().cuda_stream)

    seconds = benchmark.pedantic(seconds_a_run, (ours, runs), rounds=5)
    cosine_alone = seconds_a_run(lambda i: kernels.enqueue(plans[i % sets][:1], stream().cuda_stream), runs)
    with torch.inference_mode():
        standard = seconds_a_run(lambda i: head(*features[i % sets]), runs)
    least = feature_bytes / copied_bytes_a_second
    benchmark.extra_info |= {
        "device": torch.cuda.get_device_name(),
        "feature_bytes": feature_bytes,
        "copy_gb_a_second": round(copied_bytes_a_second / 1e9, 1),
        "least_us": round(least * 1e6, 2),
        "both_launches_us": round(seconds * 1e6, 2),
        "cosine_launch_us": round(cosine_alone * 1e6, 2),
        "cosine_share_of_copy_speed": round(least / cosine_alone, 3),
        "standard_head_us": round(standard * 1e6, 2),
    }
    assert np.isfinite(scores.cpu().numpy()).all()
