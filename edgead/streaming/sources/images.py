"""Images of a folder: the images that it holds, or also every image that comes later, if the folder is watched.

Many cameras save images to a network share. A watched folder is polled, because network shares do not report changes.
An image is read after its size, time and inode have not changed for `SETTLED_S` seconds, so that an image that is still
being written is left alone. `edgead.imaging.preprocess.read_image` checks again that the image is complete.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from edgead.data import count_left_out, left_out_text
from edgead.errors import ImageError, SourceError
from edgead.imaging.decode import IMAGE_SUFFIXES, dark_text, read_image
from edgead.streaming.sources.base import Source
from edgead.types import Frame

POLL_S = 0.1
SETTLED_S = 0.3

_log = logging.getLogger(__name__)

_State: TypeAlias = tuple[int, int, int]  # size in bytes, modified in ns, inode


def open_images(folder: Path, bit_depth: int | None = None) -> ImageSource:
    """Open the images of a folder, sorted by name.

    Args:
        folder: Folder with image files.
        bit_depth: Depth of the values of image files with samples of 16 bits; None for the depth of the files.

    Returns:
        The source of these images; images that come later are not part of it.

    Raises:
        SourceError: The folder cannot be read or has no images.
    """
    paths = sorted(folder / name for name in _image_states(folder))
    if not paths:
        raise SourceError(
            f"{folder} holds no image ({', '.join(IMAGE_SUFFIXES)})",
            hint="give another folder, or --watch to wait for images",
        )
    _warn_of_left_out(folder)
    return ImageSource(str(folder), paths, bit_depth)


class ImageSource(Source):
    """Image files, in the given order. A broken file ends the stream with an ImageError.

    Args:
        uri: Address of the source.
        paths: Image files.
        bit_depth: Depth of the values of image files with samples of 16 bits; None for the depth of the files.
    """

    def __init__(self, uri: str, paths: Sequence[Path], bit_depth: int | None = None) -> None:
        super().__init__(uri)
        self._paths, self._bit_depth = paths, bit_depth

    def __iter__(self) -> Iterator[Frame]:
        for index, path in enumerate(self._paths):
            if self._stopping.is_set():
                return
            yield _frame(path, index, self._bit_depth)


class WatchedFolder(Source):
    """The images of a folder sorted by name, then every new or rewritten image; ends only when stopped.

    An image that cannot be read is logged as a warning and left out together with its index, because a broken file must
    not end a stream that runs for months. It is read again when it changes.

    Args:
        folder: Folder to watch.
        poll_s: Time between two looks at the folder, in seconds.
        settled_s: Time in seconds for which a file must not change before it is read.
        bit_depth: Depth of the values of image files with samples of 16 bits; None for the depth of the files.

    Raises:
        SourceError: The folder cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        *,
        poll_s: float = POLL_S,
        settled_s: float = SETTLED_S,
        bit_depth: int | None = None,
    ) -> None:
        super().__init__(str(folder))
        self._folder, self._poll_s, self._settled_s = folder, poll_s, settled_s
        self._bit_depth = bit_depth
        _image_states(folder)
        _warn_of_left_out(folder)

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        taken: dict[str, _State] = {}
        standing: dict[str, tuple[_State, float]] = {}
        while not self._stopping.is_set():
            now = time.monotonic()
            states = _image_states(self._folder)
            # Names of removed files are forgotten, so that memory stays bounded.
            taken = {name: state for name, state in taken.items() if name in states}
            standing = {
                name: standing[name] if standing.get(name, (None,))[0] == state else (state, now)
                for name, state in states.items()
                if taken.get(name) != state
            }
            for name in sorted(
                name for name, (_, since) in standing.items() if now - since >= self._settled_s
            ):
                if self._stopping.is_set():
                    return
                taken[name] = standing.pop(name)[0]
                try:
                    yield _frame(self._folder / name, index, self._bit_depth)
                except ImageError as error:
                    _log.warning("left out: %s", error)
                    self.broken += 1
                index += 1
            self._stopping.wait(self._poll_s)


def _frame(path: Path, index: int, bit_depth: int | None) -> Frame:
    """Read an image file; the time of capture is the start of reading."""
    captured_at_ns = time.monotonic_ns()
    image = read_image(path, bit_depth)
    # Said of the first image alone, since a stream may have a million.
    if index == 0 and (line := dark_text(image, str(path))) is not None:
        _log.warning("%s", line)
    return Frame(image=image, index=index, captured_at_ns=captured_at_ns, source=str(path))


def _warn_of_left_out(folder: Path) -> None:
    if (line := left_out_text(count_left_out([folder]), folder)) is not None:
        _log.warning("%s", line)


def _image_states(folder: Path) -> dict[str, _State]:
    """State of every image file in the folder, by name; programs often write to hidden files, so these are ignored."""
    states: dict[str, _State] = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or not entry.name.lower().endswith(IMAGE_SUFFIXES):
                    continue
                try:
                    status = entry.stat()
                except FileNotFoundError:  # removed after it was listed
                    continue
                states[entry.name] = (status.st_size, status.st_mtime_ns, status.st_ino)
    except OSError as error:
        raise SourceError(
            f"cannot read the folder {folder} ({error.strerror})", hint="check the path and its rights"
        ) from error
    return states
