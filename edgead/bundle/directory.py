"""A bundle: the directory that `edgead build` writes and a device opens; written whole, checked when opened.

    manifest.json    description of the bundle (`edgead.bundle.manifest`), with the hash of every other file
    model.onnx       the model
    golden.npz       a few images and the model's outputs for them (`edgead.bundle.golden`)

A bundle is untrusted input. Opening a bundle reads a manifest of limited size, refuses every file name that would leave
the directory, and hashes every file. This module neither unpickles nor runs any file of a bundle.

A TensorRT engine is code for the GPU. A version-compatible engine also contains code for the host, and TensorRT runs
it. Open such bundles only if you trust their authors. The hashes detect a damaged bundle. They do not prove who made
it, and they hold only for the moment of opening.
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
_GIVE = "give the directory that 'edgead build' wrote"


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle. Every file matched its hash when the bundle was opened.

    Attributes:
        path: Directory of the bundle.
        manifest: Content of its manifest.
    """

    path: Path
    manifest: Manifest

    def file(self, name: str) -> Path:
        """Return the path of a file of the bundle.

        Args:
            name: Path of the file relative to the bundle, such as ``model.onnx``.

        Raises:
            BundleError: The manifest does not list the file.
        """
        if name not in self.manifest.files:
            raise BundleError(f"{self.path} has no {name}", hint=REBUILD)
        return self.path / name

    def golden(self) -> Golden:
        """Read the golden images and the outputs expected for them.

        Raises:
            BundleError: The file is missing or damaged, its images do not have the model's size, or it does not hold
                images of each of the model's parts and of no other.
        """
        size = self.manifest.size
        golden = read_golden(
            self.file("golden.npz"), size.height_px, size.width_px, len(self.manifest.thresholds)
        )
        if set(golden.part.tolist()) != set(range(len(self.manifest.thresholds))):
            raise BundleError(f"{self.path} does not have golden images of each of its parts", hint=REBUILD)
        return golden


def write_bundle(out: Path, manifest: Manifest, files: Mapping[str, Path | bytes]) -> Bundle:
    """Write a bundle, or replace the previous one, and open it.

    A kill at any moment leaves the previous bundle whole.

    Args:
        out: Directory of the bundle. It is created if it does not exist.
        manifest: Description of the bundle. Its `files` are replaced by entries of the written files.
        files: Content of each file, or the path of a file to copy, by path relative to the bundle.

    Returns:
        The opened bundle.

    Raises:
        BundleError: A file name is not a plain relative path.
        InputError: `out` holds files that are not a bundle.
        EdgeadError: A file cannot be read or written.
    """
    for name in files:
        check_file_name(name)
    # A relative path would no longer be valid if `out` is the current directory, which is replaced below.
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
    """Check that a bundle can be written to a directory, without writing.

    Args:
        out: Directory of the bundle; it need not exist.

    Raises:
        InputError: No directory can be made there, or it holds files that are not a bundle.
    """
    check_directory(out)
    if out.is_dir() and any(out.iterdir()) and not (out / MANIFEST).is_file():
        raise InputError(f"{out} holds files that are no bundle", hint="choose an empty or new directory")


def open_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Open the bundle in a directory and check all of it: manifest, sizes, hashes.

    Args:
        path: Directory that `edgead build` wrote.

    Returns:
        The opened bundle.

    Raises:
        BundleError: A file is missing, changed, too large or outside the directory, or the manifest has a newer
            schema. The message names the file.

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
        raise BundleError(f"bundle {path} {kind}", hint=_GIVE)
    if not os.path.lexists(path / MANIFEST):
        raise BundleError(f"{path} has no {MANIFEST}, so it is not a bundle", hint=_GIVE)
    with _open_inside(path, MANIFEST) as file:
        content = file.read(MAX_MANIFEST_BYTES + 1)
    try:
        manifest = Manifest.from_json(content)
    except BundleError as error:
        raise BundleError(f"{path / MANIFEST}: {error.what}", hint=error.hint) from error
    for name, entry in manifest.files.items():
        _check(path, name, entry)
    return Bundle(path, manifest)


def _write(file: Path, content: Path | bytes) -> FileEntry:
    """Write content, or copy a file, and return the hash and size of the written file."""
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
    """Raise BundleError unless the file has the size and the hash of its entry."""
    with _open_inside(root, name) as file:
        found = os.fstat(file.fileno()).st_size
        if found != entry.bytes:
            raise BundleError(
                f"{root / name} is {found} bytes, not the {entry.bytes} it was built with", hint=REBUILD
            )
        digest = hashlib.sha256()
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    if digest.hexdigest() != entry.sha256:
        raise BundleError(
            f"{root / name} has changed since it was built (its SHA-256 differs)",
            hint=f"copy it again or {REBUILD}",
        )


def _open_inside(root: Path, name: str) -> BinaryIO:
    """Open a regular file that lies inside `root` after its links are followed."""
    file = root / name
    try:
        if not file.resolve(strict=True).is_relative_to(root.resolve(strict=True)):
            raise BundleError(f"{file} is a link that leaves the bundle", hint=REBUILD)
        # A named pipe would make open() wait for ever.
        if not stat.S_ISREG(file.stat().st_mode):
            raise BundleError(f"{file} is not a regular file", hint=REBUILD)
        return open(file, "rb")
    except FileNotFoundError as error:
        raise BundleError(f"{file} is missing", hint=f"copy it again or {REBUILD}") from error
    except (OSError, RuntimeError) as error:
        raise BundleError(f"cannot read {file} ({error})", hint=f"check its rights, or {REBUILD}") from error
