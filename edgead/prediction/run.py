"""A prediction from start to end: score images, save images of the results, write lines and a table.

    predict.json        request and state
    predictions.jsonl   one line for each image, appended batch by batch
    predictions.csv     the table of all lines, once all images are done
    overlays/, maps/, masks/, heatmaps/   saved images

Reading, scoring and writing run in parallel. The lines of a batch are written after the images of the batch. So a run
that continues after a kill ends with the same files as a run without an interrupt.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edgead.files.progress import ScoringState, log_state
from edgead.imaging.decode import dark_text
from edgead.imaging.frame import frame, squeeze_text
from edgead.prediction.batches import Item, batches, number_of_images
from edgead.prediction.inputs import Inputs
from edgead.prediction.journal import Counts, Journal, counts_of
from edgead.prediction.record import Request, check_out, check_same, write_record
from edgead.prediction.rows import Row, row_of, write_table
from edgead.prediction.saving import Saver
from edgead.runtime.framed import BATCH
from edgead.runtime.model import Model
from edgead.runtime.results import ReadImage, UsedThreshold
from edgead.types import UInt8Array

LINES_FILE = "predictions.jsonl"
TABLE_FILE = "predictions.csv"

# Number of batches whose images are written while the next is scored.
_WRITING_BATCHES = 2

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Summary:
    """Result of a prediction.

    Attributes:
        counts: Number of images by their outcome.
        threshold: Threshold that was used.
        table: Path of the CSV file.
    """

    counts: Counts
    threshold: UsedThreshold
    table: Path


def predict_files(
    model: Model, digest: str, inputs: Inputs, out: Path, *, part: str | None = None, save: Sequence[str] = ()
) -> Summary:
    """Predict files, or continue an interrupted prediction. The caller has locked the folder.

    Args:
        model: Opened model, with the threshold to use.
        digest: SHA-256 of the model, from `edgead.prediction.record.model_digest`.
        inputs: Images and videos.
        out: Folder of the results: missing, empty, or with a prediction of the same request.
        part: Name of the part on the images, if the model serves several.
        save: Kinds of images to save, keys of `edgead.prediction.saving.FILES`.

    Returns:
        Counts, threshold and table. Images that cannot be read are counted.

    Raises:
        InputError: The part is unknown, `out` holds something else, or two images would have one output.
        BackendError: The inference fails.
        EdgeadError: A result cannot be written.
    """
    used = model.used_threshold(part)
    request = Request(digest, used.part, used.value, used.source, tuple(save), inputs.digest())
    record = check_out(out)
    if record is not None:
        check_same(out, record, request)
    saver = Saver(out, save)
    saver.check_names(inputs.files)
    for line in inputs.left_out:
        _log.warning("%s", line)
    lines, table = out / LINES_FILE, out / TABLE_FILE
    if record is not None and record.state == "finished" and table.is_file():
        _log.info("%s has all results already", out)
        return Summary(counts_of(lines), used, table)
    write_record(out, request, finished=False)
    with saver, Journal(lines, inputs.files, saver.is_saved) as journal:
        if journal.counts.images:
            _log.info("continuing after %d images", journal.counts.images)
        _predict(model, used, inputs, journal, saver)
    write_table(lines, table)
    write_record(out, request, finished=True)
    return Summary(journal.counts, used, table)


def _predict(model: Model, used: UsedThreshold, inputs: Inputs, journal: Journal, saver: Saver) -> None:
    """Score the images that are left; write their files and rows."""
    total = number_of_images(inputs.files)
    scoring: deque[list[Item]] = deque()

    def reads() -> Iterator[list[ReadImage]]:
        # The tiles of several images at once would fill the memory.
        once = 1 if model.view.is_tiled else BATCH
        for number, batch in enumerate(batches(inputs.files, journal.position, model.bit_depth)):
            # The first image stands for all, as in a stream.
            first = [partial(_read_and_check, item, model) for item in batch[: number == 0]]
            images: list[ReadImage] = [*first, *(item.read for item in batch[len(first) :])]
            for start in range(0, len(batch), once):
                scoring.append(batch[start : start + once])
                yield images[start : start + once]

    writing: deque[tuple[list[Row], list[Future[None]]]] = deque()

    def finish_batch() -> None:
        rows, saves = writing.popleft()
        for save in saves:
            save.result()
        journal.append(rows)
        done = journal.counts.images
        # A video may have more frames than its container promises, or promise none.
        known = done + sum(len(rows) for rows, _ in writing)
        log_state(_log, ScoringState(done, max(known, total)))

    predicted = model.predict_batches(reads(), part=used.part)
    with closing(predicted), ThreadPoolExecutor(len(os.sched_getaffinity(0)), "edgead-save") as pool:
        for outcomes in predicted:
            found = list(zip(scoring.popleft(), outcomes, strict=True))
            saves = [
                pool.submit(saver.save, item, outcome)
                for item, outcome in found
                if saver.kinds and outcome.result is not None
            ]
            writing.append(([row_of(item.path, item.frame, outcome) for item, outcome in found], saves))
            if len(writing) > _WRITING_BATCHES:
                finish_batch()
        while writing:
            finish_batch()


def _read_and_check(item: Item, model: Model) -> UInt8Array:
    """Read an image, and warn if it is squeezed, or so dark that the training missed its bit depth."""
    image = item.read()
    framing = frame(model.view, image.shape[0], image.shape[1], model.size)
    for line in (dark_text(image, str(item.path)), squeeze_text(framing, str(item.path))):
        if line is not None:
            _log.warning("%s", line)
    return image
