"""Confidence intervals of shares that are counted on images: Clopper and Pearson, Biometrika 1934.

The interval is exact: whatever the true share is, the interval covers it with at least the given confidence. SciPy
stays out of it, because a device has NumPy only. The incomplete beta function is the continued fraction of Press and
others (2007), section 6.4.
"""

from __future__ import annotations

import math

_STEPS = 10_000
_TINY = 1e-300
_CLOSE = 1e-15


def clopper_pearson(count: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Compute the two-sided Clopper-Pearson interval of a share.

    Args:
        count: Number of images that were counted, 0 to n.
        n: Number of all images, 0 or more.
        confidence: Confidence of the interval, between 0 and 1.

    Returns:
        Lower and upper limit, 0 to 1. Without images the interval is (0, 1).

    Raises:
        ValueError: The counts or the confidence are out of range.

    Example:
        >>> low, high = clopper_pearson(14, 20)
        >>> round(low, 3), round(high, 3)
        (0.457, 0.881)
    """
    if not 0 <= count <= n:
        raise ValueError(f"a count is from 0 to {n}, not {count}")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"the confidence is between 0 and 1, not {confidence}")
    tail = (1.0 - confidence) / 2.0
    # P(Binomial(n, share) >= count) = I_share(count, n - count + 1)
    low = 0.0 if count == 0 else _inverse(tail, count, n - count + 1)
    return low, upper_limit(count, n, 1.0 - tail)


def upper_limit(count: int, n: int, confidence: float) -> float:
    """Compute the one-sided upper Clopper-Pearson limit of a share.

    Args:
        count: Number of images that were counted, 0 to n.
        n: Number of all images.
        confidence: Confidence of the limit, between 0 and 1.

    Returns:
        The limit, 0 to 1.

    Example:
        >>> round(upper_limit(0, 9, 0.95), 3)
        0.283
    """
    return 1.0 if count == n else _inverse(confidence, count + 1, n - count)


def incomplete_beta(x: float, a: float, b: float) -> float:
    """Compute the regularised incomplete beta function I_x(a, b).

    Args:
        x: Upper limit of the integral, 0 to 1.
        a: First parameter, greater than 0.
        b: Second parameter, greater than 0.

    Returns:
        The value, 0 to 1.
    """
    if x <= 0.0 or x >= 1.0:
        return 0.0 if x <= 0.0 else 1.0
    # The fraction converges quickly on this side of the mean only.
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - incomplete_beta(1.0 - x, b, a)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) * _fraction(x, a, b) / a


def _fraction(x: float, a: float, b: float) -> float:
    """Evaluate the continued fraction of the incomplete beta function by the method of Lentz."""
    c, d = 1.0, 1.0 / _away_from_zero(1.0 - (a + b) * x / (a + 1.0))
    result = d
    for m in range(1, _STEPS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1.0 / _away_from_zero(1.0 + term * d)
            c = _away_from_zero(1.0 + term / c)
            result *= c * d
        if abs(c * d - 1.0) < _CLOSE:
            break
    return result


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


def _inverse(share: float, a: float, b: float) -> float:
    """Find x with I_x(a, b) = share by bisection, to the last bits of a float64."""
    low, high = 0.0, 1.0
    for _ in range(100):
        middle = (low + high) / 2.0
        if incomplete_beta(middle, a, b) < share:
            low = middle
        else:
            high = middle
    return (low + high) / 2.0
