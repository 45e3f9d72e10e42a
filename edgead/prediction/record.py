"""Record of a prediction: `predict.json` in its folder, with the request and whether it is finished.

The same request continues a prediction that was interrupted, and changes nothing of a finished one. A folder with
another request, or with other files, is refused.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from edgead import __version__
from edgead.bundle.manifest import MAX_MANIFEST_BYTES, content_hash
from edgead.errors import InputError
from edgead.files.atomic import check_directory, check_empty
from edgead.files.parsing import check_object, parse_json, read_bounded, write_json
from edgead.files.records import record_errors, record_from

RECORD_FILE = "predict.json"
SCHEMA = 1
MAX_RECORD_BYTES = 2**16

_ANOTHER = "choose another --out, or remove the folder"


@dataclass(frozen=True, slots=True)
class Request:
    """Everything that the results of a prediction depend on.

    Attributes:
        model: SHA-256 of the model, in hex.
        part: Name of the part.
        threshold: Decision threshold.
        threshold_source: Command that set the threshold; "given" for a threshold of the user.
        save: Kinds of images to save.
        images: SHA-256 of the names, sizes and times of the images, in hex.
        edgead_version: Version of edgead.
    """

    model: str
    part: str
    threshold: float
    threshold_source: str
    save: tuple[str, ...]
    images: str
    edgead_version: str = __version__


@dataclass(frozen=True, slots=True)
class Record:
    """Content of `predict.json`.

    Attributes:
        request: The request.
        state: "running", also after an interrupt, or "finished".
        schema: Version of the format.
    """

    request: Request
    state: Literal["running", "finished"]
    schema: int = SCHEMA


def check_out(out: Path) -> Record | None:
    """Check that a prediction can be written to a folder, without writing.

    Args:
        out: Folder of the results; it need not exist.

    Returns:
        Record of the prediction that the folder holds; None if it is missing or empty.

    Raises:
        InputError: The folder cannot be written, or holds files that are no prediction.
    """
    check_directory(out)
    file = out / RECORD_FILE
    if not file.is_file():
        check_empty(out, "prediction")
        return None
    with record_errors(InputError, f"{file} is no record of a prediction", _ANOTHER):
        return record_from(Record, parse_json(read_bounded(file, MAX_RECORD_BYTES), MAX_RECORD_BYTES))


def check_same(out: Path, record: Record, request: Request) -> None:
    """Check that a folder holds the prediction of the same request.

    Args:
        out: Folder of the results.
        record: Its record.
        request: The new request.

    Raises:
        InputError: The request is another one. The message names the difference.
    """
    for field in fields(Request):
        was, now = getattr(record.request, field.name), getattr(request, field.name)
        if was == now:
            continue
        if field.name in ("model", "images"):
            other = "another model" if field.name == "model" else "other images"
            raise InputError(f"{out} holds a prediction with {other}", hint=_ANOTHER)
        name = field.name.replace("_", " ")
        raise InputError(
            f"{out} holds a prediction with {name} {_text(was)}, not {_text(now)}", hint=_ANOTHER
        )


def write_record(out: Path, request: Request, *, finished: bool) -> None:
    """Write the record of a prediction, atomically.

    Args:
        out: Folder of the results.
        request: The request.
        finished: Whether all results are written.

    Raises:
        EdgeadError: The record cannot be written.
    """
    write_json(out / RECORD_FILE, asdict(Record(request, "finished" if finished else "running")))


def model_digest(model: Path) -> str:
    """Compute the SHA-256 of a model, without its thresholds.

    Args:
        model: Directory of a bundle or a run.

    Returns:
        Hash of the preprocessing and the hashes of all files of a bundle, or of the record and the weights of a run, in
        hex.
    """
    manifest = model / "manifest.json"
    if manifest.is_file():
        content = check_object(parse_json(read_bounded(manifest, MAX_MANIFEST_BYTES), MAX_MANIFEST_BYTES))
        return content_hash({key: content[key] for key in ("files", "preprocess")})
    digest = hashlib.sha256()
    for name in ("run.json", "model.safetensors"):
        with open(model / name, "rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()


def _text(value: Any) -> str:
    """Write a value of a request as the user typed it."""
    return ",".join(value) or "nothing" if isinstance(value, tuple) else str(value)
