"""The file of `edgead stream --config`: a stream with its cameras, in TOML.

    bundle = "engines/my-parts"
    serve = "127.0.0.1:8000"
    sink = ["jsonl:verdicts.jsonl"]

    [[camera]]
    name = "left"
    source = "rtsp://line7:${file:/etc/edgead/password}@192.168.0.20/stream1"
    sink = ["rejects:left"]

The file has every option of the command line, and no other key. Paths are relative to the working directory, as on the
command line. In an address, ``${env:NAME}`` is replaced by an environment variable, and ``${file:PATH}`` by the first
line of a file, so that the file itself needs no secret.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from edgead.errors import InputError
from edgead.files.addresses import remember_secret
from edgead.files.parsing import RecordError, parse_toml, read_bounded
from edgead.files.records import record_errors, record_from
from edgead.streaming.plan import CameraPlan, StreamPlan

MOST_FILE_BYTES = 2**16
_MOST_SECRET_BYTES = 4096
_ADDRESSES = ("source", "sink", "trigger", "serve", "feedback")
_SECRET = re.compile(r"\$\{(env|file):([^}]*)\}")


@dataclass(frozen=True, slots=True)
class StreamFile:
    """Content of a file for `--config`.

    Attributes:
        bundle: Bundle that `edgead build` wrote.
        camera: Cameras.
        sink: Addresses of sinks of records for the events of all cameras.
        threads: Number of CPU threads of one inference, 1 or more; None for one for each core.
        serve: Address of the page.
        feedback: Address of the folder for marked images.

    Raises:
        InputError: A value is out of range.
    """

    bundle: Path
    camera: tuple[CameraPlan, ...]
    sink: tuple[str, ...] = ("status:",)
    threads: int | None = None
    serve: str | None = None
    feedback: str | None = None

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise InputError(f"threads is {self.threads}", hint="give 1 or more, or leave it out")

    def plan(self) -> StreamPlan:
        """Return the plan of the stream."""
        return StreamPlan(self.camera, self.sink, self.serve, self.feedback)


def read_stream_file(path: Path) -> StreamFile:
    """Read a file for `--config`.

    Args:
        path: Path of the TOML file.

    Returns:
        Its content. Cameras without a name are camera1, camera2, ... by their place.

    Raises:
        InputError: The file cannot be read, is no TOML, or has an unknown or missing key or a value that is not usable.
    """
    with record_errors(InputError, f"{path} describes no stream", "see docs/stream.md, Several cameras"):
        content = parse_toml(read_bounded(path, MOST_FILE_BYTES), MOST_FILE_BYTES)
        cameras = content.get("camera")
        tables = cameras if isinstance(cameras, list) else []
        _check_keys(content, StreamFile, CameraPlan, "the file")
        for number, table in enumerate(tables, 1):
            if isinstance(table, dict):
                table.setdefault("name", f"camera{number}")
                name = table["name"] if isinstance(table["name"], str) else f"camera{number}"
                _check_keys(table, CameraPlan, StreamFile, name[:60])
                if table.get("wait") == math.inf:
                    # Records have finite numbers only.
                    table["wait"] = sys.float_info.max
                # Here, because its name says more than its place in the list.
                record_from(CameraPlan, table, name[:60], defaults=True)
        found = record_from(StreamFile, content, defaults=True)
        # Later, so that no message about a value has a secret.
        return replace(found, camera=tuple(map(_with_secrets, found.camera)), **_addresses(found))


def numbered(cameras: Iterable[CameraPlan]) -> tuple[CameraPlan, ...]:
    """Name the cameras of a command line camera1, camera2, ..."""
    return tuple(replace(camera, name=f"camera{number}") for number, camera in enumerate(cameras, 1))


def _check_keys(table: Mapping[str, Any], kind: type[Any], other: type[Any], where: str) -> None:
    """Refuse an unknown key, with the nearest known one, or the place of a key of the other table."""
    known, elsewhere = ([field.name for field in fields(one)] for one in (kind, other))
    for key in table:
        if key in known:
            continue
        near = difflib.get_close_matches(key.replace("-", "_").lower(), known, 1, 0.6)
        if key in elsewhere:
            hint = "it belongs into a [[camera]]" if kind is StreamFile else "it belongs above the cameras"
        else:
            hint = f"do you mean {near[0]!r}?" if near else f"known keys are {', '.join(known)}"
        raise RecordError(f"{where} has the unknown key {key[:60]!r}; {hint}")


def _with_secrets(camera: CameraPlan) -> CameraPlan:
    """Replace the references to secrets in the addresses of a camera."""
    return replace(camera, **_addresses(camera))


def _addresses(plan: StreamFile | CameraPlan) -> dict[str, Any]:
    """Return the addresses of a plan, with the secrets in place of the references."""
    found: dict[str, Any] = {}
    for name in _ADDRESSES:
        value = getattr(plan, name, None)
        if isinstance(value, str):
            found[name] = _SECRET.sub(_secret, value)
        elif isinstance(value, tuple):
            found[name] = tuple(_SECRET.sub(_secret, one) for one in value)
    return found


def _secret(found: re.Match[str]) -> str:
    """Read the secret of a reference, and hide it in every address that is shown. Errors name the reference only."""
    kind, name = found.groups()
    if kind == "env":
        if name not in os.environ:
            raise RecordError(f"the environment variable {name!r} is not set")
        secret = os.environ[name]
    else:
        secret = _first_line(name)
    remember_secret(secret)
    return secret


def _first_line(name: str) -> str:
    """Read the secret of a file."""
    try:
        lines = read_bounded(Path(name), _MOST_SECRET_BYTES).decode().splitlines()
    except (RecordError, UnicodeDecodeError) as error:
        reason = error if isinstance(error, RecordError) else "it is not UTF-8"
        raise RecordError(f"the secret in {name!r}: {reason}") from error
    if not lines or not lines[0]:
        raise RecordError(f"the secret in {name!r} is empty")
    return lines[0]
