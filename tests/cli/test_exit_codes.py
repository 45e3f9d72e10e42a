"""The table of exit codes is the same in the code and in the documentation."""

import re
from pathlib import Path

from edgead import errors
from edgead.errors import (
    EXIT_CODES,
    CollapseError,
    EdgeadError,
    IncompleteError,
    SlowerError,
    VerificationError,
)

DOCUMENT = Path(__file__).parents[2] / "docs" / "command-line.md"


def kinds(kind: type[EdgeadError]) -> set[type[EdgeadError]]:
    return {kind}.union(*(kinds(below) for below in kind.__subclasses__()))


def test_every_error_ends_in_a_code_of_the_table():
    codes = {kind: kind.exit_code for kind in kinds(EdgeadError) if kind.__module__ == errors.__name__}
    assert codes.pop(VerificationError) == 3
    assert codes.pop(CollapseError) == 4
    assert codes.pop(IncompleteError) == 5
    assert codes.pop(SlowerError) == 6
    assert set(codes.values()) == {1}
    assert set(EXIT_CODES) == {0, 1, 2, 3, 4, 5, 6, 129, 130, 143}


def test_the_document_has_the_table():
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert {int(code): text for code, text in rows} == dict(EXIT_CODES)
