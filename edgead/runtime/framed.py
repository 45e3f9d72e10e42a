"""Inference of images through a view: all tiles of an image go through one session, and their maps are joined."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from edgead.imaging.framing import Framing
from edgead.runtime.base import Session
from edgead.types import Float32Array, Prediction, UInt8Array

BATCH = 8
"""Number of images or tiles that are scored at once. A session with a smaller largest batch splits them itself."""


def infer_rows(session: Session, rows: UInt8Array) -> Prediction:
    """Score any number of images or tiles, `BATCH` at once.

    Args:
        session: Opened session.
        rows: (N, H, W, 3) uint8 RGB at the model's size, N >= 1.

    Returns:
        Maps and scores of all of them.

    Raises:
        BackendError: The inference fails.
    """
    found = [session.infer(rows[start : start + BATCH]) for start in range(0, len(rows), BATCH)]
    if len(found) == 1:
        return found[0]
    return Prediction(
        np.concatenate([one.anomaly_map for one in found]),
        np.concatenate([one.anomaly_score for one in found]),
    )


def infer_images(
    session: Session, images: Sequence[tuple[Framing, UInt8Array]]
) -> Iterator[tuple[np.float32, Float32Array]]:
    """Score images. Images of one row each are scored in one batch, an image of several tiles by itself.

    Args:
        session: Opened session.
        images: Framing and rows of each image, from `edgead.imaging.frame.cut_image`.

    Yields:
        Score and map of each image, see `Framing.join`.

    Raises:
        BackendError: The inference fails.
    """
    if all(len(rows) == 1 for _, rows in images):
        if images:
            yield from join_rows(
                [framing for framing, _ in images],
                # A single one is not copied.
                infer_rows(
                    session,
                    images[0][1] if len(images) == 1 else np.concatenate([rows for _, rows in images]),
                ),
            )
        return
    for framing, rows in images:
        yield framing.join(infer_rows(session, rows))


def infer_frames(session: Session, images: Sequence[tuple[Framing, UInt8Array]]) -> list[Prediction]:
    """Score images, as the stream does.

    Args:
        session: Opened session.
        images: Framing and rows of each image, from `edgead.imaging.frame.cut_image`.

    Returns:
        The prediction for each image: score (1,), and a map (1, 1, h, w) that covers the whole image.

    Raises:
        BackendError: The inference fails.
    """
    found = []
    for (framing, _), (score, joined) in zip(images, infer_images(session, images), strict=True):
        whole = framing.over_image(joined)
        found.append(Prediction(whole[np.newaxis, np.newaxis], np.array([score], np.float32)))
    return found


def join_rows(
    framings: Iterable[Framing], prediction: Prediction
) -> Iterator[tuple[np.float32, Float32Array]]:
    """Join what a session gives for the rows of several images.

    Args:
        framings: Framings of the images.
        prediction: Maps and scores of all their rows, image after image.

    Yields:
        Score and map of each image.
    """
    start = 0
    for framing in framings:
        part = slice(start, start + framing.count)
        yield framing.join(Prediction(prediction.anomaly_map[part], prediction.anomaly_score[part]))
        start = part.stop
