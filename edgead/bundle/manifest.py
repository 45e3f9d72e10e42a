"""The manifest of a bundle: what was built, from what, for which images, and the hash of every file.

It is the first thing read of an untrusted directory, so it is read strictly: plain JSON without NaN, every
key known and none missing, every value of its type, names of files that stay inside the bundle. A newer
schema is refused with the sentence that a newer edgead is needed, before anything else of it is judged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from edgead import __version__
from edgead.bundle.part_names import check_part_names
from edgead.errors import BundleError
from edgead.files.parsing import RecordError, check_object, json_text, parse_json
from edgead.files.records import record_errors, record_from, utc_now
from edgead.imaging.preprocess import ModelSize, check_preprocess_spec, preprocess_spec
from edgead.scoring.threshold import Threshold

SCHEMA = 4
MAX_MANIFEST_BYTES = 2**20
MAX_FILE_BYTES = 4 * 2**30
REBUILD = "rebuild the bundle with 'edgead build'"

_NAME_PART = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class FileEntry:
    """SHA-256 in lower-case hex and length in bytes of one file of a bundle."""

    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle says of itself.

    method, teacher, backend, target, precision: names, such as rd, tf_efficientnet_lite0, onnxruntime, cpu, fp32.
    size: images the model takes. thresholds: of this engine at this precision, by part. training, verification:
    summaries, JSON values only. verified: whether what runs was compared with its reference when it was built; where it
    was not, the golden answers alone prove it, whenever it is opened. verified_on: the environment that gave the golden
    answers, see `edgead.runtime.environment`. created_at: ISO 8601 in UTC. files: by path
    relative to the bundle, `/` between parts; `write_bundle` fills it in.
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
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    created_at: str = field(default_factory=utc_now)
    edgead_version: str = __version__
    schema: int = SCHEMA

    def to_json(self) -> str:
        """The text of ``manifest.json``; ValueError for NaN in a summary, TypeError for what is not JSON."""
        content = {
            "schema": self.schema,
            "edgead_version": self.edgead_version,
            "created_at": self.created_at,
            "method": self.method,
            "teacher": self.teacher,
            "backend": self.backend,
            "target": self.target,
            "precision": self.precision,
            "preprocess": preprocess_spec(self.size),
            "thresholds": {part: asdict(threshold) for part, threshold in self.thresholds.items()},
            "training": dict(self.training),
            "verification": dict(self.verification),
            "verified": self.verified,
            "verified_on": dict(self.verified_on),
            "files": {name: asdict(entry) for name, entry in sorted(self.files.items())},
        }
        return json_text(content)

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        """Read a manifest, a text or its UTF-8 bytes.

        Raises:
            BundleError: If it is anything that `to_json` would not write; the message names the key.
        """
        with record_errors(BundleError, "it is no manifest", REBUILD):
            content = check_object(parse_json(text, MAX_MANIFEST_BYTES))
            schema = record_from(int, content.get("schema"), "schema")
            if schema > SCHEMA:
                raise BundleError(
                    f"schema {schema} is newer than the {SCHEMA} that edgead {__version__} reads: "
                    "install a newer edgead"
                )
            if schema != SCHEMA:
                raise RecordError(f"schema is {schema}, not {SCHEMA}")
            # The file holds the whole preprocessing, of which an image's size is the one thing that varies.
            size = check_preprocess_spec(record_from(dict, content.pop("preprocess", None), "preprocess"))
            if "size" in content:
                raise RecordError("it has the unknown key 'size'")
            manifest = record_from(cls, {**content, "size": asdict(size)})
            _check(manifest)
        return manifest


def check_file_name(name: str) -> None:
    """Refuse a file name that is not a plain relative path inside a bundle: BundleError."""
    if name == "manifest.json" or not all(_NAME_PART.fullmatch(part) for part in name.split("/")):
        raise BundleError(f"file name {name!r} is not a plain path inside the bundle: {REBUILD}")


def _check(manifest: Manifest) -> None:
    """Raise RecordError, InputError or BundleError, naming the key, for a value that `to_json` would not write."""
    check_part_names(list(manifest.thresholds))
    for name, entry in manifest.files.items():
        check_file_name(name)
        if not _SHA256.fullmatch(entry.sha256):
            raise RecordError(f"files {name!r}: {entry.sha256[:80]!r} is not a SHA-256")
        if not 0 <= entry.bytes <= MAX_FILE_BYTES:
            raise RecordError(f"files {name!r}: {entry.bytes} bytes is not between 0 and {MAX_FILE_BYTES}")
    if not _is_utc(manifest.created_at):
        raise RecordError(f"'created_at' is {manifest.created_at[:80]!r}, not a time in UTC")


def _is_utc(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).utcoffset() == timedelta(0)
    except ValueError:
        return False
