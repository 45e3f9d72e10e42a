"""A line of a terminal that is written over, on a real pseudo-terminal and on one that is played by hand."""

from __future__ import annotations

import fcntl
import io
import os
import struct
import termios
from collections.abc import Iterator
from typing import TextIO

import pytest

from edgead.files.terminal_line import TerminalLine, columns_of, fitting, is_drawable
from tests.helpers.screen import Screen


@pytest.fixture(autouse=True)
def no_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def terminal() -> Iterator[TextIO]:
    """A pseudo-terminal."""
    ours, theirs = os.openpty()
    with open(ours, "rb"), open(theirs, "w") as stream:
        yield stream


def resize(terminal: TextIO, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))


def test_the_width_follows_the_terminal_and_the_user(
    terminal: TextIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = TerminalLine(terminal)
    for columns in (120, 20):
        resize(terminal, columns)
        assert line.columns == columns - 1
    monkeypatch.setenv("COLUMNS", "33")
    assert line.columns == 32
    for value in ("", "0", "wide", "-5", "²"):
        monkeypatch.setenv("COLUMNS", value)
        assert line.columns == 19
    # A terminal that does not know its size, and a stream that is none.
    resize(terminal, 0)
    assert line.columns == TerminalLine(io.StringIO()).columns == 79


@pytest.mark.parametrize("columns", [1, 2, 5, 20, 40])
def test_a_line_is_written_over_and_never_wraps(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    screen = Screen(columns)
    line = TerminalLine(screen)
    texts = [
        "scored 2 of 1234 images of 扳手",
        "扳手扳手扳手扳手扳手扳手扳手扳手扳手扳手扳手",
        "done",
        "a\x1b[31m\nb",
    ]
    for text in [*texts, ""]:
        line.show(text)
        assert len(screen.lines) == 1
        shown = screen.lines[0].rstrip(" \0")
        assert text.replace("\x1b", "\\x1b").replace("\n", "\\n").startswith(shown.replace("\0", ""))
    line.show("left")
    line.end()
    line.show("below")
    line.clear()
    screen.write("b")
    assert [text.rstrip() for text in screen.lines] == ["left"[: max(columns - 1, 1)], "b"]
    assert "\x1b" not in screen.written


@pytest.mark.parametrize(
    ("text", "columns", "expected"),
    [
        ("scored 12 of 1234 images", 24, "scored 12 of 1234 images"),
        ("scored 12 of 1234 images", 23, "scored 12 of 1234"),
        # A number is never cut.
        ("scored 12 of 1234 images", 16, "scored 12 of"),
        ("epoch 3/20  left 3 min 5 s  loss 0.25", 36, "epoch 3/20  left 3 min 5 s"),
        ("epoch 3/20  left 3 min 5 s  loss 0.25", 26, "epoch 3/20  left 3 min 5 s"),
        ("epoch 3/20  left 3 min 5 s  loss 0.25", 25, "epoch 3/20"),
        ("epoch 3/20  left 3 min 5 s  loss 0.25", 9, "epoch"),
        ("score  0.2500", 12, "score"),
        ("score  0.2500", 5, "score"),
        ("unbroken", 3, "unb"),
        ("扳手 3", 5, "扳手"),
        ("扳手扳手", 5, "扳手"),
        ("e\u0301te\u0301", 3, "e\u0301te\u0301"),
    ],
)
def test_only_whole_figures_and_words_are_shown(text: str, columns: int, expected: str) -> None:
    assert fitting(text, columns) == expected


@pytest.mark.parametrize(
    ("text", "columns"), [("", 0), ("ab", 2), ("ü", 1), ("扳手", 4), ("\uff21", 2), ("e\u0301", 1), ("한", 2)]
)
def test_the_columns_of_a_text(text: str, columns: int) -> None:
    assert columns_of(text) == columns


@pytest.mark.parametrize(
    ("term", "drawable"),
    [
        ("xterm-256color", True),
        ("linux", True),
        ("", True),
        ("dumb", False),
        ("DUMB", False),
        ("unknown", False),
    ],
)
def test_a_terminal_that_cannot_go_back_is_not_drawn_on(
    term: str, drawable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    assert is_drawable(Screen(80)) is drawable
    # A file or a pipe is none at all.
    assert not is_drawable(io.StringIO())
