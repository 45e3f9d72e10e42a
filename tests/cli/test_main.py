from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys

import pytest

from edgead import __version__
from edgead.cli import main as cli
from edgead.errors import BundleError, VerificationError

EDGEAD = [sys.executable, "-c", "from edgead.cli.main import main; main()"]
COMMANDS = (
    "train",
    "import",
    "build",
    "calibrate",
    "info",
    "eval",
    "threshold",
    "compare",
    "stream",
    "predict",
    "bench",
    "serve",
    "export-deepstream",
    "export-triton",
    "demo",
    "doctor",
    "plugin",
)


def edgead(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*EDGEAD, *arguments], capture_output=True, text=True)


def run_main(monkeypatch, error: BaseException) -> int:
    """Return the exit code of `main` if the command raises this error."""

    def command(**_: object) -> None:
        raise error

    monkeypatch.setattr(cli, "app", command)
    with pytest.raises(SystemExit) as caught:
        cli.run_command_line()
    return caught.value.code


def test_the_table_of_a_refusal_stands_above_its_line(monkeypatch, capsys):
    table = ["int8 on 24 images", "  map error  0.4*  <= 0.3\x1b[31m"]
    assert run_main(monkeypatch, VerificationError("int8 is off", hint="try fp16", table=table)) == 3
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        table[0],
        r"  map error  0.4*  <= 0.3\x1b[31m",
        "error: int8 is off: try fp16",
    ]


def test_version():
    result = edgead("--version")
    assert (result.returncode, result.stdout, result.stderr) == (0, f"edgead {__version__}\n", "")


def test_help_lists_every_command():
    result = edgead("--help")
    assert result.returncode == 0
    listed = [
        line.split()[0] for line in result.stdout.partition("Commands:")[2].splitlines() if line.strip()
    ]
    assert sorted(listed) == sorted(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command):
    result = edgead(command, "--help")
    assert result.returncode == 0
    assert f"Usage: edgead {command}" in result.stdout


def test_no_command_shows_help():
    result = edgead()
    assert "Usage: edgead" in result.stdout + result.stderr


def test_a_wrong_option_exits_2_without_a_traceback():
    result = edgead("doctor", "--colour")
    assert result.returncode == 2
    assert "--colour" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_error_is_one_line_on_standard_error(tmp_path):
    result = edgead("stream", str(tmp_path / "gone"), "--source", str(tmp_path))
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert str(tmp_path / "gone") in result.stderr


def test_each_error_has_its_exit_code(monkeypatch, capsys):
    assert run_main(monkeypatch, BundleError("model.onnx\nhas changed")) == 1
    assert run_main(monkeypatch, VerificationError("3 decisions differ")) == 3
    assert capsys.readouterr().err == "error: model.onnx\\nhas changed\nerror: 3 decisions differ\n"


def test_a_missing_right_is_one_line(monkeypatch, capsys):
    assert run_main(monkeypatch, PermissionError(errno.EACCES, "Permission denied", "/secret")) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "/secret" in error
    assert "Permission denied" in error
    assert error.count("\n") == 1


def test_a_path_that_is_too_long_is_one_line(tmp_path):
    result = edgead("eval", str(tmp_path), str(tmp_path / ("x" * 300)))
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.splitlines()[1].startswith("error: ")
    assert f"{tmp_path}/xxx" in result.stderr.splitlines()[1]
    assert result.stderr.count("\n") == 2


