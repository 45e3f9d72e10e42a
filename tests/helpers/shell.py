"""Runs shell commands of the documentation in this process, where edgead is imported once."""

from __future__ import annotations

import glob
import shlex
import subprocess

from tests.helpers.command_line import run_main
from tests.helpers.mqtt_broker import free_port

# Commands of the shell that change files of the working directory alone.
HARMLESS = ("cp", "mkdir")


def commands_of(text: str) -> list[list[str]]:
    """Words of each command of a block, without comments. A backslash at the end continues a line."""
    lines = text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def can_run(words: list[str]) -> bool:
    """Whether `run_command` knows the command, and nothing else is on its line."""
    return words[0] in ("edgead", *HARMLESS) and not {"|", "&", "&&", ";", ">"} & set(words)


def run_command(words: list[str]) -> None:
    """Run a command in the working directory; it must end with exit code 0.

    No camera is plugged into a machine that runs tests, so the folder `frames` stands for camera 0, and a free port for
    8000.
    """
    assert can_run(words), words
    if words[0] != "edgead":
        subprocess.run([each for word in words for each in glob.glob(word) or [word]], check=True)
        return
    arguments = [word.replace(":8000", f":{free_port()}") for word in words[1:]]
    for number, word in enumerate(arguments):
        if number and (arguments[number - 1], word) == ("--source", "0"):
            arguments[number] = "frames"
    assert run_main(*arguments) == 0, words
