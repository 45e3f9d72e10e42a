"""Hostile text at every exit of the package: nothing that controls a terminal leaves it."""

from __future__ import annotations

import ast
import json
import logging
import os
import re
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest

import edgead
from edgead.cli import main as command_line
from edgead.cli.progress import ProgressDisplay, echo, first_line, report
from edgead.cli.standard_streams import print_if_read
from edgead.errors import DataError, EdgeadError
from edgead.evaluation.html import page_template
from edgead.files.parsing import json_text, parse_json
from edgead.files.progress import TrainingState, log_state
from edgead.streaming.sinks import JsonLines, StatusLine
from edgead.streaming.sinks.base import SinkCount
from edgead.streaming.state import StateChange
from edgead.streaming.summary import Summary
from edgead.text import one_line, path_from_text, path_text, printable
from edgead.types import Frame, Verdict

HOSTILE = {
    "newline": "a\nerror: b",
    "carriage return": "a\rgood",
    "tab": "a\tb",
    "bell": "a\x07",
    "backspace": "a\x08\x08b",
    "null": "a\x00b",
    "colour": "\x1b[31mred\x1b[0m",
    "title": "\x1b]0;owned\x07",
    "clear": "\x1b[2J\x1b[H",
    "delete": "a\x7f\x7fb",
    "C1 control sequence": "a\x9b31mb",
    "C1 next line": "a\x85b",
    "right-to-left override": "gnp.\u202eevil",
    "isolate": "a\u2066b\u2069",
    "line separator": "a\u2028b",
    "paragraph separator": "a\u2029b",
    "zero width": "a\u200bb\ufeff",
    "tag": "a\U000e0041b",
    "bytes that are not UTF-8": os.fsdecode(b"gut_\xfc\x9b31m_0.png"),
    "surrogate alone": "a\ud800b",
}
# Text of people, which stays as it is.
HARMLESS = (
    "screw 1",
    "Gehäuse_ü",
    "螺丝　01",
    "나사",
    "ボルト",
    "é",
    "a\\b",
    "50%",
    "C:\\x",
    "<b>&'\"",
    "-x",
    "🔩",
)

LOG = logging.getLogger("edgead.some.module")


def dangers(text: str) -> str:
    """Characters of a text that control a terminal, or that no stream can encode."""
    return "".join(
        c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Cn", "Zl", "Zp") and c != "\n"
    )


hostile = pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)


@hostile
def test_hostile_text_becomes_one_visible_line(text: str) -> None:
    shown = printable(text)
    assert dangers(shown) == ""
    assert "\n" not in shown
    assert printable(shown) == shown
    shown.encode("utf-8")
    # The letters stay, so that a person can find the file.
    assert set(re.findall("[a-z]", text)) <= set(shown)


@pytest.mark.parametrize("text", HARMLESS)
def test_harmless_text_is_unchanged(text: str) -> None:
    assert printable(text) == text


def test_escapes_are_those_of_python() -> None:
    assert printable("a\nb\x1b\x7f\x85\u202e\U000e0041") == r"a\nb\x1b\x7f\u0085\u202e\U000e0041"
    assert printable(os.fsdecode(b"gut_\xfc_0.png")) == r"gut_\xfc_0.png"
    assert one_line("a:\n\tb  \r\n c") == "a: b c"


NAMES = [
    *(os.fsencode(text) for name, text in HOSTILE.items() if name not in ("null", "surrogate alone")),
    *(text.encode() for text in HARMLESS),
    *(bytes([value]) for value in range(1, 256)),
    rb"gut_\xfc_0.png", b"gut_\xfc_0.png", b"\\\\", b"\\", b"\xc3\xbc", b"\xc3\\xbc", b"x" * 255,
]  # fmt: skip


def test_paths_of_any_bytes_are_told_apart_in_json_and_come_back() -> None:
    texts = [path_text(os.fsdecode(name)) for name in NAMES]
    for name, text in zip(NAMES, texts, strict=True):
        written = json_text({"path": text})
        assert written.isascii()
        assert json.loads(written)["path"].encode("utf-8") == text.encode("utf-8")
        assert os.fsencode(path_from_text(json.loads(written)["path"])) == name
    assert len(set(texts)) == len(set(NAMES))


@pytest.mark.parametrize("text", ["a\\", r"a\b", r"\x41", r"\xF", r"\\\x"])
def test_a_text_that_no_path_has_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="backslash"):
        path_from_text(text)


@hostile
def test_json_is_ascii_and_unicode(text: str) -> None:
    for indent in (None, 2):
        written = json_text({text: [text, f"\\{text}", "🔩"]}, indent)
        assert written.isascii()
        assert dangers(written) == ""
        parse_json(written, 1000)
        (found,) = json.loads(written).values()
        [part.encode("utf-8") for part in found]
        assert found[2] == "🔩"
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            assert dangers(found[0]).isascii() or "\x9b" in text
        else:
            assert found == [text, f"\\{text}", "🔩"]