def test_a_full_disk_under_the_output_is_one_line():
    with open("/dev/full", "wb") as full:
        result = subprocess.run([*EDGEAD, "doctor"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert os.strerror(errno.ENOSPC) in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.fixture
def without_opencv(tmp_path, monkeypatch):
    """A machine where the operating system cannot load OpenCV, as without libGL."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/cv2.so").write_bytes(b"no library")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))


@pytest.mark.usefixtures("without_opencv")
def test_an_opencv_that_cannot_be_loaded_is_one_line_with_the_hint(tmp_path):
    result = edgead("stream", str(tmp_path), "--source", "0")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ")
    assert "cv2.so" in result.stderr
    assert result.stderr.endswith("apt-get install libgl1 libglib2.0-0\n")
    assert result.stderr.count("\n") == 1


@pytest.mark.usefixtures("without_opencv")
def test_the_doctor_works_where_opencv_does_not():
    result = edgead("doctor")
    assert (result.returncode, result.stderr) == (0, "")
    assert "apt-get install libgl1" in result.stdout


def test_another_import_that_fails_is_a_bug(monkeypatch):
    error = ImportError("cannot import name 'x'", name="edgead.errors")
    monkeypatch.setattr(cli, "app", lambda **_: (_ for _ in ()).throw(error))
    with pytest.raises(ImportError) as caught:
        cli.run_command_line()
    assert caught.value is error


def test_an_interrupt_exits_130(monkeypatch, capsys):
    assert run_main(monkeypatch, KeyboardInterrupt()) == 130
    assert capsys.readouterr().err.count("\n") == 1


def test_a_bug_keeps_its_traceback(monkeypatch):
    def command(**_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(cli, "app", command)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        cli.run_command_line()


def test_a_bug_is_not_reported_as_an_error():
    code = (
        "from edgead.cli import diagnosis\nfrom edgead.cli.main import main\n"
        "diagnosis.diagnose = lambda: 1 / 0\nmain()"
    )
    result = subprocess.run([sys.executable, "-c", code, "doctor"], capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith("Traceback (most recent call last):")
    assert "ZeroDivisionError" in result.stderr


def test_a_thread_that_hangs_sees_no_end_of_the_interpreter():
    code = (
        "import atexit, sys, threading\nfrom edgead.cli import diagnosis\nfrom edgead.cli.main import main\n"
        "def hang():\n"
        "    threading.Thread(target=threading.Event().wait, name='edgead-capture', daemon=True).start()\n"
        "    print('a summary')\n"
        "    sys.exit(5)\n"
        "atexit.register(print, 'the end of the interpreter')\n"
        "diagnosis.diagnose = hang\nmain()"
    )
    result = subprocess.run([sys.executable, "-c", code, "doctor"], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (5, "a summary\n", "")


@pytest.mark.parametrize("buffered", [True, False])
def test_a_closed_standard_output_causes_no_traceback(buffered):
    read_end, write_end = os.pipe()
    os.close(read_end)
    environment = {**os.environ, "PYTHONUNBUFFERED": "" if buffered else "1"}
    with os.fdopen(write_end, "wb") as pipe:
        result = subprocess.run(
            [*EDGEAD, "doctor"], stdout=pipe, stderr=subprocess.PIPE, text=True, env=environment
        )
    assert (result.returncode, result.stderr) == (1, "")


def test_a_standard_output_closed_before_the_last_flush_causes_no_traceback():
    read_end, write_end = os.pipe()
    os.close(read_end)
    code = (
        "import sys\nfrom edgead.cli import diagnosis as doctor\nfrom edgead.cli.main import main\n"
        "doctor.diagnose = lambda: sys.exit(print('still buffered'))\nmain()"
    )
    with os.fdopen(write_end, "wb") as pipe:
        command = [sys.executable, "-c", code, "doctor"]
        environment = {**os.environ, "PYTHONUNBUFFERED": ""}
        result = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, text=True, env=environment)
    assert (result.returncode, result.stderr) == (1, "")


@pytest.mark.usefixtures("signals_of_a_terminal")
def test_an_interrupt_in_a_command_exits_130():
    code = (
        "import os, signal\nfrom edgead.cli import diagnosis as doctor\nfrom edgead.cli.main import main\n"
        "doctor.diagnose = lambda: os.kill(os.getpid(), signal.SIGINT)\nmain()"
    )
    result = subprocess.run([sys.executable, "-c", code, "doctor"], capture_output=True, text=True)
    assert result.returncode == 128 + signal.SIGINT
    assert result.stderr.startswith("interrupted: ")
    assert result.stderr.count("\n") == 1
