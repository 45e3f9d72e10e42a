"""Images that viewers of the page mark: a folder with good images and defects, for thresholds and trainings.

    FOLDER/PART/good/TIME_CAMERA_frame00000041.png     the image as it came from the camera, without loss
    FOLDER/PART/good/TIME_CAMERA_frame00000041.json    what the model said, who marked the image, and when
    FOLDER/PART/defect/...

FOLDER/PART is a dataset that `edgead train` and `edgead threshold` read. Marks are work of people, so none is ever
removed to make room: a full folder refuses new ones.
"""

from __future__ import annotations

import re
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import cv2

from edgead.errors import EdgeadError, InputError, StreamError
from edgead.files.atomic import beside, place_file, write_errors
from edgead.files.parsing import json_text
from edgead.streaming.uri import number_in, split_options
from edgead.types import UInt8Array

Label: TypeAlias = Literal["good", "defect"]
LABELS: tuple[Label, ...] = get_args(Label)

SCHEMA = 1
MOST_MB = 1000.0
_IMAGE, _RECORD = ".png", ".json"
_STEM = r"\d{8}T\d{6}\.\d{3}Z_[A-Za-z0-9_.-]{1,40}_frame\d{8,}"
_NAME = re.compile(rf"({_STEM})\.(png|json)")
# Files that a kill left behind.
_PARTIAL = re.compile(rf"\.{_STEM}\.(png|json)(\.\d+-\d+)?\.partial")


@dataclass(frozen=True, slots=True)
class FeedbackAddress:
    """Address of the folder: ``FOLDER?max_mb=1000``.

    Attributes:
        folder: Folder of the marked images.
        max_bytes: Largest size of all images and records together.
    """

    folder: Path
    max_bytes: int = round(MOST_MB * 1e6)


def read_feedback_address(text: str) -> FeedbackAddress:
    """Read an address ``FOLDER?max_mb=1000``.

    Args:
        text: Address.

    Raises:
        InputError: It names no folder, or an option is unknown or has an invalid value.
    """
    name, options = split_options(text, {"max_mb": number_in(float, 0.001)})
    if not name:
        raise InputError("feedback names no folder", hint="give a folder, such as feedback")
    return FeedbackAddress(Path(name), round(options.get("max_mb", MOST_MB) * 1e6))


@dataclass(frozen=True, slots=True)
class Mark:
    """Record of a marked image.

    Attributes:
        label: What the image shows, as a person says.
        marked_by: Name of that person, with the address that it came from.
        marked_at: Time, UTC in ISO 8601.
        camera: Name of the camera.
        part: Name of the part.
        source: Address of the source, without secrets.
        frame_index: Index of the frame.
        anomaly_score: Score of the model.
        threshold: Decision threshold of the verdict.
        is_anomalous: The verdict.
        model_sha256: Hash of the bundle's model; None for a run.
        schema: Version of the record.
    """

    label: Label
    marked_by: str
    marked_at: str
    camera: str
    part: str
    source: str
    frame_index: int
    anomaly_score: float
    threshold: float
    is_anomalous: bool
    model_sha256: str | None
    schema: int = SCHEMA


