"""A line of a terminal that is written over: the bar of a training, the count of scored images, the status of a stream.

It consists of text, spaces and carriage returns only, without colours and other escape sequences. So it needs no
support for `NO_COLOR`, and every terminal can show it. A line that wraps could not be overwritten, so it is cut to the
width of the terminal, between figures: a number is whole or absent.
"""

from __future__ import annotations

import io
import os
import unicodedata
from contextlib import suppress
from typing import TextIO

from edgead.text import printable

_USUAL_COLUMNS = 80


class TerminalLine:
    """A line that is written over, at the place of the cursor.

    Args:
        stream: Terminal, for which `is_drawable` is true.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown = 0

    @property
    def columns(self) -> int:
        """Columns that a text may have now. The last one stays empty, because some terminals wrap behind it."""
        return max(_columns_of_terminal(self._stream) - 1, 1)

    def show(self, text: str) -> None:
        """Write a text over the text that was shown before.

        Args:
            text: Text on one line. It is made printable and cut to the width, see `fitting`.
        """
        text = fitting(printable(text), self.columns)
        covered = min(self._shown, self.columns) - columns_of(text)
        self._write(f"\r{text}{' ' * covered}")
        self._shown = columns_of(text)

    def clear(self) -> None:
        """Remove the text, so that another line can be written at its place."""
        if self._shown:
            self.show("")
            self._write("\r")

    def end(self) -> None:
        """Leave the text as it is, and go to the next line."""
        if self._shown:
            self._write("\n")
        self._shown = 0

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def is_drawable(stream: TextIO) -> bool:
    """Return True if lines can be redrawn on a stream: a terminal, and not a dumb one such as the shell of an editor.

    Args:
        stream: Standard error, for instance.
    """
    return stream.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


def fitting(text: str, columns: int) -> str:
    """Return the beginning of a text that fits into some columns.

    Args:
        text: Printable text on one line, of figures with two spaces between them.
        columns: Columns of a terminal, 1 or more.

    Returns:
        The first figures; of a longer first figure its first words, of a longer first word its first characters.
    """
    if columns_of(text) <= columns:
        return text
    end = used = 0
    for character in text:
        used += columns_of(character)
        if used > columns:
            break
        end += 1
    for space in ("  ", " "):
        if before := text[: end + len(space)].rpartition(space)[0].rstrip():
            return before
    return text[:end]


def columns_of(text: str) -> int:
    """Return how many columns of a terminal a text takes: two for a wide East Asian character, none for an accent.

    Args:
        text: Printable text.
    """
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(unicodedata.category(character) in ("Mn", "Me") for character in text)


def _columns_of_terminal(stream: TextIO) -> int:
    """Return the columns that a user set with COLUMNS, or that the terminal has now."""
    asked = os.environ.get("COLUMNS", "")
    if asked.isascii() and asked.isdigit() and int(asked):
        return int(asked)
    with suppress(OSError, io.UnsupportedOperation):
        return os.get_terminal_size(stream.fileno()).columns or _USUAL_COLUMNS
    return _USUAL_COLUMNS
