"""Every option of every command has a help text and a default in words."""

import os
import re
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from edgead.cli.main import app

ROOT = typer.main.get_command(app)
PYTHON_TYPES = r"INTEGER|FLOAT|TEXT|PATH|FILENAME|BOOLEAN|UUID|<\w*(path|int|float|str|list|bool)\b"


def commands(command=ROOT, names=()):
    """Return every command with options of its own, by the words that a user types."""
    found = {} if hasattr(command, "commands") and names else {names: command}
    for name, below in getattr(command, "commands", {}).items():
        found |= commands(below, (*names, name))
    return found


COMMANDS = commands()
PARAMETERS = [
    (names, parameter)
    for names, command in COMMANDS.items()
    for parameter in command.params
    if not {"--install-completion", "--show-completion"} & set(parameter.opts)
]


def record(names, parameter):
    context = COMMANDS[names].make_context("edgead", [], resilient_parsing=True)
    return parameter.get_help_record(context)


def test_all_commands_are_found():
    assert {"train", "build", "stream", "info", "plugin build"} <= {" ".join(names) for names in COMMANDS}


@pytest.mark.parametrize(
    ("names", "parameter"), PARAMETERS, ids=[f"{'-'.join(n)}.{p.name}" for n, p in PARAMETERS]
)
def test_a_parameter_has_a_text_a_default_and_a_metavar_in_words(names, parameter):
    declaration, text = record(names, parameter)
    assert len((parameter.help or "").split()) >= 2
    assert not re.search(PYTHON_TYPES, declaration), declaration
    if not getattr(parameter, "is_flag", False):
        assert parameter.required or "[default: " in text, text
        assert parameter.required == ("required" in text.rpartition("[")[2]), text


@pytest.mark.parametrize("names", [(), *COMMANDS, ("plugin",)], ids=" ".join)
def test_h_is_help(names):
    short, long = (CliRunner().invoke(app, [*names, option]) for option in ("-h", "--help"))
    assert short.exit_code == long.exit_code == 0
    assert short.output == long.output
    assert short.output.startswith("Usage: ")
    assert not re.search(PYTHON_TYPES, short.output)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("edgead tr", {"train"}),
        ("edgead train x --method uninf", {"uninformed-students"}),
        ("edgead train x --alignment una", {"unaligned"}),
        ("edgead build x --target rtx-d", {"rtx-desktop"}),
        ("edgead build x --precision fp", {"fp16", "fp32"}),
    ],
)
def test_a_shell_completes(typed, offered):
    environment = {
        **os.environ,
        "_EDGEAD_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(typed.split()) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-c", "from edgead.cli.main import main; main()"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert set(done.stdout.split()) == offered