class FeedbackFolder:
    """The folder; may be used from any thread.

    Args:
        address: Address of the folder, which is made if it is missing.
        parts: Names of the parts of the stream.

    Raises:
        InputError: A part has a name that no folder can have.
        StreamError: The folder cannot be made or read.
    """

    def __init__(self, address: FeedbackAddress, parts: set[str]) -> None:
        self._folder, self._max_bytes = address.folder, address.max_bytes
        self._lock = threading.Lock()
        for part in sorted(parts):
            # A bundle may come from anyone, and its names of parts must not lead out of the folder.
            if part.startswith(".") or "/" in part:
                raise InputError(f"{part[:60]!r} is no name of a folder", hint="leave out --feedback")
        try:
            for part in parts:
                for label in LABELS:
                    (self._folder / part / label).mkdir(parents=True, exist_ok=True)
                    _tidy(self._folder / part / label)
            self._size()
        except (OSError, ValueError) as error:
            # No file can have a name with a null character.
            reason = error.strerror if isinstance(error, OSError) else error
            raise StreamError(
                f"cannot write to {self._folder} ({reason})", hint="check the path and its rights"
            ) from error

    def _size(self) -> int:
        """Return the size of all marked images, also those of other parts and of other streams."""
        return sum(
            path.stat().st_size
            for path in self._folder.glob("*/*/*")
            if _NAME.fullmatch(path.name) and path.parent.name in LABELS
        )

    def mark(self, stem: str, image: UInt8Array, mark: Mark) -> None:
        """Keep an image with its label; another label that it had before is replaced.

        Args:
            stem: Name of the image, from `stem_of`.
            image: Image of the frame, (H, W, 3) uint8 RGB.
            mark: Record of the image.

        Raises:
            EdgeadError: The folder is full, or cannot be written. The image keeps the label that it had.
        """
        folder = self._folder / mark.part / mark.label
        other = self._folder / mark.part / ("defect" if mark.label == "good" else "good")
        record = json_text(asdict(mark)).encode()
        with self._lock, write_errors(folder):
            is_marked = any((one / f"{stem}{_IMAGE}").is_file() for one in (folder, other))
            data = b"" if is_marked else _encoded(image)
            # A mark can always be corrected: its image only moves.
            if not is_marked and self._size() + len(data) + len(record) > self._max_bytes:
                raise StreamError(
                    f"{self._folder} would have more than {self._max_bytes / 1e6:g} MB",
                    hint="move the images elsewhere, or raise max_mb",
                )
            # The record first, so that no image is without its record; and an image has one label at every moment.
            _place(folder / f"{stem}{_RECORD}", record)
            try:
                if not is_marked:
                    _place(folder / f"{stem}{_IMAGE}", data)
                elif not (folder / f"{stem}{_IMAGE}").is_file():
                    (other / f"{stem}{_IMAGE}").replace(folder / f"{stem}{_IMAGE}")
            except (EdgeadError, OSError):
                if not (folder / f"{stem}{_IMAGE}").is_file():
                    self._remove(folder, stem, (_RECORD,))
                raise
            self._remove(other, stem)

    def take_back(self, stem: str, part: str) -> None:
        """Remove a marked image.

        Args:
            stem: Name of the image.
            part: Name of its part.

        Raises:
            EdgeadError: It cannot be removed.
        """
        with self._lock:
            for label in LABELS:
                self._remove(self._folder / part / label, stem)

    def _remove(self, folder: Path, stem: str, suffixes: tuple[str, ...] = (_IMAGE, _RECORD)) -> None:
        for suffix in suffixes:
            path = folder / f"{stem}{suffix}"
            with write_errors(path):
                path.unlink(missing_ok=True)


def stem_of(time: str, camera: str, frame_index: int) -> str:
    """Return the name of a marked image, without its suffix.

    Args:
        time: Time of the image, from `utc_now` in milliseconds.
        camera: Name of the camera.
        frame_index: Index of the frame.
    """
    # The basic format of ISO 8601, because some systems allow no colon in file names.
    short = time.replace("-", "").replace(":", "").replace("+0000", "Z")
    return f"{short}_{camera}_frame{frame_index:08d}"


def _encoded(image: UInt8Array) -> bytes:
    _, data = cv2.imencode(_IMAGE, image[..., ::-1])
    return data.tobytes()


def _place(path: Path, data: bytes) -> None:
    place_file(path, data, beside(path, "partial"))


def _tidy(folder: Path) -> None:
    """Remove what a kill left behind: unfinished files, and records without their image."""
    for path in folder.iterdir():
        is_record = _NAME.fullmatch(path.name) is not None and path.suffix == _RECORD
        if _PARTIAL.fullmatch(path.name) or (is_record and not path.with_suffix(_IMAGE).is_file()):
            path.unlink()
