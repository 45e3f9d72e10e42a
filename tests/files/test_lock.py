"""The lock of an output, with real processes: it refuses, it dies with its process, and it leaves nothing."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgead.errors import InputError
from edgead.files.lock import exclusive
from tests.helpers.command_line import files_in

HOLDER = """
import os, sys
from pathlib import Path
from edgead.files.lock import exclusive
with exclusive(Path(sys.argv[1])):
    if len(sys.argv) > 2 and os.fork() == 0:
        exec(sys.argv[2])
        os._exit(0)
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(target: Path, *in_fork: str) -> Iterator[subprocess.Popen[str]]:
    """Hold the lock of `target` in another process, until its standard input is closed or it is killed."""
    command = [sys.executable, "-c", HOLDER, str(target), *in_fork]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def refusal(target: Path) -> str:
    with pytest.raises(InputError) as caught, exclusive(target):
        pass
    return caught.value.what


def test_a_second_process_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with holder(out) as first:
        assert f" {first.pid} " in refusal(out)
        (tmp_path / "out").mkdir()
        (tmp_path / "name").symlink_to("out")
        assert f" {first.pid} " in refusal(tmp_path / "name")
        with exclusive(tmp_path / "other"):
            pass
        first.communicate()
    assert first.returncode == 0
    with exclusive(out):
        pass
    assert sorted(files_in(tmp_path)) == ["name", "out"]


def test_this_process_is_refused_too(tmp_path: Path) -> None:
    with exclusive(tmp_path / "out"):
        assert f" {os.getpid()} " in refusal(tmp_path / "out")


def test_it_dies_with_its_process(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with holder(out) as first:
        first.kill()
        first.wait()
    assert (tmp_path / ".out.lock").exists()
    with exclusive(out):
        pass
    assert files_in(tmp_path) == {}


def test_a_fork_neither_keeps_the_lock_nor_ends_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    # The fork leaves the block of the lock by an exception, and another one outlives its parent.
    with holder(out, "raise SystemExit(print('left', file=open(sys.argv[1] + '.left', 'w')))") as first:
        while not Path(f"{out}.left").exists():
            assert first.poll() is None
        assert f" {first.pid} " in refusal(out)
    with holder(tmp_path / "kept", "import time; os.close(0); os.close(1); time.sleep(600)") as first:
        children = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
        first.kill()
        first.wait()
        with exclusive(tmp_path / "kept"):
            pass
        for child in children:
            os.kill(int(child), 9)


def test_missing_folders_above_are_made_and_removed_unless_they_are_used(tmp_path: Path) -> None:
    with exclusive(tmp_path / "a/b/out"):
        (tmp_path / "a/mine").touch()
        assert f" {os.getpid()} " in refusal(tmp_path / "a/b/out")
    assert sorted(files_in(tmp_path)) == ["a", "a/mine"]


def test_it_is_inside_where_it_cannot_be_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    out.mkdir()
    usual = os.open

    def in_a_read_only_folder(path: str, *arguments: int) -> int:
        """The system refuses this to users other than root."""
        if Path(path).parent == tmp_path:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return usual(path, *arguments)

    monkeypatch.setattr(os, "open", in_a_read_only_folder)
    with exclusive(out):
        with pytest.raises(InputError) as caught, exclusive(out):
            pass
        assert f" {os.getpid()} " in caught.value.what
        assert [file.name for file in out.iterdir()] == [".lock"]
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("content", ["", "12", "none here", "\x1b[31m 1", f"{2**80} {socket.gethostname()}"])
def test_a_damaged_lock_file_still_refuses(tmp_path: Path, content: str) -> None:
    with exclusive(tmp_path / "out"):
        (tmp_path / ".out.lock").write_text(content)
        assert refusal(tmp_path / "out").isprintable()


def test_a_file_system_without_locks_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with exclusive(tmp_path / "out") as descriptor:
        assert descriptor is None
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert files_in(tmp_path) == {}
