"""Trigger files: a file ``ID.trigger`` that appears in a folder announces a part, and is removed as the answer.

The folder is polled, so a network share works. The content is not read, so a file that is not written completely does
no harm. Other files are never touched. A file that was there before the start belongs to a part that has passed.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from edgead.errors import TriggerError
from edgead.streaming.line import LineControl
from edgead.streaming.pauses import pause_s
from edgead.streaming.triggers.base import ThreadTrigger, announce, report_trouble

SUFFIX = ".trigger"
_POLL_S = 0.01
# Files that are looked at in one turn, because a folder may hold any number.
_MOST_FILES = 1000


class FolderTrigger(ThreadTrigger):
    """A folder with trigger files.

    Args:
        folder: Folder that is there.

    Raises:
        TriggerError: The folder is not there, or its files cannot be removed.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        if not _is_folder(folder):
            raise TriggerError(f"{folder} is no folder", hint="give file:FOLDER with a folder that is there")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise TriggerError(
                f"files in {folder} cannot be removed",
                hint="change the rights, because a taken file is removed",
            )
        self._folder = folder
        self.name = f"file:{folder}"

    def _run(self, line: LineControl) -> None:
        tries, is_late = 0, True
        while not self._stopping.wait(pause_s(tries) if tries else _POLL_S):
            try:
                found = self._found()
                for path in found:
                    now_ns = time.monotonic_ns()
                    # Removed first: a file that stays would announce its part again and again.
                    path.unlink()
                    text = os.fsencode(path.name.removesuffix(SUFFIX))
                    announce(line, text, now_ns, is_late=is_late)
            except OSError as error:
                tries, is_late = tries + 1, True
                report_trouble(line, self.name, error.strerror or "the folder cannot be read", tries)
                continue
            # More files than one turn takes were there before, too.
            line.trouble, tries, is_late = None, 0, is_late and len(found) == _MOST_FILES

    def _found(self) -> list[Path]:
        """Return the trigger files, by name."""
        found: list[Path] = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.endswith(SUFFIX) and not entry.is_dir(follow_symlinks=False):
                    found.append(Path(entry.path))
                if len(found) == _MOST_FILES:
                    break
        return sorted(found)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        # No file can have such a name.
        return False
