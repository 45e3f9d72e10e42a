"""Pixel metrics of any number of anomaly maps in constant memory.

The values of all pixels are counted in bins, for good and for defective pixels, and for defective ones also with the
weight of their region. The bins are the float32 numbers without the last 10 bits of their mantissa, so two values are
told apart if they differ by more than 1 in 8192. Values of one bin count as ties, as half of a false decision. So an
area under a curve is off by at most half of the share of such pairs of a good and a defective pixel,
`PixelHistogram.error`.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from edgead.types import BoolArray, Float32Array, Float64Array

_SHIFT = 10
_BINS = 2 ** (32 - _SHIFT)


class PixelHistogram:
    """Counts of the pixels of maps, and the metrics that follow from them."""

    def __init__(self) -> None:
        self._good, self._defect = (np.zeros(_BINS, np.int64) for _ in range(2))
        self._weights = np.zeros(_BINS)
        self._regions = 0

    def add(self, anomaly_map: Float32Array, mask: BoolArray, inside: BoolArray | None = None) -> None:
        """Count the pixels of one image.

        Args:
            anomaly_map: Map, (H, W) float32, finite.
            mask: Pixels of defects, (H, W) bool.
            inside: Pixels that count, (H, W) bool; None for all.

        Raises:
            ValueError: The shapes differ, or a value is not finite.
        """
        if anomaly_map.ndim != 2 or anomaly_map.shape != mask.shape:
            raise ValueError(f"one label per value of a map (H, W), not {mask.shape} for {anomaly_map.shape}")
        if not np.isfinite(anomaly_map).all():
            raise ValueError("scores are finite numbers")
        bins = _bins_of(anomaly_map)
        defect = mask if inside is None else mask & inside
        np.add.at(self._good, bins.ravel() if inside is None else bins[inside], 1)
        if defect.any():
            np.subtract.at(self._good, bins[defect], 1)
            np.add.at(self._defect, bins[defect], 1)
            count, regions = cv2.connectedComponents(defect.astype(np.uint8), connectivity=8)
            of_pixel = regions[defect]
            # The weights of a region sum to 1, so small and large regions count alike.
            np.add.at(self._weights, bins[defect], 1.0 / np.bincount(of_pixel)[of_pixel])
            self._regions += count - 1

    @property
    def good(self) -> int:
        """Number of good pixels."""
        return int(self._good.sum())

    @property
    def defect(self) -> int:
        """Number of defective pixels."""
        return int(self._defect.sum())

    @property
    def error(self) -> float:
        """Largest error of `auroc` by the width of the bins."""
        pairs = self._good.astype(np.float64) * self._defect
        return float(pairs.sum() / (2.0 * self.good * self.defect))

    def roc_curve(self) -> tuple[Float64Array, Float64Array]:
        """Compute the corners of the ROC curve: false-positive and true-positive rates, both from 0 to 1."""
        return self._curve(self._defect / self.defect)

    def auroc(self) -> float:
        """Compute the area under the ROC curve, see `edgead.scoring.metrics.auroc`."""
        return _area(*self.roc_curve())

    def average_precision(self) -> float:
        """Compute the average precision, see `edgead.scoring.metrics.average_precision`."""
        true_positives, false_positives = self._counts()
        steps = np.diff(true_positives, prepend=0) / true_positives[-1]
        return float((steps * true_positives / (true_positives + false_positives)).sum())

    def f1_max(self) -> float:
        """Compute the largest F1 score over all thresholds."""
        true_positives, false_positives = self._counts()
        return float((2 * true_positives / (true_positives + false_positives + true_positives[-1])).max())

    def dice(self, threshold: float) -> float:
        """Compute the Dice coefficient 2 TP / (2 TP + FP + FN) over all pixels of all images together.

        Args:
            threshold: Threshold of a pixel. A pixel counts as a detected defect if its bin is higher.

        Raises:
            ValueError: There are neither defects nor detected defects.
        """
        above = int(_bins_of(np.array([threshold], np.float32))[0]) + 1
        found, false = int(self._defect[above:].sum()), int(self._good[above:].sum())
        if found + false + self.defect == 0:
            raise ValueError(f"no pixel is a defect, and no pixel is above {threshold}")
        return 2 * found / (found + false + self.defect)

    def aupro(self, limit: float = 0.3) -> float:
        """Compute the area under the per-region-overlap curve up to a false-positive rate, divided by that rate.

        For each threshold, the overlap of a defect region is the share of its pixels above the threshold. The curve's
        value is the mean overlap of all 8-connected regions of all images, with equal weight for small and large
        regions. The false-positive rate refers to all defect-free pixels. A straight line cuts the curve at `limit`.
        Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 2021, section 5.1.

        Args:
            limit: Largest false-positive rate, above 0 and at most 1.

        Returns:
            The normalised area, 0 to 1.

        Raises:
            ValueError: The limit is out of range.
        """
        if not 0.0 < limit <= 1.0:
            raise ValueError(f"the limit of the false-positive rate is above 0 and at most 1, not {limit}")
        x, y = self._curve(self._weights / self._regions)
        end = int(np.searchsorted(x, limit, side="right"))
        if end < len(x):
            (x0, x1), (y0, y1) = x[end - 1 : end + 1], y[end - 1 : end + 1]
            x, y = np.append(x[:end], limit), np.append(y[:end], y0 + (y1 - y0) * (limit - x0) / (x1 - x0))
        return _area(x, y) / limit

    def _counts(self) -> tuple[Float64Array, Float64Array]:
        """True and false positives down to each bin with defects, from the highest on."""
        at = np.flatnonzero(self._defect)[::-1]
        true_positives = np.cumsum(self._defect[at])
        false_positives = self.good - np.concatenate([[0], np.cumsum(self._good)])[at]
        return true_positives.astype(np.float64), false_positives.astype(np.float64)

    def _curve(self, gains: Float64Array) -> tuple[Float64Array, Float64Array]:
        """Corners of a curve over the false-positive rate; `gains` of all bins sum to 1."""
        at = np.flatnonzero(self._good + self._defect)[::-1]
        x = np.concatenate([[0.0], np.cumsum(self._good[at]) / self.good])
        y = np.concatenate([[0.0], np.minimum(np.cumsum(gains[at]), 1.0)])
        return x, y


def _area(x: Float64Array, y: Float64Array) -> float:
    """Area under straight lines between points."""
    return float((np.diff(x) * (y[1:] + y[:-1])).sum() / 2.0)


def _bins_of(values: Float32Array) -> npt.NDArray[np.uint32]:
    """Number of the bin of each value; it rises with the value."""
    # Zero has two signs.
    bits = (np.ascontiguousarray(values, np.float32) + np.float32(0.0)).view(np.uint32)
    # With its sign bit turned, and all bits of negative numbers, the pattern of a number rises with the number.
    turned = bits ^ np.where(bits >> np.uint32(31), np.uint32(0xFFFFFFFF), np.uint32(0x80000000))
    found: npt.NDArray[np.uint32] = turned >> np.uint32(_SHIFT)
    return found
