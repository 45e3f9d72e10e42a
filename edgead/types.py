"""Data types that the packages of edgead exchange; they need NumPy only.

A source yields a `Frame`, `edgead.imaging.preprocess` converts its image into a batch, a session converts the batch
into a `Prediction`, and `edgead.streaming.verdict` converts the prediction into a `Verdict`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from typing_extensions import Self

UInt8Array: TypeAlias = npt.NDArray[np.uint8]
Float32Array: TypeAlias = npt.NDArray[np.float32]
Float64Array: TypeAlias = npt.NDArray[np.float64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
Fusion: TypeAlias = Literal["add", "multiply"]
Quantize: TypeAlias = Literal["all", "student"]
Backend: TypeAlias = Literal[
    "onnxruntime", "openvino", "openvino-gpu", "openvino-npu", "tensorrt", "tensorrt-rtx"
]
BACKENDS: tuple[Backend, ...] = get_args(Backend)


class Closing(ABC):
    """Base of objects that a `with` block closes at its end: sessions, sources and sinks.

    Example:
        >>> class Door(Closing):
        ...     def close(self) -> None:
        ...         print("closed")
        >>> with Door():
        ...     print("open")
        open
        closed
    """

    @abstractmethod
    def close(self) -> None:
        """Release all resources; may be called twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Frame:
    """One image from a source.

    Attributes:
        image: Image, (H, W, 3) uint8 RGB, any size.
        index: Index in the source's order: 0, 1, 2, ..., with gaps where frames were dropped.
        captured_at_ns: Time of capture in nanoseconds, on the clock of `time.monotonic_ns`; for files the time at
            which they were read.
        source: Address of the source, for folders the path of the image file.

    Raises:
        ValueError: The image has another shape or dtype.
    """

    image: UInt8Array
    index: int
    captured_at_ns: int
    source: str

    def __post_init__(self) -> None:
        if self.image.dtype != np.uint8 or self.image.ndim != 3 or self.image.shape[2] != 3:
            raise ValueError(
                f"a frame's image is {self.image.shape} {self.image.dtype}, not (H, W, 3) uint8 RGB"
            )


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Description of a graph's input or output.

    Attributes:
        name: Name of the tensor.
        dtype: Name of the NumPy dtype, such as "float32".
        shape: Size of each dimension; None if the dimension is free.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Prediction:
    """Output of every graph for a batch of N images: numbers only, no decision.

    Attributes:
        anomaly_map: Anomaly maps, (N, 1, H, W) float32.
        anomaly_score: Anomaly scores, (N,) float32: the maximum of each map.
    """

    anomaly_map: Float32Array
    anomaly_score: Float32Array


@dataclass(frozen=True, slots=True)
class Region:
    """A connected region of an anomaly map above the threshold, in pixels of the *image* (not of the map).

    Attributes:
        x_px: Left edge of the bounding box.
        y_px: Upper edge of the bounding box.
        width_px: Width of the bounding box.
        height_px: Height of the bounding box.
        area_px: Area in image pixels, 1 or more; holes are not counted.
        highest_value: Highest value of the map in the region.
        polygon: Outline as points (x, y) on corners of pixels, from (0, 0) to (image width, image height).
    """

    x_px: int
    y_px: int
    width_px: int
    height_px: int
    area_px: int
    highest_value: float
    polygon: tuple[tuple[int, int], ...]

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The bounding box: x, y, width, height."""
        return self.x_px, self.y_px, self.width_px, self.height_px


@dataclass(frozen=True, slots=True)
class FrameScore:
    """Score of one frame of a part.

    Attributes:
        frame_index: Index of the frame in its source.
        anomaly_score: Score of the frame.
        is_anomalous: Whether the frame by itself is rejected.
    """

    frame_index: int
    anomaly_score: float
    is_anomalous: bool


@dataclass(frozen=True, slots=True)
class TriggeredPart:
    """A part that a trigger has announced.

    Attributes:
        number: Number of the trigger in its stream: 1, 2, 3, ...
        part_id: Text that came with the trigger, such as a serial number; None if none came.
        frames: Scores of the part's frames, in the order of capture.
    """

    number: int
    part_id: str | None
    frames: tuple[FrameScore, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision on one frame, or on one part with several frames, of which this is the deciding one.

    Attributes:
        frame_index: Index of the frame in its source.
        anomaly_score: Score of the frame.
        threshold: Decision threshold that was used: the bundle's for the part, or the one that the user gave.
        is_anomalous: Whether `anomaly_score > threshold`.
        latency_ms: Time from the frame in hand to the decision, in milliseconds; with a trigger, the time from the
            trigger to the decision.
        regions: Regions of the map above the threshold, the largest first; empty if the frame is good.
        part: Name of the part that the threshold belongs to, None if it is unknown.
        age_ms: Time from the capture of the image to the decision, in milliseconds; None for files.
        trigger: Part that a trigger has announced; None without a trigger.
    """

    frame_index: int
    anomaly_score: float
    threshold: float
    is_anomalous: bool
    latency_ms: float
    regions: tuple[Region, ...]
    part: str | None = None
    age_ms: float | None = None
    trigger: TriggeredPart | None = None

    @property
    def share_of_threshold(self) -> float | None:
        """The score divided by the threshold: above 1 is anomalous; None if the threshold is not above 0."""
        return share_of_threshold(self.anomaly_score, self.threshold)


def share_of_threshold(anomaly_score: float, threshold: float) -> float | None:
    """Return a score as a share of a threshold, which makes scores of different parts and bundles comparable.

    Args:
        anomaly_score: Anomaly score of an image.
        threshold: Decision threshold.

    Returns:
        The score divided by the threshold; None if the threshold is not above 0 or the share is not a finite number.
    """
    share = anomaly_score / threshold if threshold > 0.0 else math.inf
    return share if math.isfinite(share) else None


@dataclass(frozen=True, slots=True)
class HeadSpec:
    """Attributes of the anomaly-map operator, which combines features of several scales into one map.

    Attributes:
        height: Height of the map in pixels, 1 or more.
        width: Width of the map in pixels, 1 or more.
        fusion: Combination of the scales: "add" for the sum, "multiply" for the product.
        sigma: Standard deviation of the Gaussian, in pixels of the map; 0 for no smoothing.
        align_corners: Alignment of the bilinear resize, as `align_corners` of `torch.nn.functional.interpolate`.
        weights: Factor of each scale's cosine map, above 0; empty for factors of 1.

    Raises:
        ValueError: An attribute is out of range.
    """

    height: int
    width: int
    fusion: Fusion = "add"
    sigma: float = 4.0
    align_corners: bool = True
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ValueError(f"the map's size is at least 1x1, not {self.height}x{self.width}")
        if self.fusion not in ("add", "multiply"):
            raise ValueError(f"fusion is 'add' or 'multiply', not {self.fusion!r}")
        if not (math.isfinite(self.sigma) and self.sigma >= 0.0):
            raise ValueError(f"sigma is a finite number of pixels, 0 or more, not {self.sigma}")
        if not all(math.isfinite(weight) and weight > 0.0 for weight in self.weights):
            raise ValueError(f"weights are finite numbers above 0, not {self.weights}")

    def weights_of(self, scales: int) -> tuple[float, ...]:
        """Return the factor of each scale.

        Args:
            scales: Number of scales.

        Raises:
            ValueError: There are weights for another number of scales.
        """
        if self.weights and len(self.weights) != scales:
            raise ValueError(f"{len(self.weights)} weights do not fit {scales} scales")
        return self.weights or (1.0,) * scales
