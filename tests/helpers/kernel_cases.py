"""The cases that the CUDA kernels are held to: on the host, on a GPU, and by every mutant.

Tolerance: a cosine map is off by float32's rounding of sums of up to 2048 products, split into chains of at most a
hundred or so, an error of a few 1e-6 at most; adding up to four scales of at most 2 each, and a Gaussian whose weights
are good to 1e-6, leaves it under 2e-5. What one lost, doubled or misplaced term does is far above that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgead.imaging.anomaly_map import anomaly_map
from edgead.types import Fusion

TOLERANCE = 2e-5

Features = list[npt.NDArray[np.float32]]
Run = Callable[..., tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]


@dataclass(frozen=True, slots=True)
class Case:
    """One call of the operator. `make`: what the features hold, `batch` images of (channels, height, width)."""

    name: str
    shapes: tuple[tuple[int, int, int], ...]
    size: tuple[int, int]
    fusion: Fusion = "add"
    sigma: float = 4.0
    align_corners: bool = True
    weights: tuple[float, ...] = ()
    batch: int = 1
    make: str = "normal"
    multiprocessors: int = 16
    layouts: tuple[str, ...] = field(default=("float", "half", "half8"))

    @property
    def attributes(self) -> tuple[int, int, Fusion, float, bool, tuple[float, ...]]:
        """Those of HeadSpec, in its order."""
        return (*self.size, self.fusion, self.sigma, self.align_corners, self.weights)


PYRAMID = ((24, 16, 12), (40, 8, 6), (112, 4, 3))
CASES = [
    Case("zero vectors", PYRAMID[:2], (24, 24), sigma=0.0, make="zeros", batch=2),
    Case("the largest halves", PYRAMID[:2], (24, 24), sigma=0.5, make="largest"),
    Case("subnormal halves", PYRAMID[:2], (24, 24), sigma=0.5, make="subnormal"),
    Case("norms below epsilon", PYRAMID[:2], (24, 24), sigma=0.5, make="tiny", layouts=("float",)),
    Case("large floats", PYRAMID[:2], (24, 24), sigma=0.5, make="large", layouts=("float",)),
    Case("teacher and student nearly equal", PYRAMID, (48, 48), make="near", batch=2),
    Case("teacher and student opposite", PYRAMID, (48, 48), make="opposite"),
    Case("maps around zero", ((3, 1, 1),), (1, 1), sigma=0.0, make="equal", batch=64),
    Case("one scale, one channel, one pixel", ((1, 1, 1),), (1, 1)),
    Case("one channel", ((1, 5, 7),), (9, 11), sigma=1.9),
    Case("positions in 16 bytes", ((3, 4, 8),), (33, 65), sigma=0.5),
    Case("odd positions", ((5, 7, 9), (6, 3, 5)), (35, 31), sigma=1.0),
    Case("2048 channels", ((2048, 3, 5),), (6, 10), sigma=0.0),
    Case("2048 channels, positions in 16 bytes", ((2048, 4, 4),), (16, 16), multiprocessors=132),
    Case("wide lanes", ((9, 24, 24),), (24, 24), sigma=0.0, multiprocessors=1),
    Case("three scales", PYRAMID, (64, 48)),
    Case("three scales on a large device", PYRAMID, (64, 48), multiprocessors=132, batch=2),
    Case("batch of 5", PYRAMID, (40, 50), batch=5, multiprocessors=8),
    Case("batch of 3, odd", ((7, 5, 3), (12, 3, 3)), (17, 41), batch=3, align_corners=False),
    Case("four scales", (*PYRAMID, (17, 2, 2)), (37, 67), batch=2, sigma=2.0),
    Case("four scales multiplied", (*PYRAMID, (17, 2, 2)), (37, 67), "multiply", batch=2, sigma=2.0),
    Case("four weights", (*PYRAMID, (17, 2, 2)), (37, 67), weights=(0.125, 0.5, 1.5, 3.0), batch=2),
    Case("two weights, multiplied", PYRAMID[:2], (33, 32), "multiply", weights=(0.75, 2.0)),
    Case("two scales multiplied, no smoothing", PYRAMID[:2], (33, 32), "multiply", sigma=0.0),
    Case("multiplied, half-pixel corners", PYRAMID, (64, 48), "multiply", align_corners=False),
    Case("half-pixel corners", PYRAMID, (64, 48), align_corners=False),
    Case("half-pixel corners, downwards", ((3, 40, 33),), (16, 13), sigma=0.0, align_corners=False),
    Case("aligned corners, downwards", ((3, 40, 33),), (16, 13), sigma=0.0),
    Case("as large as the map", ((4, 33, 34),), (33, 34), sigma=0.0),
    Case("a map of one row", ((4, 3, 9),), (1, 70), sigma=1.0),
    Case("a map of one column, half-pixel corners", ((4, 9, 3),), (70, 1), sigma=1.0, align_corners=False),
    Case("sigma with a radius of 0", PYRAMID[:1], (20, 20), sigma=0.1),
    Case("sigma with a radius of 1", PYRAMID[:1], (33, 20), sigma=0.125),
    Case("sigma larger than the image", ((8, 6, 6), (4, 3, 3)), (20, 12), sigma=32.0),
    Case("sigma as large as the image, multiplied", ((8, 6, 6), (4, 3, 3)), (9, 40), "multiply", sigma=9.0),
    Case("channels one above a group", ((9, 4, 4), (17, 2, 2)), (12, 12), sigma=0.5),
    Case("channels one below a group", ((7, 4, 4), (255, 2, 2)), (12, 12), sigma=0.5),
    Case("many groups of channels", ((520, 3, 3), (1030, 2, 2)), (8, 8), sigma=0.5, multiprocessors=132),
]


def features(case: Case) -> tuple[Features, Features]:
    """Teacher and student of a case, (N, C_k, H_k, W_k) float32; halves, unless the case is of floats alone."""
    rng = np.random.default_rng(len(case.name))
    shapes = [(case.batch, *shape) for shape in case.shapes]
    t, s = ([rng.standard_normal(shape) for shape in shapes] for _ in range(2))
    if case.make == "zeros":
        for teacher, student in zip(t, s, strict=True):
            teacher[:, :, ::2] = 0
            student[:, :, :, ::3] = 0
    elif case.make == "largest":
        t, s = ([65504 * np.sign(x) for x in side] for side in (t, s))
    elif case.make == "subnormal":
        t, s = ([2.0**-24 * np.rint(3 * x) for x in side] for side in (t, s))
    elif case.make == "tiny":
        t = [1e-9 * x for x in t]
        s = [x + 1e9 * y for x, y in zip(s, t, strict=True)]
    elif case.make == "large":
        t, s = ([1e17 * x for x in side] for side in (t, s))
    elif case.make == "near":
        s = [x + 0.02 * y for x, y in zip(t, s, strict=True)]
    elif case.make == "opposite":
        s = [-2 * x for x in t]
    elif case.make == "equal":
        s = t
    dtype = np.float32 if case.layouts == ("float",) else np.float16
    t32, s32 = ([x.astype(dtype).astype(np.float32) for x in side] for side in (t, s))
    return t32, s32


def laid_out(feature: npt.NDArray[Any], layout: str) -> npt.NDArray[Any]:
    """A flat copy of (N, C, H, W) as the layout has it; what pads the channels is NaN."""
    values = feature.astype(np.float32 if layout == "float" else np.float16)
    if layout == "half8":
        n, channels, height, width = values.shape
        padded = np.full((n, height, width, -(-channels // 8) * 8), np.nan, np.float16)
        padded[..., :channels] = values.transpose(0, 2, 3, 1)
        values = padded
    return values.ravel()


def check(case: Case, layout: str, run: Run, **options: Any) -> bytes:
    """Hold one call to the oracle. Returns the bits of map and score."""
    teacher, student = features(case)
    arguments = (teacher, student, *case.attributes)
    expected, _ = anomaly_map(*arguments)
    maps, scores = run(layout, *arguments, **options)
    assert maps.shape == expected.shape
    # Not a number compares as different, so this holds for poison too.
    worst = np.abs(maps - expected).max()
    assert worst <= TOLERANCE, f"{case.name}, {layout}: off by {worst}"
    np.testing.assert_array_equal(scores, maps.max(axis=(1, 2, 3)), err_msg=f"{case.name}, {layout}: score")
    return maps.tobytes() + scores.tobytes()


def cases_with_layouts() -> Iterator[tuple[Case, str]]:
    for case in CASES:
        for layout in case.layouts:
            yield case, layout
