"""Execution of one command of edgead in a process of its own, with its messages in a log file."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgead.text import printable, shell_line

_log = logging.getLogger(__name__)

# The system ends the command with the process that started it, so that a lost worker leaves no training behind.
_TIED = (
    "import ctypes, os, runpy, sys\n"
    "ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL\n"
    "if os.getppid() == int(sys.argv.pop(1)): runpy.run_module('edgead', run_name='__main__', alter_sys=True)\n"
)


def run_command(
    command: Sequence[str],
    log: Path,
    *,
    lock: int | None = None,
    environment: Mapping[str, str] | None = None,
    tied: bool = False,
) -> str | None:
    """Run one command to its end. The lines of its standard error are logged.

    Args:
        command: Arguments of the command, the first of which is "edgead".
        log: File to append the command and its output to.
        lock: Descriptor that the command inherits.
        environment: Environment of the command; None for the one of this process.
        tied: Whether the command is killed when this process dies.

    Returns:
        Error of the command in one line, None if it succeeded.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    program = ["-c", _TIED, str(os.getpid())] if tied else ["-m", command[0]]
    last = "no message"
    with log.open("a", encoding="utf-8") as written:
        print(f"$ {shell_line(command)}", file=written, flush=True)
        process = subprocess.Popen(
            [sys.executable, *program, *command[1:]],
            stdout=written,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env=environment,
            pass_fds=[] if lock is None else [lock],
        )
        with process:
            try:
                assert process.stderr is not None
                for line in process.stderr:
                    print(printable(line.rstrip("\n")), file=written, flush=True)
                    if text := line.strip():
                        last = text
                        _log.info("  %s", text)
            except BaseException:
                process.terminate()
                raise
    return _error(command, process.returncode, last, log)


def _error(command: Sequence[str], code: int, last: str, log: Path) -> str | None:
    """Return the error of an ended command in one line, None if it succeeded."""
    if code == 0:
        return None
    name = " ".join(command[:2])
    if code < 0:
        return f"{name} was ended by signal {-code}: check whether memory ran out, and try again"
    if last.startswith("error: "):
        return last.removeprefix("error: ")
    return f"{name} ended with exit code {code}: {last}; see {log}"
