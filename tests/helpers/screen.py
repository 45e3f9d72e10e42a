"""A terminal that keeps what a person would see on it."""

from __future__ import annotations

import io

from edgead.files.terminal_line import columns_of


class Screen(io.StringIO):
    """A terminal of some columns. It knows carriage returns and newlines, and wraps long lines.

    Attributes:
        lines: What it shows; a NUL is the second half of a wide character.
        written: All that was written to it.
    """

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.columns, self.lines, self._at, self.written = columns, [""], 0, ""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.written += text
        for character in text:
            if character == "\r":
                self._at = 0
            elif character == "\n":
                self.lines.append("")
                self._at = 0
            else:
                self._put(character)
        return len(text)

    def _put(self, character: str) -> None:
        width = columns_of(character)
        if self._at + width > self.columns:
            self.lines.append("")
            self._at = 0
        before = self.lines[-1].ljust(self._at)
        cell = character + "\0" * (width - 1)
        self.lines[-1] = before[: self._at] + cell + before[self._at + width :]
        self._at += width
