"""Folders as chunks of bytes, for machines that share no disk: an index of names and sizes, then the content.

The receiver decides what is written where. A name that leaves the folder, a size that does not fit, or more bytes than
were announced end the unpacking with an error. There are no links, rights, times or empty folders in a parcel.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from edgead.errors import RunError
from edgead.files.atomic import write_errors
from edgead.files.parsing import RecordError, json_text, parse_json
from edgead.files.records import record_errors, record_from
from edgead.text import path_from_text, path_text

CHUNK_BYTES = 32 * 2**20
MAX_INDEX_BYTES = 256 * 2**20
MAX_NAME_BYTES = 4096


def pack(source: Path, base: Path, most_bytes: int) -> Iterator[bytes]:
    """Read a file, or all files below a folder. Hidden files and folders are left out; links are followed.

    Args:
        source: Absolute path of the file or folder.
        base: Folder that the names are relative to: `source`, or a folder above it.
        most_bytes: Largest accepted size of all files together.

    Yields:
        The index, then the content in chunks of `CHUNK_BYTES`, the last of which is shorter.

    Raises:
        RunError: The files are too large, cannot be read, or change meanwhile.
    """
    try:
        files = [(file, file.stat().st_size) for file in _files(source)]
        if (total := sum(size for _, size in files)) > most_bytes:
            raise RunError(f"{source} has {total} bytes, more than the {most_bytes} that a cluster is sent")
        names = [(path_text(file.relative_to(base)), size) for file, size in files]
        yield json_text(names, indent=None).encode()
        yield from _chunks(_content(files))
    except OSError as error:
        raise RunError(f"cannot read {error.filename or source} ({error.strerror or error})") from error


def unpack(chunks: Iterable[bytes], target: Path, most_bytes: int) -> None:
    """Write the files of a parcel.

    Args:
        chunks: Chunks from `pack`.
        target: Folder in which the files are written. Files of the same names must not exist.
        most_bytes: Largest accepted size of all files together.

    Raises:
        RunError: The parcel is damaged, a name leads out of the folder, or the files are too large.
        EdgeadError: A file cannot be written.
    """
    parts = iter(chunks)
    with record_errors(RunError, "a parcel of a cluster is damaged", "run the same command again"):
        index = record_from(tuple[tuple[str, int], ...], parse_json(bytes(next(parts, b"")), MAX_INDEX_BYTES))
        files = [(_checked_name(name), size) for name, size in index]
        if any(size < 0 for _, size in files) or len({name for name, _ in files}) < len(files):
            raise RecordError("a size is negative, or a name stands twice")
        total = sum(size for _, size in files)
        target.mkdir(parents=True, exist_ok=True)
        if total > min(most_bytes, shutil.disk_usage(target).free):
            raise RecordError(f"its {total} bytes are more than allowed, or than {target} has free")
        stream = _Stream(parts)
        with write_errors(target):
            for name, size in files:
                file = target / name
                file.parent.mkdir(parents=True, exist_ok=True)
                with open(file, "xb") as opened:
                    for piece in stream.read(size):
                        opened.write(piece)
        stream.check_end()


def _files(source: Path) -> Iterator[Path]:
    """Yield the files of a source in a fixed order; each folder once, also if links lead to it in a circle."""
    if not source.is_dir():
        yield source
        return
    seen: set[str] = set()
    for place, folders, names in os.walk(source, onerror=_fail, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else sorted(name for name in folders if not name.startswith("."))
        if real not in seen:
            yield from (
                Path(place, name)
                for name in sorted(names)
                if not name.startswith(".") and os.path.isfile(os.path.join(place, name))
            )
        seen.add(real)


def _fail(error: OSError) -> None:
    """Raise the error of a folder that cannot be read, which would be left out otherwise."""
    raise error


def _content(files: Iterable[tuple[Path, int]]) -> Iterator[bytes]:
    for file, size in files:
        with open(file, "rb") as opened:
            left = size
            while block := opened.read(min(left, CHUNK_BYTES)):
                left -= len(block)
                yield block
            if left or opened.read(1):
                raise RunError(f"{file} changed while it was read", hint="run the same command again")


def _chunks(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Join blocks of any size, and cut them to chunks of one size."""
    waiting = bytearray()
    for block in blocks:
        waiting += block
        while len(waiting) >= CHUNK_BYTES:
            yield bytes(waiting[:CHUNK_BYTES])
            del waiting[:CHUNK_BYTES]
    if waiting:
        yield bytes(waiting)


def _checked_name(text: str) -> str:
    """Return a name of the index as a relative path; RecordError if it leads out of the folder."""
    try:
        name = path_from_text(text)
    except ValueError as error:
        raise RecordError(f"{text[:80]!r} is no name of a file") from error
    parts = name.split("/")
    if (
        any(part in ("", ".", "..") for part in parts)
        or "\0" in name
        or len(os.fsencode(name)) > MAX_NAME_BYTES
    ):
        raise RecordError(f"{text[:80]!r} is no name of a file inside a folder")
    return name


class _Stream:
    """The content of a parcel, read in pieces of any length."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._rest = chunks, memoryview(b"")

    def read(self, count: int) -> Iterator[memoryview]:
        """Yield the next bytes in pieces; RecordError if there are too few."""
        while count:
            if not self._rest:
                self._rest = memoryview(next(self._chunks, b"")).cast("B")
                if not self._rest:
                    raise RecordError("it is cut short")
            piece, self._rest = self._rest[:count], self._rest[count:]
            count -= len(piece)
            yield piece

    def check_end(self) -> None:
        """Raise RecordError if bytes are left."""
        if self._rest or next(self._chunks, None) is not None:
            raise RecordError("it has more bytes than its index")
