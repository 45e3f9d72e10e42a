"""The manifest of a bundle: what was built, from what, for which pictures, and the hash of every file.

It is the first thing read of an untrusted directory, so it is read strictly: plain JSON without NaN, every
key known and none missing, every value of its type, names of files that stay inside the bundle. A newer
schema is refused with the sentence that a newer edgead is needed, before anything else of it is judged.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timedelta, timezone
from typing import Any, TypeVar

from edgead import __version__
from edgead.errors import BundleError, InputError
from edgead.part import check_part_names
from edgead.preprocess import ModelSize, check_preprocess_spec, preprocess_spec
from edgead.threshold import Threshold

SCHEMA = 4
MAX_FILE_BYTES = 4 * 2**30
REBUILD = "rebuild the bundle with 'edgead build'"

_NAME_PART = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FileEntry:
    """SHA-256 in lower-case hex and length in bytes of one file of a bundle."""

    sha256: str
    bytes: int


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle says of itself.

    method, teacher, backend, recipe, precision: names, such as rd, tf_efficientnet_lite0, onnxruntime, cpu, fp32.
    size: pictures the model takes. thresholds: of this engine at this precision, by part. training, verification:
    summaries, JSON values only. verified: whether what runs was compared with its reference when it was built; where it
    was not, the golden answers alone prove it, whenever it is opened. verified_on: the environment that gave the golden
    answers, see `edgead.runtime.environment`. created_at: ISO 8601 in UTC. files: by path
    relative to the bundle, `/` between parts; `write_bundle` fills it in.
    """

    method: str
    teacher: str
    backend: str
    recipe: str
    precision: str
    size: ModelSize
    thresholds: Mapping[str, Threshold]
    training: Mapping[str, Any]
    verification: Mapping[str, Any]
    verified: bool
    verified_on: Mapping[str, Any]
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    created_at: str = field(default_factory=_now)
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
            "recipe": self.recipe,
            "precision": self.precision,
            "preprocess": preprocess_spec(self.size),
            "thresholds": {part: asdict(threshold) for part, threshold in self.thresholds.items()},
            "training": dict(self.training),
            "verification": dict(self.verification),
            "verified": self.verified,
            "verified_on": dict(self.verified_on),
            "files": {name: asdict(entry) for name, entry in sorted(self.files.items())},
        }
        return json.dumps(content, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read a manifest's text; BundleError, naming the key, for anything `to_json` would not write."""
        try:
            content = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise BundleError(f"it is not plain JSON ({error}): {REBUILD}") from error
        if not isinstance(content, dict):
            raise BundleError(f"it is {type(content).__name__}, not an object: {REBUILD}")
        schema = _typed(content, "schema", int)
        if schema > SCHEMA:
            raise BundleError(
                f"schema {schema} is newer than the {SCHEMA} that edgead {__version__} reads: "
                "install a newer edgead"
            )
        if schema != SCHEMA:
            raise BundleError(f"schema is {schema}, not {SCHEMA}: {REBUILD}")
        _check_keys(
            content, {entry.name for entry in fields(cls)} - {"size"} | {"preprocess"}, "the manifest"
        )
        return cls(
            method=_typed(content, "method", str),
            teacher=_typed(content, "teacher", str),
            backend=_typed(content, "backend", str),
            recipe=_typed(content, "recipe", str),
            precision=_typed(content, "precision", str),
            size=check_preprocess_spec(_typed(content, "preprocess", dict)),
            thresholds=_thresholds_from_json(_typed(content, "thresholds", dict)),
            training=_typed(content, "training", dict),
            verification=_typed(content, "verification", dict),
            verified=_typed(content, "verified", bool),
            verified_on=_typed(content, "verified_on", dict),
            files=_files_from_json(_typed(content, "files", dict)),
            created_at=_utc(_typed(content, "created_at", str)),
            edgead_version=_typed(content, "edgead_version", str),
        )


def check_file_name(name: str) -> None:
    """Refuse a file name that is not a plain relative path inside a bundle: BundleError."""
    if name == "manifest.json" or not all(_NAME_PART.fullmatch(part) for part in name.split("/")):
        raise BundleError(f"file name {name!r} is not a plain path inside the bundle: {REBUILD}")


def _thresholds_from_json(content: dict[str, Any]) -> dict[str, Threshold]:
    try:
        check_part_names(list(content))
    except InputError as error:
        raise BundleError(f"'thresholds': {str(error).rpartition(': ')[0]}: {REBUILD}") from error
    return {part: _threshold_from_json(_typed(content, part, dict)) for part in content}


def _threshold_from_json(content: dict[str, Any]) -> Threshold:
    _check_keys(content, {entry.name for entry in fields(Threshold)}, "threshold")
    try:
        return Threshold(
            value=_number(content, "value"),
            false_alarm_rate=_number(content, "false_alarm_rate"),
            confidence=_number(content, "confidence"),
            achieved_confidence=_number(content, "achieved_confidence"),
            n_normal=_typed(content, "n_normal", int),
            n_needed=_typed(content, "n_needed", int),
        )
    except InputError as error:
        raise BundleError(f"threshold: {error}: {REBUILD}") from error


def _files_from_json(content: dict[str, Any]) -> dict[str, FileEntry]:
    files = {}
    for name in content:
        check_file_name(name)
        entry = _typed(content, name, dict)
        _check_keys(entry, {"sha256", "bytes"}, f"files {name!r}")
        digest, size = _typed(entry, "sha256", str), _typed(entry, "bytes", int)
        if not _SHA256.fullmatch(digest):
            raise BundleError(f"files {name!r}: {digest[:80]!r} is not a SHA-256: {REBUILD}")
        if not 0 <= size <= MAX_FILE_BYTES:
            raise BundleError(
                f"files {name!r}: {size} bytes is not between 0 and {MAX_FILE_BYTES}: {REBUILD}"
            )
        files[name] = FileEntry(digest, size)
    return files


def _typed(content: Mapping[str, Any], key: str, kind: type[T]) -> T:
    value = content.get(key)
    # The exact type: in Python true is an int too.
    if type(value) is not kind:
        found = "missing" if key not in content else f"{type(value).__name__}, not {kind.__name__}"
        raise BundleError(f"{key!r} is {found}: {REBUILD}")
    return value


def _number(content: Mapping[str, Any], key: str) -> float:
    value = content.get(key)
    # Compared before it is converted: JSON allows whole numbers that no float holds.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise BundleError(f"threshold {key!r} is not a finite number: {REBUILD}")
    return float(value)


def _check_keys(content: Mapping[str, Any], known: set[str], where: str) -> None:
    for key in sorted(content.keys() ^ known):
        raise BundleError(
            f"{where} has {'no' if key in known else 'the unknown'} key {key[:80]!r}: {REBUILD}"
        )


def _utc(text: str) -> str:
    try:
        is_utc = datetime.fromisoformat(text).utcoffset() == timedelta(0)
    except ValueError:
        is_utc = False
    if not is_utc:
        raise BundleError(f"'created_at' is {text[:80]!r}, not a time in UTC: {REBUILD}")
    return text


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key is given twice")
    return content


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a finite number")
