"""Regions of an anomaly map: its connected pixels above the threshold, in pixels of the image.

The stream and `edgead.load(...).predict` both use this module, so the log of a production line and a script agree.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from edgead.types import BoolArray, Float32Array, Region

MAX_REGIONS = 256
"""Maximum number of regions; the largest are kept. A threshold that is much too low turns noise into thousands."""

MAX_POLYGON_POINTS = 128
"""Maximum number of points of an outline, because a line of JSON must not grow with the roughness of a defect."""

_Points = npt.NDArray[np.int32]


def regions_from_map(
    anomaly_map: Float32Array, threshold: float, height_px: int, width_px: int
) -> tuple[Region, ...]:
    """Find the connected regions of a map above the threshold, the largest area first.

    Pixels that touch at an edge or at a corner belong together (8-connectivity). Regions of equal area are sorted by
    their highest value, then by place. At most `MAX_REGIONS` regions are returned. An outline follows the outer edges
    of the map's pixels and encloses holes. An outline of more than `MAX_POLYGON_POINTS` points is simplified
    (Douglas-Peucker, with a tolerance of one pixel of the map or more).

    Args:
        anomaly_map: Map of one image, (h, w) float32, stretched over the image.
        threshold: Decision threshold; a value equal to it is not above it.
        height_px: Height of the image, in pixels.
        width_px: Width of the image, in pixels.

    Returns:
        The regions; an empty tuple if no value is above the threshold.
    """
    # The comparison is in float64, so that the threshold is not rounded.
    above: BoolArray = np.greater(anomaly_map, threshold, signature="dd->?")
    used_rows, used_columns = (np.flatnonzero(above.any(axis=axis)) for axis in (1, 0))
    if not len(used_rows):
        return ()
    # The map of a large image is mostly below the threshold, so only the box around all regions is labelled.
    first_row, first_column = int(used_rows[0]), int(used_columns[0])
    rows, columns = anomaly_map.shape
    box = slice(first_row, int(used_rows[-1]) + 1), slice(first_column, int(used_columns[-1]) + 1)
    above, anomaly_map = above[box], anomaly_map[box]
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(above.astype(np.uint8), connectivity=8)
    highest = np.full(count, -np.inf)
    np.maximum.at(highest, labels[above], anomaly_map[above])
    areas = boxes[:, cv2.CC_STAT_AREA]
    # Label 0 is the background. The last key of lexsort is the primary one.
    order = 1 + np.lexsort((-highest[1:], -areas[1:]))[:MAX_REGIONS]
    outlines = _outlines(above, labels, {int(label) for label in order})
    regions = []
    for label in order:
        left, top, width, height = (int(value) for value in boxes[label, :4])
        left, top = left + first_column, top + first_row
        # Every image pixel that the region covers, even in part, is inside the box.
        x, right = left * width_px // columns, -(-(left + width) * width_px // columns)
        y, bottom = top * height_px // rows, -(-(top + height) * height_px // rows)
        outline = np.add(_simplified(outlines[int(label)]), (first_column, first_row))
        scaled = np.rint(outline * (width_px / columns, height_px / rows))
        regions.append(
            Region(
                x_px=x,
                y_px=y,
                width_px=right - x,
                height_px=bottom - y,
                area_px=max(1, round(int(areas[label]) * height_px * width_px / (rows * columns))),
                highest_value=float(highest[label]),
                polygon=tuple((int(across), int(down)) for across, down in scaled),
            )
        )
    return tuple(regions)


def _outlines(above: BoolArray, labels: npt.NDArray[np.int32], wanted: set[int]) -> dict[int, _Points]:
    """Trace the outer edge of the wanted regions, by label: (N, 2) corners x, y of map pixels.

    OpenCV traces the centres of border pixels, which loses half a pixel on every side. In a mask of twice the size it
    traces half pixels, and each half pixel lies at exactly one corner.
    """
    doubled = above.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    contours, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    outlines = {}
    for contour, (_, _, _, parent) in zip(contours, hierarchy[0], strict=True):
        x, y = contour[0, 0]
        label = int(labels[y // 2, x // 2])
        if parent == -1 and label in wanted:  # a contour with a parent is the edge of a hole
            corners = (contour[:, 0] + 1) // 2
            # At a corner that points inwards, two half pixels give the same corner.
            outlines[label] = corners[(corners != np.roll(corners, 1, axis=0)).any(axis=1)]
    return outlines


def _simplified(outline: _Points) -> _Points:
    """Reduce an outline to at most `MAX_POLYGON_POINTS` corners: the tolerance doubles until that is reached."""
    simple, tolerance = outline, 1.0
    while len(simple) > MAX_POLYGON_POINTS:
        simple = cv2.approxPolyDP(outline[:, None], tolerance, True)[:, 0]
        tolerance *= 2.0
    return simple
