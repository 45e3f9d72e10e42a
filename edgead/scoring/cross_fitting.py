"""Cross-fitted scores: every good image trains the model, and every good image sets the threshold.

A model scores its own training images too low. So the images are divided into folds, and each image is scored by a
model that was fitted without its fold (Stone, "Cross-validatory choice and assessment of statistical predictions",
Journal of the Royal Statistical Society B, 1974). The model that is used is fitted on all images.

A bundle scores images with its own engine, which no fold ever had. So a run keeps the ratio of the cross-fitted score
and the score of the final model for each image, and the score of an engine is multiplied by it. Why a ratio, and what
it does not promise: docs/decisions/0012-cross-fitting.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgead.errors import InputError

FOLDS = 10
"""Number of folds. benchmarks/results/hold_out.md compares 5 and 10."""

ENOUGH_IMAGES = 1000
"""If a part has more images than this and than its false-alarm rate needs, the others only train the model.

A build scores each of the images several times, and its manifest lists them.
"""

LARGEST_RATIO = 1000.0
"""Ratios are between this and its reciprocal. A model that is fitted on enough images has ratios near 1."""

# Scores below this count as equal to it, because a quotient of two roundings means nothing.
SMALLEST_SCORE = 1e-6


def score_ratios(
    cross_fitted: npt.NDArray[np.floating], final: npt.NDArray[np.floating]
) -> npt.NDArray[np.float64]:
    """Compute the factors that turn scores of the final model into cross-fitted scores.

    Args:
        cross_fitted: Scores of images by models without their folds, (N,), finite and 0 or more.
        final: Scores of the same images by the model that was fitted on all of them, (N,).

    Returns:
        Ratios (N,).

    Raises:
        InputError: A ratio is out of range, so that a model without a fold has nothing in common with the final one.
    """
    ratios = np.maximum(np.asarray(cross_fitted, np.float64), SMALLEST_SCORE) / np.maximum(
        np.asarray(final, np.float64), SMALLEST_SCORE
    )
    check_ratios(ratios.tolist(), len(ratios))
    return ratios


def check_ratios(ratios: Sequence[float], count: int) -> None:
    """Check the ratios of a file or of a training.

    Args:
        ratios: Ratio of each image.
        count: Number of images.

    Raises:
        InputError: There is another number of ratios, or a ratio is no number from 0.001 to 1000.
    """
    if len(ratios) != count:
        raise InputError(f"there are {len(ratios)} ratios of scores for {count} images")
    for ratio in ratios:
        # NaN fails the comparison too.
        if type(ratio) not in (int, float) or not 1.0 / LARGEST_RATIO <= ratio <= LARGEST_RATIO:
            raise InputError(
                f"a cross-fitted score is {str(ratio)[:20]} times the score of the final model, not "
                f"{1.0 / LARGEST_RATIO:g} to {LARGEST_RATIO:g} times"
            )
