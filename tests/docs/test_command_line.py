"""The page of the command line names every command, and no option that a command does not have."""

from __future__ import annotations

import re
from typing import Any

import pytest
import typer

from edgead.cli.main import app
from tests.helpers.documents import ROOT

PAGE = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
# By the heading of a section: "edgead train DATA... --out DIR".
SECTIONS = {
    match[1]: match[2] for match in re.finditer(r"^## (edgead .+)\n((?:(?!## ).*\n)*)", PAGE, re.MULTILINE)
}


def options_of(command: Any) -> set[str]:
    """Options of a command, and of the commands below it."""
    found = {name for parameter in command.params for name in parameter.opts if name.startswith("--")}
    return found.union(*map(options_of, getattr(command, "commands", {}).values()))


def test_every_command_has_a_section() -> None:
    group: Any = typer.main.get_command(app)
    headings = " ".join(SECTIONS)
    assert [name for name in group.commands if f"edgead {name}" not in headings] == []


@pytest.mark.parametrize("heading", SECTIONS)
def test_a_section_names_options_of_its_commands_only(heading: str) -> None:
    group: Any = typer.main.get_command(app)
    known = {"--help"}.union(
        *(options_of(group.commands[name]) for name in re.findall(r"edgead ([\w-]+)", heading))
    )
    # Another command in backticks has options of its own.
    text = re.sub(r"`edgead [^`]+`", "", SECTIONS[heading])
    assert sorted(set(re.findall(r"--[a-z][a-z0-9-]+", heading + text)) - known) == []
