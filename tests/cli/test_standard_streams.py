"""Standard streams that are closed, full or without a reader: no traceback, and an exit code that says it."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edgead.scoring.threshold import Threshold
from tests.helpers.brightness_bundle import write_brightness_bundle
from tests.helpers.stream_parts import SIZE, verdicts_of

EDGEAD = f"'{sys.executable}' -m edgead"
# A command without a heavy import, and one that fails.
VERSION, FAILING = f"{EDGEAD} --version", f"{EDGEAD} eval nowhere nowhere"


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", line],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=120,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("redirected", [">&-", ">/dev/full", "<&- >&-"])
def test_results_that_cannot_be_written_are_an_error(redirected: str) -> None:
    done = shell(f"{VERSION} {redirected}")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_a_closed_standard_output_does_not_matter_to_a_command_without_results() -> None:
    done = shell(f"{FAILING} >&-")
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize("redirected", ["2>&-", "2>/dev/full", "<&- 2>&-"])
def test_messages_that_cannot_be_written_are_dropped(redirected: str) -> None:
    done = shell(f"{VERSION} {redirected}")
    assert (done.returncode, done.stdout.startswith("edgead "), done.stderr) == (0, True, "")
    assert shell(f"{FAILING} {redirected}").returncode == 1


def test_messages_without_a_reader_do_not_end_the_work() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "wb") as pipe:
        done = subprocess.run(
            ["sh", "-c", VERSION], stdout=subprocess.PIPE, stderr=pipe, text=True, check=False
        )
        failed = subprocess.run(["sh", "-c", FAILING], stderr=pipe, check=False)
    assert (done.returncode, done.stdout.startswith("edgead ")) == (0, True)
    assert failed.returncode == 1


def test_a_file_does_not_get_the_descriptor_of_a_closed_stream(tmp_path: Path) -> None:
    threshold = Threshold(100 / 255, 0.01, 0.95, 0.96, 320, 299)
    bundle = write_brightness_bundle(tmp_path / "bundle", SIZE, threshold)
    sinks = f"--sink jsonl:{tmp_path}/out.jsonl --sink status:"
    done = shell(
        f"{EDGEAD} stream {bundle} --source 'synthetic:washer?size=64&frames=5' {sinks} <&- >&- 2>&-"
    )
    # The summary goes to standard output.
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
    assert len(verdicts_of((tmp_path / "out.jsonl").read_text())) == 5


@pytest.mark.parametrize("redirected", [">&-", ">/dev/full"])
def test_verdicts_that_cannot_be_printed_end_the_stream(redirected: str, tmp_path: Path) -> None:
    threshold = Threshold(100 / 255, 0.01, 0.95, 0.96, 320, 299)
    bundle = write_brightness_bundle(tmp_path / "bundle", SIZE, threshold)
    done = shell(f"{EDGEAD} stream {bundle} --source synthetic:washer?size=64 --sink jsonl:- {redirected}")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize(
    "environment",
    [ASCII, {"LC_ALL": "POSIX"}, {"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}],
)
def test_a_character_that_the_terminal_lacks_is_escaped(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "größe-部件").mkdir()
    done = shell(f"{EDGEAD} eval '{tmp_path}/größe-部件' '{tmp_path}/größe-部件'", **environment)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")


def test_a_deleted_current_directory_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    done = shell(f"cd {tmp_path}/gone && rmdir {tmp_path}/gone && {EDGEAD} eval nowhere nowhere --out page")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")


def test_too_few_files_is_one_line(tmp_path: Path) -> None:
    code = (
        "import resource, sys\nfrom edgead.cli.main import main\nimport edgead.cli.diagnosis as doctor\n"
        "doctor.diagnose = lambda: [open(sys.argv[0]) for _ in range(99)]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))\nmain()"
    )
    (tmp_path / "few.py").write_text(code)
    done = shell(f"'{sys.executable}' {tmp_path}/few.py doctor")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.usefixtures("signals_of_a_terminal")
@pytest.mark.parametrize("term", ["dumb", "xterm"])
def test_a_hangup_of_the_terminal_ends_a_stream_with_whole_files(term: str, tmp_path: Path) -> None:
    threshold = Threshold(100 / 255, 0.01, 0.95, 0.96, 320, 299)
    bundle = write_brightness_bundle(tmp_path / "bundle", SIZE, threshold)
    out = tmp_path / "out.jsonl"
    sinks = [f"--sink=jsonl:{out}", f"--sink=video:{tmp_path}/out.mkv", "--sink=status:"]
    process, terminal = pty.fork()
    if process == 0:
        os.environ["TERM"] = term
        command = [sys.executable, "-m", "edgead", "stream", str(bundle), "--source=synthetic:washer?size=64"]
        os.execv(sys.executable, [*command, *sinks])
    # A stream that ignores the hangup ends nevertheless, with the signal of this timer.
    timer = threading.Timer(60, os.kill, (process, signal.SIGKILL))
    timer.start()
    shown = b""
    while not out.exists() or out.read_bytes().count(b"\n") < 20:
        shown += os.read(terminal, 4096)
    # The terminal ends lines with both. The images are squeezed, which is said before the line that is written over.
    assert (b"\r" in shown.replace(b"\r\n", b"")) == (term != "dumb")
    assert b"\x1b" not in shown
    os.close(terminal)
    _, status = os.waitpid(process, 0)
    timer.cancel()
    assert os.waitstatus_to_exitcode(status) in (0, 1)
    assert out.read_bytes().endswith(b"}\n")
    assert (tmp_path / "out.mkv").stat().st_size > 1000
