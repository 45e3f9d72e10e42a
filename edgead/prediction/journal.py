"""The lines of a prediction on the disk, and the place where a later run of the same command continues.

The lines of a batch are appended after all files of its images are on the disk. A kill leaves the lines of whole
batches, and perhaps a torn rest, which the next run cuts off. It continues at the start of a batch, because the numbers
of an image may depend on the other images of its batch in the last bits.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edgead.errors import InputError
from edgead.files.atomic import write_errors
from edgead.files.parsing import RecordError, json_text
from edgead.files.records import record_errors
from edgead.prediction.batches import Position
from edgead.prediction.inputs import Input
from edgead.prediction.rows import Row, parse_row
from edgead.types import Closing

# A power cut loses the lines of this time at most; a kill loses none.
_FLUSH_S = 2.0


@dataclass(frozen=True, slots=True)
class Counts:
    """Number of images by their outcome.

    Attributes:
        images: Number of all images and frames.
        anomalous: How many of them are anomalous.
        failed: How many of them have no verdict.
        first_failed: Name of the first image without a verdict; None if all have one.
    """

    images: int = 0
    anomalous: int = 0
    failed: int = 0
    first_failed: str | None = None

    @property
    def good(self) -> int:
        """How many images are good."""
        return self.images - self.anomalous - self.failed

    def plus(self, row: Row) -> Counts:
        """Return the counts with one more row.

        Args:
            row: Values of the row.
        """
        if "error" not in row:
            anomalous = self.anomalous + row["is_anomalous"]
            return Counts(self.images + 1, anomalous, self.failed, self.first_failed)
        return Counts(self.images + 1, self.anomalous, self.failed + 1, self.first_failed or row["image"])


def counts_of(lines: Path) -> Counts:
    """Count the rows of a finished prediction.

    Args:
        lines: File of the lines.

    Raises:
        InputError: The file is missing or damaged.
    """
    counts = Counts()
    with record_errors(InputError, f"{lines} is damaged", "remove the folder, and predict again"):
        try:
            with open(lines, "rb") as file:
                for line in file:
                    counts = counts.plus(parse_row(line))
        except OSError as error:
            raise RecordError(f"it cannot be read: {error.strerror}") from error
    return counts


class Journal(Closing):
    """The file of lines, opened to append; a context manager.

    Args:
        path: File of the lines. Lines that it has from an earlier run are kept up to the last whole batch.
        inputs: All inputs, in order.
        is_saved: Function that returns whether all files of a row are on the disk. The run continues before the first
            row with a missing file.

    Attributes:
        position: Position of the first image that is left.
        counts: Counts of the kept rows.

    Raises:
        EdgeadError: The file cannot be written.
    """

    def __init__(self, path: Path, inputs: Sequence[Input], is_saved: Callable[[Row], bool]) -> None:
        self._path = path
        self.position, self.counts = Position(), Counts()
        with write_errors(path):
            self._file = open(path, "a+b")  # noqa: SIM115 (closed by close)
            self._file.truncate(self._read(inputs, is_saved))
        self._flushed_at = time.monotonic()

    def append(self, rows: Sequence[Row]) -> None:
        """Append the rows of a batch, whose files are on the disk.

        Args:
            rows: Rows of the batch.

        Raises:
            EdgeadError: The disk is full or the file cannot be written.
        """
        with write_errors(self._path):
            self._file.write("".join(json_text(row, indent=None) for row in rows).encode())
            self._file.flush()
            if time.monotonic() - self._flushed_at > _FLUSH_S:
                os.fsync(self._file.fileno())
                self._flushed_at = time.monotonic()
        for row in rows:
            self.counts = self.counts.plus(row)

    def close(self) -> None:
        """Flush the lines to the disk and close the file."""
        if not self._file.closed:
            with write_errors(self._path), self._file:
                os.fsync(self._file.fileno())

    def _read(self, inputs: Sequence[Input], is_saved: Callable[[Row], bool]) -> int:
        """Find the position after the last whole batch; return the length in bytes of the lines before it."""
        position, counts, length, kept = Position(), Counts(), 0, 0
        self._file.seek(0)
        with suppress(RecordError):
            for line in self._file:
                row = parse_row(line)
                position = position.after(row, inputs)
                if not is_saved(row):
                    break
                counts, length = counts.plus(row), length + len(line)
                if position.is_start(inputs):
                    self.position, self.counts, kept = position, counts, length
        return kept
