"""The check of words finds what edgead does not say, in names and sentences, and leaves ordinary English alone."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / ".ci" / "words.py"
_SPEC = importlib.util.spec_from_file_location("words", SCRIPT)
assert _SPEC is not None
assert _SPEC.loader is not None
words = importlib.util.module_from_spec(_SPEC)
sys.modules["words"] = words
_SPEC.loader.exec_module(words)


def found(path: str, text: str) -> list[str]:
    return [word for _, word, _ in words.findings(path, text)]


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("README.md", "Pictures of good parts", ["pictures"]),
        ("edgead/a.py", "from edgead.data import read_picture, GoodPictures\n", ["picture", "pictures"]),
        ("edgead/a.py", "PICTURE_SUFFIXES = 3\n", ["picture"]),
        ("edgead/engine/a.py", "class Budgets: ...\n", ["Budgets"]),
        ("edgead/export/a.py", "found = calibration.shifts\n", ["shifts"]),
        ("docs/a.md", "Call `half_from_float`.", ["half_from_float"]),
        ("edgead/streaming/a.py", "sink.turn()\n", ["turn"]),
        ("edgead/a.py", '"""A sink is told."""\n', ["is told"]),
        ("engines/targets/a.toml", "[budgets.fp32]\n", ["[budgets"]),
        ("edgead/runtime/a.py", "lane = 3\n", ["lane"]),
    ],
)
def test_an_old_word_is_found(path: str, text: str, expected: list[str]) -> None:
    assert found(path, text) == expected


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("README.md", "In turn, the order of the curve; a circuit board; on purpose; a plane; it says so."),
        ("docs/a.md", "Python version ranges, learning-rate peaks, a false-alarm budget, the limits."),
        ("edgead/data/a.py", "shifts = ranges = peaks = 1\n"),
        ("edgead/a.py", "length = file.tell()\n"),
        ("edgead/plugin/a.cu", "int lanes = 32;"),
        ("edgead/comparison/figures.py", "class Comparison: ...\n"),
        ("edgead/a.py", "import torch  # importing torch takes a second\n"),
    ],
)
def test_ordinary_english_is_not_found(path: str, text: str) -> None:
    assert found(path, text) == []


def test_lines_are_numbered() -> None:
    assert words.findings("a.md", "good\n\nrung")[0][:2] == (3, "rung")


def test_the_exit_code_says_whether_a_word_was_found(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    (checkout / ".ci").mkdir(parents=True)
    (checkout / ".ci" / "words.py").write_bytes(SCRIPT.read_bytes())
    codes = []
    for text in ("images\n", "images and a ladder\n"):
        (checkout / "page.md").write_text(text)
        command = [sys.executable, ".ci/words.py", "page.md"]
        codes.append(subprocess.run(command, cwd=checkout, capture_output=True, check=False).returncode)
    assert codes == [0, 1]
