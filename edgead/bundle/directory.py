"""A bundle: the directory that `edgead build` writes and a device opens; written whole, checked when opened.

    manifest.json    description of the bundle (`edgead.bundle.manifest`), with the hash of every other file
    model.onnx       the model
    golden.npz       a few images and the model's outputs for them (`edgead.bundle.golden`)

A bundle is untrusted input. Opening a bundle reads a manifest of limited size, refuses every file name that would leave
the directory and every file that the manifest does not list, and hashes every file. Whoever uses a file reads it with
`Bundle.read`, which hashes the very bytes that it returns. This module neither unpickles nor runs any file of a bundle.

A TensorRT engine is code for the GPU. A version-compatible engine also contains code for the host, and TensorRT runs
it. Open such bundles only if you trust their authors. The hashes detect a damaged bundle. They do not prove who made
it.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from edgead.bundle.golden import Golden, max_golden_bytes, read_golden
from edgead.bundle.graph import MAX_GRAPH_BYTES, check_graph
from edgead.bundle.manifest import (
    MAX_FILE_BYTES,
    MAX_MANIFEST_BYTES,
    REBUILD,
    SCHEMA,
    FileEntry,
    Manifest,
    check_file_name,
)
from edgead.errors import BundleError
from edgead.files.atomic import check_directory, check_empty, replace_directory, restore_directory

__all__ = ["SCHEMA", "Bundle", "FileEntry", "Manifest", "check_out", "open_bundle", "write_bundle"]

MANIFEST = "manifest.json"
_CHUNK_BYTES = 2**20
# Names that edgead never opens: files of file systems and desktops, and detached signatures of the manifest.
_LEFT_ALONE = re.compile(r"\..*|manifest\.json\.(asc|minisig|sig)")
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

    def read(self, name: str, max_bytes: int = MAX_FILE_BYTES) -> bytes:
        """Read a file of the bundle, and check the very bytes that are returned.

        The file may have changed since the bundle was opened, so whoever uses its content takes it from here.

        Args:
            name: Path of the file relative to the bundle, such as ``model.engine``.
            max_bytes: Largest accepted size.

        Raises:
            BundleError: The manifest does not list the file, the file is larger than `max_bytes`, or it no longer has
                its size and hash.
        """
        path, entry = self.file(name), self.manifest.files[name]
        if entry.bytes > max_bytes:
            raise BundleError(f"{path} is {entry.bytes} bytes, more than {max_bytes}", hint=REBUILD)
        with _open_sized(self.path, name, entry) as file:
            content = file.read(entry.bytes)
        _check_hash(path, entry, hashlib.sha256(content))
        return content

    def graph(self) -> bytes:
        """Read ``model.onnx``, and check its structure and operators before a runtime sees it.

        Raises:
            BundleError: See `read` and `check_graph`.
        """
        content = self.read("model.onnx", MAX_GRAPH_BYTES)
        check_graph(content, str(self.path / "model.onnx"))
        return content

    def golden(self) -> Golden:
        """Read the golden images and the outputs expected for them.

        Raises:
            BundleError: The file is missing or damaged, its images do not have the model's size, or it does not hold
                images of each of the model's parts and of no other.
        """
        size = self.manifest.size
        golden = read_golden(
            self.read("golden.npz", max_golden_bytes(size)),
            str(self.path / "golden.npz"),
            size,
            len(self.manifest.thresholds),
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
    if not (out / MANIFEST).is_file():
        check_empty(out, "bundle", hidden_too=True)


def open_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Open the bundle in a directory and check all of it: manifest, sizes, hashes.

    Args:
        path: Directory that `edgead build` wrote.

    Returns:
        The opened bundle.

    Raises:
        BundleError: A file is missing, changed, too large or outside the directory, or the manifest has a newer
            schema, or the directory holds a file that the manifest does not list. The message names the file.

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
    _check_names(path, manifest.files)
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
    digest = hashlib.sha256()
    with _open_sized(root, name, entry) as file:
        # Not until the end of the file, because a file that grows has none.
        for _ in range(0, entry.bytes, _CHUNK_BYTES):
            digest.update(file.read(_CHUNK_BYTES))
    _check_hash(root / name, entry, digest)


def _check_hash(file: Path, entry: FileEntry, digest: hashlib._Hash) -> None:
    """Raise BundleError unless the digest is the one of the entry."""
    if digest.hexdigest() != entry.sha256:
        raise BundleError(
            f"{file} has changed since it was built (its SHA-256 differs)", hint=f"copy it again or {REBUILD}"
        )


def _check_names(root: Path, listed: Iterable[str]) -> None:
    """Raise BundleError if the directory holds a file that the manifest does not list and that is not left alone."""
    names = {MANIFEST, *listed}
    folders = {parent.as_posix() for name in names for parent in PurePosixPath(name).parents}
    try:
        for folder in sorted(folders):
            with os.scandir(root / folder) as entries:
                for entry in entries:
                    name = (PurePosixPath(folder) / entry.name).as_posix()
                    if name not in names | folders and not _LEFT_ALONE.fullmatch(entry.name):
                        raise BundleError(
                            f"{root} holds {name!r:.200}, which its manifest does not list",
                            hint=f"remove the file, or {REBUILD}",
                        )
    except FileNotFoundError:
        return  # The check of the listed files names the one that is missing.
    except OSError as error:
        raise BundleError(f"cannot read {root} ({error})", hint=f"check its rights, or {REBUILD}") from error


@contextmanager
def _open_sized(root: Path, name: str, entry: FileEntry) -> Iterator[BinaryIO]:
    """Open a file of the bundle that has the size of its entry; BundleError if it has another or cannot be read."""
    with _open_inside(root, name) as file:
        found = os.fstat(file.fileno()).st_size
        if found != entry.bytes:
            raise BundleError(
                f"{root / name} is {found} bytes, not the {entry.bytes} it was built with", hint=REBUILD
            )
        try:
            yield file
        except OSError as error:
            raise BundleError(f"cannot read {root / name} ({error})", hint=REBUILD) from error


def _open_inside(root: Path, name: str) -> BinaryIO:
    """Open a regular file that lies inside `root` after its links are followed."""
    file = root / name
    try:
        inside = file.resolve(strict=True)
        if not inside.is_relative_to(root.resolve(strict=True)):
            raise BundleError(f"{file} is a link that leaves the bundle", hint=REBUILD)
        # Opening a device may have effects, and the file may be replaced between this check and the next.
        if not stat.S_ISREG(inside.lstat().st_mode):
            raise BundleError(f"{file} is not a regular file", hint=REBUILD)
        # Without O_NONBLOCK a named pipe would make the call wait for ever.
        descriptor = os.open(inside, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise BundleError(f"{file} is missing", hint=f"copy it again or {REBUILD}") from error
    except (OSError, RuntimeError) as error:
        raise BundleError(f"cannot read {file} ({error})", hint=f"check its rights, or {REBUILD}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BundleError(f"{file} is not a regular file", hint=REBUILD)
    return os.fdopen(descriptor, "rb")
