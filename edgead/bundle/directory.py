"""A bundle: the directory that `edgead build` writes and a device opens; written whole, checked when opened.

    manifest.json    what it is (`edgead.bundle.manifest`), with the hash of every other file
    model.onnx       the model
    golden.npz       a few images and what the model said of them (`edgead.bundle.golden`)

A bundle is untrusted input. Opening one reads a bounded manifest, refuses every name that would leave the
directory, and hashes every file; nothing in it is unpickled or run here. A TensorRT engine in it is code for the
GPU, and a version-compatible one brings code for the host along, which TensorRT runs: open those of people you
trust. The hashes tell a damaged bundle from a whole one. They do not tell who made it, and they hold for the moment
of opening.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from edgead.bundle.golden import Golden, read_golden
from edgead.bundle.manifest import MAX_MANIFEST_BYTES, REBUILD, SCHEMA, FileEntry, Manifest, check_file_name
from edgead.errors import BundleError, InputError
from edgead.files.atomic import check_directory, replace_directory, restore_directory

__all__ = ["SCHEMA", "Bundle", "FileEntry", "Manifest", "check_out", "open_bundle", "write_bundle"]

MANIFEST = "manifest.json"
_CHUNK_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle: every file was whole when it was opened."""

    path: Path
    manifest: Manifest

    def file(self, name: str) -> Path:
        """Path of a listed file, such as ``model.onnx``; BundleError when the manifest lists no such file."""
        if name not in self.manifest.files:
            raise BundleError(f"{self.path} has no {name}: {REBUILD}")
        return self.path / name

    def golden(self) -> Golden:
        """The golden images and the outputs expected for them; BundleError when not of the model's size and parts."""
        size = self.manifest.size
        golden = read_golden(
            self.file("golden.npz"), size.height_px, size.width_px, len(self.manifest.thresholds)
        )
        if set(golden.part.tolist()) != set(range(len(self.manifest.thresholds))):
            raise BundleError(f"{self.path} has not golden images of each of its parts: {REBUILD}")
        return golden


def write_bundle(out: Path, manifest: Manifest, files: Mapping[str, Path | bytes]) -> Bundle:
    """Write a bundle to `out`, in place of the one that may be there, and return it opened.

    files: content, or the path of a file to copy, by name. The manifest's own `files` is replaced by what
    is written. A kill at any moment leaves the previous bundle whole. Raises BundleError for a name that is
    not a plain relative path, InputError when `out` holds something that is not a bundle, EdgeadError
    when it cannot be written.
    """
    for name in files:
        check_file_name(name)
    # What was the current directory is another one once it is replaced.
    out = Path(os.path.abspath(out))
    check_out(out)
    with replace_directory(out) as partial:
        entries = {}
        for name, content in files.items():
            file = partial / name
            file.parent.mkdir(parents=True, exist_ok=True)
            entries[name] = _write(file, content)
        text = replace(manifest, files=entries).to_json()
        (partial / MANIFEST).write_text(text, encoding="utf-8")
    return open_bundle(out)


def check_out(out: Path) -> None:
    """Raise InputError for a place where no bundle can be written, or that holds something else."""
    check_directory(out)
    if out.is_dir() and any(out.iterdir()) and not (out / MANIFEST).is_file():
        raise InputError(f"{out} holds files that are no bundle: choose an empty or new directory")


def open_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Open the bundle in a directory and check all of it: manifest, sizes, hashes.

    Args:
        path: Directory that `edgead build` wrote.

    Returns:
        The opened bundle.

    Raises:
        BundleError: If anything is missing, changed, too big, outside the directory, or of a newer schema; the message
            names the file and the hint.

    Example:
        >>> import edgead
        >>> bundle = edgead.open_bundle("engines/my-parts")
        >>> bundle.manifest.method
        'rd'
    """
    path = Path(path)
    if not path.exists():
        restore_directory(path)
    if not path.is_dir():
        kind = "is not a directory" if path.exists() else "does not exist"
        raise BundleError(f"bundle {path} {kind}: give the directory that 'edgead build' wrote")
    if not os.path.lexists(path / MANIFEST):
        raise BundleError(
            f"{path} has no {MANIFEST}, so it is no bundle: give the directory that 'edgead build' wrote"
        )
    with _open_inside(path, MANIFEST) as file:
        content = file.read(MAX_MANIFEST_BYTES + 1)
    try:
        manifest = Manifest.from_json(content)
    except BundleError as error:
        raise BundleError(f"{path / MANIFEST}: {error}") from error
    for name, entry in manifest.files.items():
        _check(path, name, entry)
    return Bundle(path, manifest)


def _write(file: Path, content: Path | bytes) -> FileEntry:
    """Write content, or copy a file, hashing what is written."""
    digest, size = hashlib.sha256(), 0
    with open(file, "wb") as target:
        if isinstance(content, bytes):
            target.write(content)
            return FileEntry(hashlib.sha256(content).hexdigest(), len(content))
        with open(content, "rb") as source:
            while chunk := source.read(_CHUNK_BYTES):
                target.write(chunk)
                digest.update(chunk)
                size += len(chunk)
    return FileEntry(digest.hexdigest(), size)


def _check(root: Path, name: str, entry: FileEntry) -> None:
    with _open_inside(root, name) as file:
        found = os.fstat(file.fileno()).st_size
        if found != entry.bytes:
            raise BundleError(
                f"{root / name} is {found} bytes, not the {entry.bytes} it was built with: {REBUILD}"
            )
        digest = hashlib.sha256()
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    if digest.hexdigest() != entry.sha256:
        raise BundleError(
            f"{root / name} has changed since it was built (its SHA-256 differs): copy it again or {REBUILD}"
        )


def _open_inside(root: Path, name: str) -> BinaryIO:
    """Open a regular file that lies inside `root` even after its links are followed."""
    file = root / name
    try:
        if not file.resolve(strict=True).is_relative_to(root.resolve(strict=True)):
            raise BundleError(f"{file} is a link that leaves the bundle: {REBUILD}")
        # A named pipe would make open() wait for ever.
        if not stat.S_ISREG(file.stat().st_mode):
            raise BundleError(f"{file} is not a regular file: {REBUILD}")
        return open(file, "rb")
    except FileNotFoundError as error:
        raise BundleError(f"{file} is missing: copy it again or {REBUILD}") from error
    except (OSError, RuntimeError) as error:
        raise BundleError(f"cannot read {file} ({error}): check its rights, or {REBUILD}") from error
