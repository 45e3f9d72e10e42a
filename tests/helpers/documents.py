"""The pages of the documentation, and the code in them as CommonMark reads it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[2]
PAGES = tuple(
    page.relative_to(ROOT).as_posix()
    for page in (
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
        *sorted((ROOT / "docs").rglob("*.md")),
    )
)

_MARK = re.compile(r"<!-- (not run|run by): (.+?) -->\s*$", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block of code on a page.

    Attributes:
        page: Path of the page in the repository.
        line: Number of its first line, from 1.
        language: Word behind the fence; empty for a block without one.
        text: The code.
        reason: Reason why it is not run, from the comment before it; None if it is run.
        test: Path of the test that runs it, from the comment before it; None if `test_examples.py` runs it.
    """

    page: str
    line: int
    language: str
    text: str
    reason: str | None = None
    test: str | None = None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_from_text(text: str, page: str) -> list[Block]:
    """Return the blocks of code of a page, with the marks before them."""
    found, mark = [], None
    for token in MarkdownIt("commonmark").parse(text):
        if token.type == "html_block":
            mark = _MARK.search(token.content)
        elif token.type in ("fence", "code_block"):
            assert token.map is not None
            marks = {} if mark is None else {"reason" if mark[1] == "not run" else "test": mark[2]}
            found.append(Block(page, token.map[0] + 1, token.info.strip(), token.content, **marks))
            mark = None
        else:
            mark = None
    return found


def blocks_of(page: str) -> list[Block]:
    """Return the blocks of code of a page of the repository."""
    return blocks_from_text((ROOT / page).read_text(encoding="utf-8"), page)
