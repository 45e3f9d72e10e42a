"""Every command on a narrow terminal, with NO_COLOR, without a terminal: the same lines, and no escape sequence."""

from __future__ import annotations

import json
import re
import sys
import warnings
from pathlib import Path
from shutil import rmtree

import pytest

from edgead.errors import InputError
from tests.helpers.command_line import TRAIN, make_world, run_main
from tests.helpers.screen import Screen

COMMANDS = (
    "info bundle",
    "info run --json",
    "eval bundle parts",
    "eval run parts --json",
    "threshold bundle",
    "threshold bundle parts",
    "threshold bundle --undo",
    "build bundle --out rebuilt",
    "stream bundle --source good --sink jsonl:- --max-frames 2",
    "stream bundle --source good --sink jsonl:verdicts.jsonl --sink status:",
    "predict bundle good --out predicted",
    "compare parts --methods rd,stfpm --out compared --list",
    "doctor",
    "--version",
    # Errors of each kind: of an input, of a usage, of a bundle.
    "train missing --out out",
    "train good --out out --size 64 --epochs many",
    "eval bundle_changed parts",
    "import other.pt --data good --out imported",
    "calibrate bundle --data parts --out notes.txt/x.json",
    "demo --out notes.txt",
    "plugin build --out notes.txt/x",
)
# Times, and the speed of a stream.
_CHANGING = re.compile(r"\d+(\.\d+)?( ms| s| a second| MB|e-\d+)?|[ ]+")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


def shown(
    line: str, columns: int | None, terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> tuple[int | str | None, list[str], str, str]:
    """Run a command; return its exit code, the lines of standard error on the screen, and all of both outputs."""
    out, err = Screen(200), Screen(columns or 80)
    with monkeypatch.context() as patch:
        for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
            patch.delenv(name, raising=False)
        patch.setenv("TERM", "xterm-256color")
        if columns is not None:
            patch.setenv("COLUMNS", str(columns))
        if terminal:
            patch.setenv("NO_COLOR", "1")
        else:
            # Many systems of continuous integration set it.
            patch.setenv("FORCE_COLOR", "1")
            for stream in (out, err):
                patch.setattr(stream, "isatty", lambda: False)
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        code = run_main(*line.split())
    return code, err.lines, out.written, err.written


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_prints_the_same_on_every_terminal(
    line: str, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world)
    found = []
    for columns, terminal in ((None, False), (20, False), (40, True)):
        rmtree("predicted", ignore_errors=True)
        code, _, out, err = shown(line, columns, terminal, monkeypatch)
        assert "\x1b" not in out + err
        assert terminal or "\r" not in out + err
        assert "\r" not in out
        if code not in (0, 2):
            error = [text for text in err.split("\n") if text.startswith("error: ")]
            assert len(error) == 1
            assert err.endswith(f"{error[0]}\n")
        found.append((code, out, err))
    wide, narrow, *drawn = found
    # Whoever reads a log finds no line that the width has broken.
    for one in (narrow, *drawn):
        assert one[0] == wide[0]
        assert _CHANGING.sub("", one[1]) == _CHANGING.sub("", wide[1])
    if wide[0] != 2:
        assert _CHANGING.sub("", narrow[2]) == _CHANGING.sub("", wide[2])
    if "jsonl:-" in line:
        for text in wide[1].splitlines():
            json.loads(text)


@pytest.mark.parametrize("columns", [20, 40])
def test_a_training_on_a_narrow_terminal(
    columns: int, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world)
    code, lines, out, err = shown(
        f"train good --out {tmp_path / 'run'} {' '.join(TRAIN)}", columns, True, monkeypatch
    )
    assert code == 4
    assert "\x1b" not in out + err
    bars = [text.rstrip() for text in re.split("[\r\n]", err) if text.startswith("epoch 1/1")]
    assert bars
    assert all(len(text) < columns for text in bars)
    # It is on one line of the screen, and the lines below begin on their own.
    assert [text.rstrip() for text in lines if text.startswith("epoch")] == [bars[-1]]


def test_the_help_of_a_narrow_terminal_has_no_colour(monkeypatch: pytest.MonkeyPatch, world: Path) -> None:
    for terminal in (False, True):
        code, _, out, _ = shown("train --help", 40, terminal, monkeypatch)
        assert code == 0
        assert "\x1b" not in out
        assert "--false-alarm-rate" in out


def test_a_warning_of_a_library_is_one_printable_line(
    world: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import edgead.api

    def warn(*_: object, **__: object) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("the file a\nb\x1b[2J is odd", UserWarning, stacklevel=1)
            warnings.warn("x" * 10_000, RuntimeWarning, stacklevel=1)
        raise InputError("the end")

    monkeypatch.setattr(edgead.api, "build", warn)
    before = warnings.showwarning
    assert run_main("build", str(world / "run"), "--out", str(world / "out")) == 1
    assert warnings.showwarning is before
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 4)
    _, first, second, error = err.splitlines()
    assert first == "warning: the file a b\\x1b[2J is odd (UserWarning)"
    assert second.startswith("warning: xxx")
    assert len(second) < 2000
    assert error == "error: the end"
