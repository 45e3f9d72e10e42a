"""Inputs of a prediction: image files, folders of images, patterns such as `parts/*.png`, and videos."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from edgead.data import count_left_out, left_out_text
from edgead.data.layouts import folders_in, images_in
from edgead.errors import DataError, InputError
from edgead.files.addresses import without_secrets
from edgead.imaging.decode import IMAGE_SUFFIXES


@dataclass(frozen=True, slots=True)
class Input:
    """An image file or a video.

    Attributes:
        path: Path of the file, as the user gave it, or below the folder that the user gave.
        is_video: Whether the file is a video: every file without the suffix of an image is opened as one.
    """

    path: Path
    is_video: bool

    @classmethod
    def of(cls, path: Path) -> Input:
        """Return the input of a file.

        Args:
            path: Path of the file.
        """
        return cls(path, path.suffix.lower() not in IMAGE_SUFFIXES)


@dataclass(frozen=True, slots=True)
class Inputs:
    """All inputs of a prediction.

    Attributes:
        files: Images and videos: arguments in the given order, the files of one argument sorted, each file once.
        left_out: A line for each folder with files that are not read.
    """

    files: tuple[Input, ...]
    left_out: tuple[str, ...]

    def digest(self) -> str:
        """Compute the SHA-256 of the names, sizes and times of the files, in hex."""
        digest = hashlib.sha256()
        for file in self.files:
            try:
                status = file.path.stat()
                state = f"{status.st_size} {status.st_mtime_ns}"
            except OSError:
                state = "missing"
            digest.update(os.fsencode(file.path) + f"\0{state}\0".encode())
        return digest.hexdigest()


def find_inputs(arguments: Sequence[str], recursive: bool, out: Path) -> Inputs:
    """List the files of the arguments of a user.

    Args:
        arguments: Image files, folders, patterns and videos.
        recursive: Whether the images in the folders below a folder belong to it.
        out: Directory of the results, of which no file is an input.

    Returns:
        The inputs, 1 or more.

    Raises:
        InputError: An argument is missing, or a pattern matches no file.
        DataError: A folder has no image or cannot be read, or all images are in `out`.
    """
    files: dict[str, Path] = {}
    left_out = []
    real, results = cache(os.path.realpath), os.path.realpath(out)
    for argument in arguments:
        path = Path(argument)
        if argument and path.is_dir():
            folders = list(_folders(path, recursive, results))
            found = [image for folder in folders for image in images_in(folder)]
            counts = count_left_out(folders)
            # A shell may expand inbox/* to the results in it, when the command is given again.
            if folders and not found:
                raise _without_image(path, recursive)
            if (line := left_out_text(counts, path)) is not None:
                left_out.append(line)
        elif argument and os.path.lexists(path):
            found = [path]
        else:
            found = _matches(argument, results)
        for file in found:
            # By the real folder: "link/.." is not the folder of the link, and "**" follows links in circles.
            folder = real(file.parent)
            if not Path(folder).is_relative_to(results):
                files.setdefault(os.path.join(folder, file.name), file)
    if not files:
        raise DataError(
            f"all images are in --out {out}, and images there count as results", hint="choose another --out"
        )
    return Inputs(tuple(map(Input.of, files.values())), tuple(left_out))


def _folders(folder: Path, recursive: bool, out: str) -> Iterator[Path]:
    """Yield a folder and, if asked for, the folders below it; each once, also if links lead to it in a circle."""
    seen: set[str] = set()
    waiting = [folder]
    while waiting:
        folder = waiting.pop()
        real = os.path.realpath(folder)
        if Path(real).is_relative_to(out) or real in seen:
            continue
        seen.add(real)
        yield folder
        if recursive:
            waiting += reversed(folders_in(folder))


def _without_image(folder: Path, recursive: bool) -> DataError:
    """Make the error of a folder without an image."""
    if not recursive and folders_in(folder):
        return DataError(f"no image in {folder}", hint="add --recursive for the folders below it")
    return DataError(f"no image in {folder}", hint=f"give a folder with images ({', '.join(IMAGE_SUFFIXES)})")


def _matches(pattern: str, out: str) -> list[Path]:
    """Return the files that a pattern matches, sorted; those below `out` are left out."""
    if not glob.has_magic(pattern):
        raise InputError(
            f"{without_secrets(pattern)!r} is not there",
            hint="give image files, folders, patterns such as 'parts/*.png', or videos",
        )
    found = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]
    matching = [file for file in found if file.is_file()]
    files = [file for file in matching if not Path(os.path.realpath(file)).is_relative_to(out)]
    if not matching:
        raise InputError(f"no file matches {pattern!r}", hint="check the pattern, and put it in quotes")
    return files