@hostile
def test_an_error_is_one_visible_line(text: str) -> None:
    error = EdgeadError(f"cannot read {text}", hint=f"rename {text}")
    assert dangers(str(error) + error.what + str(error.hint)) == ""
    assert "\n" not in str(error)


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: str, error: Exception | None = None) -> object:
    def fail(*_: object, **__: object) -> None:
        assert error is not None
        raise error

    if error is not None:
        monkeypatch.setattr(command_line, "app", fail)
    monkeypatch.setattr(sys, "argv", ["edgead", *arguments])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    return ended.value.code


@hostile
def test_the_command_line_prints_an_error_on_one_line(
    text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_main(monkeypatch, error=DataError(f"no {text}")) == 1
    assert run_main(monkeypatch, error=PermissionError(13, "denied", text)) == 1
    out, err = capsys.readouterr()
    assert dangers(out + err) == ""
    assert err.count("\n") == err.count("error: ", 0) - err.count("error: b") == 2


@hostile
def test_a_usage_error_shows_no_control_character(
    text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments in ((text,), ("info", "a", text), ("info", f"--{text}"), ("train", "a", "--epochs", text)):
        assert run_main(monkeypatch, *arguments) == 2
    out, err = capsys.readouterr()
    assert dangers(out + err) == ""
    assert [line.partition(" ")[0] for line in err.splitlines()] == ["error:"] * 4


@hostile
@pytest.mark.parametrize("terminal", [True, False])
def test_the_display_of_a_command(
    text: str, terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    monkeypatch.setenv("TERM", "dumb")
    for timed in (False, True):
        with ProgressDisplay(timed=timed):
            LOG.info("reading %s", text)
            LOG.warning("left out: %s", text)
    first_line(f"training on {text}")
    report(text)
    echo(f"a\n{text}")
    out, err = capsys.readouterr()
    assert dangers(out + err) == ""
    assert err.count("reading") == err.count("warning: left out") == 2


@hostile
def test_lines_above_the_bar_of_a_training(text: str, capfd: pytest.CaptureFixture[str]) -> None:
    with ProgressDisplay():
        log_state(LOG, TrainingState(0, 2, 0.5, 0.1, 1.0))
        LOG.warning("left out: %s", text)
    err = capfd.readouterr().err
    assert dangers(err) == ""
    assert len(err.splitlines()) == 2


@hostile
def test_the_log_of_a_program_that_imports_edgead(text: str) -> None:
    heard: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    handler, root = Handler(), logging.getLogger()
    root.addHandler(handler)
    try:
        LOG.warning("%s: no image %d", text, 3)
    finally:
        root.removeHandler(handler)
    (line,) = heard
    assert dangers(line) == ""
    assert "\n" not in line
    assert line.endswith(": no image 3")
    assert edgead.__version__


def verdict_of(text: str) -> Verdict:
    return Verdict(0, 0.5, 0.4, True, 1.0, (), part=text)


FRAME = np.zeros((4, 4, 3), np.uint8)
MAP = np.zeros((4, 4), np.float32)


@hostile
def test_the_status_line(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with StatusLine() as sink:
        sink.write(Frame(FRAME, 0, 0, text), verdict_of(text), MAP)
        sink.state(StateChange("no_signal", "running", (), text, 1.0))
    assert dangers(capsys.readouterr().err) == ""


@hostile
def test_the_summary_of_a_stream(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    sinks = (SinkCount(f"jsonl:{text}", 2, 1, problem=f"no {text}"), SinkCount("status:", 3, 0))
    lines = Summary(3, 3, 0, 0, 0, 0, {}, 0, {}, *[None] * 6, duration_s=1.0, sinks=sinks).text().split("\n")
    assert [line.startswith("sink ") for line in lines[-3:]] == [False, True, True]
    assert dangers("".join(lines)) == ""
    print_if_read(f"a\n{text}")
    assert dangers(capsys.readouterr().out) == ""


@hostile
def test_json_lines_on_standard_output(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with JsonLines("-") as sink:
        sink.write(Frame(FRAME, 0, 0, text), verdict_of(text), MAP)
        sink.state(StateChange("no_signal", "running", (), text, 1.0))
    out = capsys.readouterr().out
    assert out.isascii()
    assert dangers(out) == ""
    assert [json.loads(line)["event"] for line in out.splitlines()] == ["verdict", "state"]


@hostile
def test_a_page(text: str) -> None:
    from jinja2 import DictLoader

    template = page_template("gallery.html")
    environment = template.environment.overlay(
        loader=DictLoader({"x": "<p title='{{ text }}'>{{ text }}</p>{{ svg | safe }}"})
    )
    page = environment.get_template("x").render(text=f"{text}<script>'\"", svg="<svg>\n</svg>")
    assert dangers(page) == ""
    page.encode("utf-8")
    assert "<script" not in page
    assert page.endswith("<svg>\n</svg>")


def test_only_one_function_of_the_command_line_prints() -> None:
    folder = Path(edgead.__file__).parent / "cli"
    printing = []
    for file in sorted(folder.glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if name in ("print", "typer.echo", "typer.secho", "click.echo") or name.endswith(
                ("stdout.write", "stderr.write", "stdout.buffer.write")
            ):
                printing.append(file.name)
    # The function itself, and the one for results that nobody may read.
    assert printing == ["progress.py", "standard_streams.py"]
