"""Images of a folder: the images that it holds, or also every image that comes later, if the folder is watched.

Many cameras save images to a network share. A watched folder is polled, because network shares do not report changes.
An image is read after its size, time and inode have not changed for `SETTLED_S` seconds, so that an image that is still
being written is left alone. `edgead.imaging.preprocess.read_image` checks again that the image is complete.

A share may be away for a while: its folder cannot be read, is empty, or gives its files new inodes when it is back.
Images that were taken before are not taken again then.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from edgead.data import count_left_out, left_out_text
from edgead.errors import AbsentSourceError, ImageError, SourceError
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
    states, unusable = _image_states(folder)
    for name, reason in unusable.items():
        _log.warning("left out: cannot read %s (%s)", folder / name, reason)
    paths = sorted(folder / name for name in states)
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

    A broken image is logged as a warning and left out together with its index, because it must not end a stream that
    runs for months. It is read again when it changes. A file that the system cannot read, such as a dangling link, is
    tried again and again, and a folder that is away is waited for.

    Args:
        folder: Folder to watch.
        poll_s: Time between two looks at the folder, in seconds.
        settled_s: Time in seconds for which a file must not change before it is read.
        bit_depth: Depth of the values of image files with samples of 16 bits; None for the depth of the files.

    Raises:
        AbsentSourceError: The folder cannot be read at the start.
    """

    endless = True

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
        self._taken: dict[str, _State] = {}
        self._warned: set[str] = set()
        self._was_away = False  # unreadable or empty since an image was last seen
        _image_states(folder)
        _warn_of_left_out(folder)

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        standing: dict[str, tuple[_State, float]] = {}
        while not self._stopping.is_set():
            now = time.monotonic()
            states = self._list()
            standing = {
                name: standing[name] if standing.get(name, (None,))[0] == state else (state, now)
                for name, state in states.items()
                if self._taken.get(name) != state
            }
            for name in sorted(
                name for name, (_, since) in standing.items() if now - since >= self._settled_s
            ):
                if self._stopping.is_set():
                    return
                state, _ = standing.pop(name)
                try:
                    yield _frame(self._folder / name, index, self._bit_depth)
                except ImageError as error:
                    if isinstance(error.__cause__, OSError):
                        # The file is whole, as far as is known, and is tried again.
                        self._warn_once(name, error.what)
                        continue
                    _log.warning("left out: %s", error)
                    self.broken += 1
                self._warned.discard(name)
                self._taken[name] = state
                index += 1
            self._stopping.wait(self._poll_s)

    def _list(self) -> dict[str, _State]:
        """Return the state of every image file, and update `trouble`; none if the folder is away."""
        try:
            states, unusable = _image_states(self._folder)
        except AbsentSourceError as error:
            if self.trouble is None:
                _log.warning("%s; looking again until it is back", error.what)
            self.trouble = error.what
            self._was_away = True
            return {}
        for name, reason in unusable.items():
            self._warn_once(name, f"cannot read {self._folder / name} ({reason})")
        if self.trouble is not None:
            _log.warning("%s: the folder is back", self.uri)
            self.trouble = None
        if not states:
            # A share that is away may look empty.
            self._was_away = True
            return {}
        if self._was_away:
            # The same size and time under another inode.
            self._taken.update(
                {
                    name: states[name]
                    for name, state in self._taken.items()
                    if name in states and states[name][:2] == state[:2]
                }
            )
            self._was_away = False
        # Names of removed files are forgotten, so that memory stays bounded.
        self._taken = {name: state for name, state in self._taken.items() if name in states}
        self._warned &= states.keys() | unusable.keys()
        return states

    def _warn_once(self, name: str, text: str) -> None:
        """Warn of a file, but not at every look at the folder."""
        if name not in self._warned:
            _log.warning("left out for now: %s", text)
            self._warned.add(name)


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


def _image_states(folder: Path) -> tuple[dict[str, _State], dict[str, str]]:
    """State of every image file in the folder, by name, and the reason for each that cannot be read now.

    Programs often write to hidden files, so these are ignored.
    """
    states: dict[str, _State] = {}
    unusable: dict[str, str] = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or not entry.name.lower().endswith(IMAGE_SUFFIXES):
                    continue
                try:
                    status = entry.stat()
                except OSError as error:
                    # Otherwise it was removed after it was listed.
                    if entry.is_symlink() or not isinstance(error, FileNotFoundError):
                        unusable[entry.name] = error.strerror or str(error)
                    continue
                states[entry.name] = (status.st_size, status.st_mtime_ns, status.st_ino)
    except OSError as error:
        raise AbsentSourceError(
            f"cannot read the folder {folder} ({error.strerror})", hint="check the path and its rights"
        ) from error
    return states, unusable
