"""Quantiles of small arrays. Those of NumPy take ten times as long for each image of a camera."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt


def quantile(ordered: npt.NDArray[Any], share: float) -> float:
    """Return a quantile, with linear interpolation.

    Args:
        ordered: Values in rising order, (N,), N >= 1.
        share: Share of the values below the quantile, 0 to 1.

    Example:
        >>> import numpy as np
        >>> quantile(np.array([10, 20, 40]), 0.75)
        30.0
    """
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low]) + (place - low) * (float(ordered[high]) - float(ordered[low]))
