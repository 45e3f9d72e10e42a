"""A command that prints a line for each part: a GPIO monitor, a barcode reader, a program of the user.

The time of the trigger is the arrival of the line's end. A command that ends is started again, with increasing pauses.
"""

from __future__ import annotations

import os
import select
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress

from edgead.errors import TriggerError
from edgead.streaming.line import LineControl
from edgead.streaming.pauses import pause_s
from edgead.streaming.triggers.base import MOST_ID_BYTES, ThreadTrigger, announce, report_trouble

_POLL_MS = 50
_READ_BYTES = 2**16
# A command that has run for so long works; one that ended before is started again after a longer pause.
_WORKS_AFTER_S = 1.0
_STEADY_AFTER_S = 10.0
_TERMINATE_S = 0.2
# The time to split a command grows with the square of its length.
_MOST_CHARACTERS = 10_000
_EXAMPLE = "give exec:COMMAND with a command that prints a line for each part"


class CommandTrigger(ThreadTrigger):
    """A command, which runs without a shell in a process group of its own.

    Args:
        command: Command with its arguments, with the quotes of a shell.

    Raises:
        TriggerError: There is no such command, or it is too long.
    """

    def __init__(self, command: str) -> None:
        super().__init__()
        if len(command) > _MOST_CHARACTERS:
            raise TriggerError(f"the command has {len(command)} characters", hint="write it into a script")
        try:
            self._words = shlex.split(command)
        except ValueError as error:
            raise TriggerError(f"cannot read the command {command!r} ({error})", hint=_EXAMPLE) from error
        if not self._words or shutil.which(self._words[0]) is None:
            missing = repr(self._words[0]) if self._words else "nothing"
            raise TriggerError(f"there is no command {missing}", hint=_EXAMPLE)
        # Its arguments may hold secrets.
        self.name = f"exec:{self._words[0]}"
        # A stream that is killed cannot end its command, which would keep the input of the light barrier.
        if (setpriv := shutil.which("setpriv")) is not None:
            self._words = [setpriv, "--pdeathsig", "TERM", "--", *self._words]

    def _run(self, line: LineControl) -> None:
        tries = 0
        while not self._stopping.wait(pause_s(tries) if tries else 0.0):
            began_s = time.monotonic()
            reason = self._run_once(line)
            if time.monotonic() - began_s > _STEADY_AFTER_S:
                tries = 0
            tries += 1
            if not self._stopping.is_set():
                report_trouble(line, self.name, reason, tries)

    def _run_once(self, line: LineControl) -> str:
        """Run the command once; return why it has ended."""
        try:
            process = subprocess.Popen(
                self._words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
            )
        except OSError as error:
            return f"the command cannot start ({error.strerror})"
        with process:
            assert process.stdout is not None
            try:
                self._read(process.stdout.fileno(), line)
            finally:
                _end(process)
        return f"the command has ended with exit code {process.returncode}"

    def _read(self, descriptor: int, line: LineControl) -> None:
        """Announce a part for each line, until the output ends."""
        began_s, lines = time.monotonic(), Lines()
        # `select.select` fails for a descriptor above 1023.
        output = select.poll()
        output.register(descriptor, select.POLLIN)
        while not self._stopping.is_set():
            if line.trouble is not None and time.monotonic() - began_s > _WORKS_AFTER_S:
                line.trouble = None
            if not output.poll(_POLL_MS):
                continue
            data = os.read(descriptor, _READ_BYTES)
            now_ns = time.monotonic_ns()
            if not data:
                return
            for text in lines.feed(data):
                announce(line, text, now_ns)


class Lines:
    """Lines of an output that may be anything: only the beginning of a long line is kept."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the lines that end in the next bytes of the output."""
        first, *others = data.split(b"\n")
        self._rest = (self._rest + first)[:MOST_ID_BYTES]
        for other in others:
            yield self._rest
            self._rest = other[:MOST_ID_BYTES]


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command and the processes that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_TERMINATE_S)
    # Also for the processes of a command that has ended itself.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
