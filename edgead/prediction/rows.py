"""Rows of a prediction: one for each image, as a line of JSON and as a line of the table.

A line of JSON has the names of the stream's JSON lines. It holds no time, so that a run that continues after a kill
gives the same lines as one without an interrupt.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO, TypeAlias

from edgead.files.atomic import replace_file
from edgead.files.parsing import RecordError, check_object, parse_json
from edgead.files.records import record_from
from edgead.runtime.results import Outcome
from edgead.scoring.decision import NOT_FINITE
from edgead.text import path_text
from edgead.types import Region

# Longer than the longest line, because `edgead.imaging.regions` limits the number of regions and corners.
MAX_ROW_BYTES = 2**20

COLUMNS = (
    "image",
    "frame",
    "part",
    "anomaly_score",
    "share_of_threshold",
    "threshold",
    "threshold_source",
    "verdict",
    "regions",
    "largest_x_px",
    "largest_y_px",
    "largest_width_px",
    "largest_height_px",
    "largest_area_px",
    "error",
)
"""Columns of the table."""


Row: TypeAlias = Mapping[str, Any]
"""Values of a row by name, JSON values."""


@dataclass(frozen=True)
class _Scored:
    """Names and types of the row of an image with a verdict."""

    image: str
    frame: int | None
    part: str
    anomaly_score: float
    threshold: float
    threshold_source: str
    share_of_threshold: float | None
    is_anomalous: bool
    regions: tuple[Region, ...]


@dataclass(frozen=True)
class _Failed:
    """Names and types of the row of an image without a verdict."""

    image: str
    frame: int | None
    error: str


def row_of(path: Path, frame: int | None, outcome: Outcome) -> Row:
    """Return the row of an image.

    Args:
        path: Path of the image or the video.
        frame: Index of the frame of a video, None for an image.
        outcome: Outcome of the image.
    """
    row = {"image": path_text(path), "frame": frame}
    result = outcome.result
    if result is None:
        return {**row, "error": NOT_FINITE if outcome.error is None else str(outcome.error)}
    return {
        **row,
        "part": result.part,
        "anomaly_score": result.anomaly_score,
        "threshold": result.threshold,
        "threshold_source": result.threshold_source,
        "share_of_threshold": result.share_of_threshold,
        "is_anomalous": result.is_anomalous,
        "regions": [asdict(region) for region in result.regions],
    }


def parse_row(line: bytes) -> Row:
    """Read a line of JSON.

    Args:
        line: Row as a line of JSON.

    Returns:
        The row.

    Raises:
        RecordError: It is incomplete or another line.
    """
    if not line.endswith(b"\n"):
        raise RecordError("the line is not finished")
    row = check_object(parse_json(line, MAX_ROW_BYTES))
    record_from(_Failed if "error" in row else _Scored, row)
    return row


def write_table(lines: Path, table: Path) -> None:
    """Write the table of all rows, atomically.

    Args:
        lines: File with the lines of JSON.
        table: CSV file to write: UTF-8, with `COLUMNS` as its first line.

    Raises:
        EdgeadError: The table cannot be written.
    """
    with (
        replace_file(table) as partial,
        open(lines, "rb") as rows,
        open(partial, "w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.DictWriter(_UnixLines(file), COLUMNS)
        writer.writeheader()
        for line in rows:
            writer.writerow(_cells(parse_row(line)))


class _UnixLines:
    """File for `csv` that ends lines with a newline alone.

    `csv` quotes a cell with a line break if its own line ending has that character. So its ending is CR LF, because a
    carriage return in the name of a file would end the row for a reader.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, line: str) -> None:
        """Write a line that ends with CR LF."""
        self._file.write(line.removesuffix("\r\n") + "\n")


def _cells(row: Row) -> dict[str, Any]:
    """Return the cells of a row; None is an empty cell."""
    cells: dict[str, Any] = {name: row.get(name) for name in COLUMNS}
    if "error" in row:
        return cells
    regions = row["regions"]
    cells |= {"verdict": "anomalous" if row["is_anomalous"] else "good", "regions": len(regions)}
    if regions:
        sizes = ("x_px", "y_px", "width_px", "height_px", "area_px")
        cells |= {f"largest_{name}": regions[0][name] for name in sizes}
    return cells
