"""Text from outside for people: names of files and parts, headers, manifests, and messages of libraries.

A file name is any sequence of bytes, and Python decodes it with lone surrogates (PEP 383). A name or a header may hold
escape sequences that move the cursor of a terminal, or bidirectional controls that reorder a line. So every text that
edgead prints, logs, draws or writes into a page passes `printable`. In JSON a path passes `path_text`, which keeps
every name and can be reversed.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import unicodedata
from collections.abc import Iterable

MAX_TEXT = 1500
"""Characters of a description of an error."""

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
# A byte that is not UTF-8 is decoded to one of these surrogates.
_BYTES = range(0xDC80, 0xDD00)
_ESCAPED = re.compile(r"\\(\\|x[89a-f][0-9a-f])")


def printable(text: str) -> str:
    r"""Return a text on one line without characters that control a terminal.

    Args:
        text: Any text.

    Returns:
        The text. Control characters (C0, DEL, C1), format characters such as bidirectional overrides, line separators,
        lone surrogates and unassigned characters are replaced by escapes such as ``\n``, ``\x1b`` and ``\u202e``; a
        byte of a file name that is not UTF-8 by ``\xfc``. A printable text is returned unchanged.

    Example:
        >>> printable("gut\x1b[31m.png")
        'gut\\x1b[31m.png'
    """
    if text.isprintable():
        return text
    return "".join(character if _is_visible(character) else _escape(character) for character in text)


def shortened(text: str) -> str:
    """Return a text with its middle left out if it is longer than `MAX_TEXT`: a damaged file can hold a long value.

    Args:
        text: Any text.

    Returns:
        At most `MAX_TEXT` characters.
    """
    if len(text) <= MAX_TEXT:
        return text
    end = MAX_TEXT // 4
    return f"{text[: MAX_TEXT - end - 5]} ... {text[-end:]}"


def one_line(message: object) -> str:
    """Return the text of an error of a library, with a space in place of line breaks and indentation.

    Args:
        message: Error or text.
    """
    return " ".join(str(message).split())


def duration(seconds: float) -> str:
    """Format a time in seconds for people: `0.4 s`, `12 s`, `3 min 5 s`, `2 h 10 min`.

    Args:
        seconds: Time in seconds, at least 0.
    """
    if seconds < 10.0:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def path_text(path: str | os.PathLike[str]) -> str:
    r"""Return a path as Unicode text, for JSON.

    Args:
        path: Path as the system gives it.

    Returns:
        The path, with ``\xfc`` for a byte that is not UTF-8 and ``\\`` for a backslash. `path_from_text` reverses it.
    """
    text = os.fspath(path).replace("\\", "\\\\")
    return "".join(_escape(c) if "\ud800" <= c <= "\udfff" else c for c in text)


def folder_name(folder: os.PathLike[str]) -> str:
    """Return the name of a folder as a printable text: the name of the part in it.

    Args:
        folder: Path of the folder.

    Returns:
        The last component of the path. Two folders of other names never have the same text.
    """
    return printable(path_text(os.path.basename(os.fspath(folder))))


def shell_line(command: Iterable[str]) -> str:
    r"""Return a command as a printable line that a shell such as bash runs.

    Args:
        command: Arguments of the command.

    Returns:
        The arguments in quotes where needed. Where an argument is not printable, it is written as ``$'a\374b'``.
    """
    return " ".join(map(_quoted, command))


def path_from_text(text: str) -> str:
    """Return the path of a text that `path_text` wrote.

    Args:
        text: Text of a path.

    Raises:
        ValueError: The text has a backslash that `path_text` does not write.
    """
    if "\\" in _ESCAPED.sub("", text):
        raise ValueError("a backslash in a path must be doubled")
    return _ESCAPED.sub(lambda found: _unescaped(found[1]), text)


class PrintableRecords(logging.Handler):
    """Logging handler that makes the messages of records printable, in place.

    It is the first handler of the logger `edgead`, so every later handler and the handlers of the root logger get
    the printable message. It prints nothing.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Replace the message of a record that is not printable. See `logging.Handler.emit`."""
        message = record.getMessage()
        if (shown := printable(message)) != message:
            record.msg, record.args = shown, None


def _is_visible(character: str) -> bool:
    # Spaces of other widths, such as the ideographic one, are not "printable" in Python but do no harm.
    return character.isprintable() or unicodedata.category(character) == "Zs"


def _quoted(argument: str) -> str:
    if printable(argument) == argument:
        return shlex.quote(argument)
    plain = "".join(
        chr(byte) if (chr(byte).isalnum() and byte < 128) or byte in b"/._-" else f"\\{byte:03o}"
        for byte in os.fsencode(argument)
    )
    return f"$'{plain}'"


def _escape(character: str) -> str:
    code = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    if code in _BYTES:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _unescaped(code: str) -> str:
    return code if code == "\\" else chr(0xDC00 + int(code[1:], 16))
