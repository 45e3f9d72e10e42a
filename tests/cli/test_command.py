from collections.abc import Iterator

import pytest
import typer

from edgead.cli.main import app
from tests.helpers.command_line import run_main

# These take any number of values, as the help says.
REPEATABLE = {"build --data", "calibrate --data", "stream --sink"}


def options() -> Iterator[tuple[str, bool]]:
    """Every option of every command, such as ("stream --source", False), and whether it is a flag."""
    commands = dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    commands["plugin build"] = commands.pop("plugin").commands["build"]
    for name, command in commands.items():
        for option in command.params:
            if option.param_type_name == "option":
                yield f"{name} {option.opts[0]}", option.is_flag


OPTIONS = [name for name, is_flag in options() if not is_flag and name not in REPEATABLE]


def test_the_repeatable_options_are_known() -> None:
    assert len(OPTIONS) > 40
    assert {name for name, _ in options()} >= REPEATABLE


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_that_is_given_twice_is_a_usage_error(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command, _, option = name.rpartition(" ")
    assert run_main(*command.split(), option, "1", f"{option}=2") == 2
    captured = capsys.readouterr()
    assert option in captured.err.splitlines()[-1]
    assert captured.out == ""


@pytest.mark.parametrize("name", sorted(REPEATABLE))
def test_an_option_that_may_be_repeated_is_no_usage_error(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command, _, option = name.rpartition(" ")
    needed = ["gone"] + {"build": ["--out", "x"], "calibrate": ["--out", "x"], "stream": ["--source", "x"]}[
        command
    ]
    assert run_main(command, *needed, option, "status:", option, "status:") == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["rtsp://admin:S3cret@cam/live"],
        ["--source=rtsp://admin:S3cret@cam/live", "stream"],
        ["rtsp://admin:S3cret\x1b[2J@cam/live"],
        ["stream", "bundle", "rtsp://admin:S3cret@cam/live?token=S3cret", "--source", "0"],
        ["stream", "bundle", "--source", "0", "--part=x", "--part=http://cam/a?pwd=S3cret"],
        ["stream", "bundle", "--source", "0", "--threads", "http://cam/a?pwd=S3cret"],
    ],
)
def test_a_usage_error_shows_no_secret(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(*arguments) == 2
    assert "S3cret" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["stream", "rtsp://admin:S3cret@cam/live", "--source", "0"],
        ["info", "rtsp://admin:S3cret@cam/live"],
        ["stream", "gone", "--source", "rtsp://admin:S3cret@cam/live"],
    ],
)
def test_an_error_shows_no_secret(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(*arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "S3cret" not in error
