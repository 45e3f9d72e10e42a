"""The manifest of a bundle: the model, its source, the size of its images, and the hash of every file.

The manifest is the first file that is read from an untrusted directory, so the reader is strict. It accepts plain JSON
without NaN, in which every key is known, no key is missing, every value has its type, and every file name stays inside
the bundle. It checks the schema first, and refuses a newer one with the hint to install a newer edgead.

The manifest holds a hash of its own content, so that an edit by hand is refused: a threshold that someone typed has no
origin. `edgead threshold` changes it. The hash proves no author, see `docs/decisions`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from edgead import __version__
from edgead.bundle.part_names import check_part_names
from edgead.bundle.threshold_changes import MAX_CHANGES, ThresholdChange
from edgead.errors import BundleError, InputError
from edgead.files.parsing import RecordError, check_object, json_text, parse_json, shown
from edgead.files.records import record_errors, record_from, utc_now
from edgead.imaging.preprocess import ModelSize, check_preprocess_spec, preprocess_spec
from edgead.imaging.view import WHOLE, View
from edgead.scoring.threshold import Threshold
from edgead.text import printable

SCHEMA = 9
MAX_MANIFEST_BYTES = 2**20
MAX_RECORDED_IMAGES = 8000
"""Largest number of images that set the thresholds of a bundle. The manifest has at most 120 bytes for each."""

MAX_FILE_BYTES = 4 * 2**30
MAX_TEXT_CHARACTERS = 255
_FEWER_IMAGES = "train with --hold-out 1000, for example, or for a higher --false-alarm-rate"
REBUILD = "rebuild the bundle with 'edgead build'"

_NAME_PART = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def check_recorded_images(count: int) -> None:
    """Reject more images than a manifest can list, before the work of a training or a build.

    Args:
        count: Number of images that set thresholds, over all parts.

    Raises:
        InputError: If there are more than `MAX_RECORDED_IMAGES`.
    """
    if count > MAX_RECORDED_IMAGES:
        raise InputError(
            f"{count} images set the thresholds, and a bundle lists at most {MAX_RECORDED_IMAGES}",
            hint=_FEWER_IMAGES,
        )


@dataclass(frozen=True, slots=True)
class FileEntry:
    """Hash and size of one file of a bundle.

    Attributes:
        sha256: SHA-256 of the content, in lower-case hex.
        bytes: Length in bytes.
    """

    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """Description of a bundle.

    Attributes:
        method: Name of the method, such as rd.
        teacher: Name of the teacher, such as tf_efficientnet_lite0.
        backend: Name of the inference backend, such as onnxruntime.
        target: Name of the target, such as cpu.
        precision: Name of the precision, such as fp32.
        size: Size of the model's images.
        thresholds: Current thresholds of this engine at this precision, by part.
        training: Summary of the training; JSON values only.
        verification: Summary of the verification; JSON values only.
        verified: Whether the build compared the engine with its reference. If not, only the golden outputs prove the
            engine, each time the bundle is opened.
        verified_on: Environment that computed the golden outputs, see `edgead.runtime.environment`.
        changes: Changes of the thresholds since the build, by part, the oldest first; parts without a change are left
            out.
        files: Hash and size of each file, by path relative to the bundle with `/` as separator. `write_bundle` sets it.
        bit_depth: Depth of the values of image files with samples of 16 bits that the model was trained on; None for
            the depth of the files. Every image file that the model scores is read with it.
        view: Part of an image that the model inspects, and the way to its size.
        created_at: Time of the build, ISO 8601 in UTC.
        edgead_version: Version of edgead that built the bundle.
        schema: Version of the format of the manifest.
    """

    method: str
    teacher: str
    backend: str
    target: str
    precision: str
    size: ModelSize
    thresholds: Mapping[str, Threshold]
    training: Mapping[str, Any]
    verification: Mapping[str, Any]
    verified: bool
    verified_on: Mapping[str, Any]
    changes: Mapping[str, tuple[ThresholdChange, ...]] = field(default_factory=dict)
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    bit_depth: int | None = None
    view: View = WHOLE
    created_at: str = field(default_factory=utc_now)
    edgead_version: str = __version__
    schema: int = SCHEMA

    def to_json(self) -> str:
        """Return the text of ``manifest.json``.

        Raises:
            BundleError: The text is larger than a reader accepts.
            ValueError: A summary holds a number that is not finite.
            TypeError: A summary holds a value that JSON does not have.
        """
        content = {
            "schema": self.schema,
            "edgead_version": self.edgead_version,
            "created_at": self.created_at,
            "method": self.method,
            "teacher": self.teacher,
            "backend": self.backend,
            "target": self.target,
            "precision": self.precision,
            "preprocess": preprocess_spec(self.size, self.bit_depth),
            "view": asdict(self.view),
            "thresholds": {part: asdict(threshold) for part, threshold in self.thresholds.items()},
            "training": dict(self.training),
            "verification": dict(self.verification),
            "verified": self.verified,
            "verified_on": dict(self.verified_on),
            "changes": {
                part: [asdict(change) for change in of_part] for part, of_part in self.changes.items()
            },
            "files": {name: asdict(entry) for name, entry in sorted(self.files.items())},
        }
        # Hashed as a reader will parse it: tuples are lists then.
        text = json_text({**content, "sha256": content_hash(json.loads(json_text(content)))})
        if len(text) > MAX_MANIFEST_BYTES:
            raise BundleError(
                f"the manifest has {len(text)} bytes, more than {MAX_MANIFEST_BYTES}, because it lists many images",
                hint=_FEWER_IMAGES,
            )
        return text

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        """Read a manifest.

        Args:
            text: Content of ``manifest.json``, as text or as UTF-8 bytes.

        Raises:
            BundleError: `to_json` would not write such a text, or the schema is newer. The message names the key.
        """
        with record_errors(BundleError, "it is not a manifest", REBUILD):
            content = check_object(parse_json(text, MAX_MANIFEST_BYTES))
            schema = record_from(int, content.get("schema"), "schema")
            if schema > SCHEMA:
                raise BundleError(
                    f"schema {schema} is newer than schema {SCHEMA}, which edgead {__version__} reads",
                    hint="install a newer edgead",
                )
            if schema != SCHEMA:
                raise RecordError(f"schema is {schema}, not {SCHEMA}")
            stated = record_from(str, content.pop("sha256", None), "sha256")
            found = content_hash(content)
            # The file holds the whole preprocessing, and only the image size varies.
            spec = record_from(dict, content.pop("preprocess", None), "preprocess")
            size, bit_depth = check_preprocess_spec(spec)
            for key in ("size", "bit_depth"):
                if key in content:
                    raise RecordError(f"it has the unknown key {key!r}")
            manifest = record_from(cls, {**content, "size": asdict(size), "bit_depth": bit_depth})
            _check(manifest)
        # Last, because every other check names the key that is wrong.
        if stated != found:
            raise BundleError(
                "it was changed by hand or is damaged (its own SHA-256 differs)",
                hint=f"copy the bundle again or {REBUILD}; 'edgead threshold' sets a threshold",
            )
        return manifest


def content_hash(content: Mapping[str, Any]) -> str:
    """Compute the hash that a manifest holds of its own content.

    Args:
        content: Content of the manifest without the key "sha256"; JSON values only.

    Returns:
        SHA-256 in lower-case hex of the content as JSON with sorted keys and without spaces.
    """
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def check_file_name(name: str) -> None:
    """Check that a file name is a plain relative path inside a bundle.

    Args:
        name: Path of a file relative to the bundle, with `/` as separator.

    Raises:
        BundleError: The path is absolute, leaves the bundle, has unusual characters, or names the manifest.
    """
    if name == "manifest.json" or not all(_NAME_PART.fullmatch(part) for part in name.split("/")):
        raise BundleError(f"file name {name!r} is not a plain path inside the bundle", hint=REBUILD)


def _check(manifest: Manifest) -> None:
    """Raise RecordError, InputError or BundleError, which names the key, for a value that `to_json` would not write."""
    check_part_names(list(manifest.thresholds))
    manifest.view.ignored()
    manifest.view.check_tiles(manifest.size)
    for key in ("method", "teacher", "backend", "target", "precision", "edgead_version"):
        text = getattr(manifest, key)
        # These texts are printed to terminals and are in error messages of one line.
        if len(text) > MAX_TEXT_CHARACTERS or printable(text) != text:
            raise RecordError(
                f"{key!r} is {shown(text)}, not a printable text of at most {MAX_TEXT_CHARACTERS} characters"
            )
    for name, entry in manifest.files.items():
        check_file_name(name)
        if not _SHA256.fullmatch(entry.sha256):
            raise RecordError(f"files {name!r}: {entry.sha256[:80]!r} is not a SHA-256")
        if not 0 <= entry.bytes <= MAX_FILE_BYTES:
            raise RecordError(f"files {name!r}: {entry.bytes} bytes is not between 0 and {MAX_FILE_BYTES}")
    for part, changes in manifest.changes.items():
        if part not in manifest.thresholds or not 1 <= len(changes) <= MAX_CHANGES:
            raise RecordError(f"changes {part[:80]!r}: unknown part, or not 1 to {MAX_CHANGES} changes")
    times = [change.set_at for changes in manifest.changes.values() for change in changes]
    for key, time in (("created_at", manifest.created_at), *(("set_at", time) for time in times)):
        if not _is_utc(time):
            raise RecordError(f"{key!r} is {time[:80]!r}, not a time in UTC")


def _is_utc(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).utcoffset() == timedelta(0)
    except ValueError:
        return False
