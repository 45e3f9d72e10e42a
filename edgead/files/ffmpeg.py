"""Names of video files for FFmpeg, which OpenCV opens by name only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgead.files.cache import temporary_directory


@contextmanager
def ffmpeg_name(path: Path) -> Iterator[str]:
    """Give FFmpeg a name for a file, to be opened inside of the context.

    It is absolute, because FFmpeg takes what stands before a colon for a protocol. OpenCV crashes on a name that is not
    UTF-8, so a link stands in for such a file.

    Args:
        path: Path with any name; the file need not exist.

    Yields:
        The name.

    Raises:
        EdgeadError: A link is needed, and no temporary directory can be made.
    """
    name = str(path.absolute())
    if name == name.encode(errors="replace").decode():
        yield name
        return
    with temporary_directory() as folder:
        link = folder / ("video" + path.suffix.encode("ascii", "ignore").decode())
        link.symlink_to(name)
        yield str(link)
