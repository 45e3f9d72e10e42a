"""Every message that the page of troubleshooting explains is one that edgead still prints."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tests.helpers.documents import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
FIRST_CELL = re.compile(r"^\| (`.+?`) \|", re.MULTILINE)
MESSAGES = sorted({code for cell in FIRST_CELL.findall(PAGE) for code in re.findall(r"`([^`]+)`", cell)})
VALUE = "\0"


@cache
def texts_of_code() -> list[str]:
    """Every text of the code, with a mark for each value in it."""
    texts = []
    for file in (ROOT / "edgead").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                pieces = (part.value if isinstance(part, ast.Constant) else VALUE for part in node.values)
                texts.append("".join(map(str, pieces)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(re.sub(r"%(\.\d)?[sdgfr]", VALUE, node.value))
    return texts


def is_printed(message: str) -> bool:
    """Whether a text of the code has the words of a message in their order, with values at its `...`."""
    words = [piece.strip() for piece in message.split("...") if piece.strip()]
    pattern = re.compile(f"[^\\w]*{VALUE}.*?".join(map(re.escape, words)), re.DOTALL)
    return any(pattern.search(text) for text in texts_of_code())


def test_the_page_has_many_messages() -> None:
    assert len(MESSAGES) > 60


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_of_the_page_is_in_the_code(message: str) -> None:
    assert len(re.findall(r"\w", message)) >= 7, "too few words to be found by"
    assert is_printed(message)


@pytest.mark.parametrize(
    "message", ["... is emptied", "camera no at ...", "no NVIDIA ... driver", "cannot ... listen on"]
)
def test_another_message_is_not_found(message: str) -> None:
    assert not is_printed(message)
