"""Triggers of commands, which are real ones."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from edgead.errors import TriggerError
from edgead.streaming import open_trigger
from edgead.streaming.triggers.base import MOST_ID_BYTES, MOST_ID_CHARACTERS
from edgead.streaming.triggers.command import Lines
from tests.helpers.trigger_parts import LIMIT_S, started, wait_until


def test_each_line_of_a_command_is_a_part(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with started(f"exec:cat '{pipe}'") as (_, line), pipe.open("w") as lines:
        before_ns = time.monotonic_ns()
        lines.write("A1\n\n  B 2 \n")
        lines.flush()
        line.take(3)
        lines.write("last\n")
        lines.flush()
        parts = line.take(4)
        assert line.trouble is None
    assert line.ids == ["A1", None, "B 2", "last"]
    assert [part.number for part in parts] == [1, 2, 3, 4]
    times = [part.triggered_ns for part in parts]
    assert before_ns <= times[0]
    assert times == sorted(times)
    assert parts[0].problem is None


def test_a_command_that_ends_is_started_again_and_reported() -> None:
    with started("exec:sh -c 'echo once; exit 3'") as (_, line):
        wait_until(lambda: line.trouble)
        assert "3" in str(line.trouble)
        wait_until(lambda: len(line.poll()) >= 2)
    assert set(line.ids) == {"once"}


def test_a_command_that_works_again_is_no_trouble(tmp_path: Path) -> None:
    # It ends at once the first time, and stays the second time.
    script = f"if [ -e {tmp_path}/once ]; then sleep 60; else touch {tmp_path}/once; fi"
    with started(f'exec:sh -c "{script}"') as (_, line):
        wait_until(lambda: line.trouble)
        wait_until(lambda: line.trouble is None)


def test_the_end_of_a_trigger_ends_the_command_and_its_children(tmp_path: Path) -> None:
    # Neither of them ends by SIGTERM.
    script = f"trap : TERM; (trap : TERM; echo $$ > {tmp_path}/pid; echo x; while :; do sleep 0.1; done) & wait; wait"
    with started(f'exec:sh -c "{script}"') as (_, line):
        line.take(1)
        group = os.getpgid(int((tmp_path / "pid").read_text()))
        assert group != os.getpgid(0)

    def is_gone() -> bool:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        return False

    wait_until(is_gone)


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from edgead.streaming import LineControl, PartRule, open_trigger
from pathlib import Path
place = Path(sys.argv[2])
line = LineControl(PartRule())
open_trigger(f"exec:sh -c 'echo $$ > {place}/new; mv {place}/new {place}/pid; exec sleep 600'").start(line)
while not (place / "pid").exists():
    pass
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_command_ends_with_a_stream_that_is_killed(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parents[3]), str(tmp_path)]
    # No pipes: the command would have them, too, and the test would wait for its end.
    with (tmp_path / "errors").open("w+") as errors:
        done = subprocess.run(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=errors, check=False, timeout=LIMIT_S
        )
    assert done.returncode == -signal.SIGKILL, (tmp_path / "errors").read_text()
    number = int((tmp_path / "pid").read_text())
    process = Path(f"/proc/{number}/stat")

    def is_gone() -> bool:
        try:
            # Somebody else may take its exit code late.
            return process.read_text().rpartition(") ")[2].startswith("Z")
        except (FileNotFoundError, ProcessLookupError):
            return True

    try:
        wait_until(is_gone)
    finally:
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


@pytest.mark.parametrize("command", ["", "no-such-command-here", "sh -c 'open quote"])
def test_a_command_that_cannot_run_is_refused(command: str) -> None:
    with pytest.raises(TriggerError):
        open_trigger(f"exec:{command}")


def test_arguments_of_a_command_are_not_in_its_name() -> None:
    with open_trigger("exec:sh -c secret") as trigger:
        assert trigger.name == "exec:sh"


def test_lines_of_any_length_and_content_are_bounded() -> None:
    lines = Lines()
    assert list(lines.feed(b"a" * 10**6)) == []
    assert list(lines.feed(b"b" * 10**6 + b"\nrest")) == [b"a" * MOST_ID_BYTES]
    assert list(lines.feed(b"\n\n")) == [b"rest", b""]
    with started("exec:sh -c 'head -c 300000 /dev/zero; echo; printf \"\\377\\033[31m\\n\"; sleep 60'") as (
        _,
        line,
    ):
        parts = line.take(2)
    assert all(len(part.part_id or "") <= MOST_ID_CHARACTERS for part in parts)
    assert all((part.part_id or "").isprintable() for part in parts)
