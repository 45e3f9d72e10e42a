import re
from collections.abc import Iterator
from enum import Enum
from typing import Any

import pytest
import typer

from edgead.cli.main import app
from tests.helpers.command_line import run_main

# These take any number of values, as the help says.
REPEATABLE = {"build --data", "calibrate --data", "stream --sink", "stream --source"}


def commands() -> dict[str, Any]:
    """Every command by its name."""
    found = dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    found["plugin build"] = found.pop("plugin").commands["build"]
    return found


def options() -> Iterator[tuple[str, bool]]:
    """Every option of every command, such as ("stream --source", False), and whether it is a flag."""
    for name, command in commands().items():
        for option in command.params:
            if option.param_type_name == "option":
                yield f"{name} {option.opts[0]}", option.is_flag


OPTIONS = [name for name, is_flag in options() if not is_flag and name not in REPEATABLE]


def test_the_repeatable_options_are_known() -> None:
    assert len(OPTIONS) > 40
    assert {name for name, _ in options()} >= REPEATABLE


# Parameters that take not any text: a word of a list, or a number.
CHECKED = [
    (name, parameter)
    for name, command in commands().items()
    for parameter in command.params
    if not getattr(parameter, "is_flag", False)
    and isinstance(kind := parameter.type_descriptor.annotation, type)
    and issubclass(kind, (Enum, int, float))
]
REQUIRED = [
    (name, parameter)
    for name, command in commands().items()
    for parameter in command.params[:1]
    if parameter.required
]


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command line that is refused; return its only line, which says what is wrong and what to do."""
    assert run_main(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ")
    assert "Value error" not in line
    assert ": " in line.removeprefix("error: ")
    return line


@pytest.mark.parametrize("name", sorted(commands()))
def test_an_unknown_option_is_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--no-such-option" in refusal(capsys, *name.split(), "--no-such-option", "7")


@pytest.mark.parametrize(
    ("wrong", "meant"), [("--epoch", "--epochs"), ("--see", "--seed"), ("--student", None)]
)
def test_only_an_option_that_is_like_the_wrong_one_is_proposed(
    wrong: str, meant: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """The two dashes are no likeness: `--student` was taken for `--bit-depth`."""
    named = re.findall(r"--[a-z-]+", refusal(capsys, "train", "parts", wrong, "3"))
    assert named == [wrong] if meant is None else meant in named[1:]


@pytest.mark.parametrize("name", sorted(commands()))
def test_an_option_without_its_value_is_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for option in commands()[name].params:
        if option.param_type_name == "option" and not option.is_flag:
            assert option.opts[0] in refusal(capsys, *name.split(), option.opts[0])


@pytest.mark.parametrize(("name", "parameter"), REQUIRED, ids=lambda value: getattr(value, "name", value))
def test_a_missing_argument_is_one_line(
    name: str, parameter: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = parameter.metavar or parameter.name.upper()
    assert shown.strip("{}.[]") in refusal(capsys, *name.split())


@pytest.mark.parametrize("value", ["no-such", "-7.5x", "a. Did you mean b"])
@pytest.mark.parametrize(("name", "parameter"), CHECKED, ids=lambda value: getattr(value, "name", value))
def test_a_bad_value_is_one_line_that_names_it(
    name: str, parameter: Any, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refusal(capsys, *name.split(), f"{parameter.opts[0]}={value}")
    assert value in line
    assert parameter.opts[0] in line


def test_a_number_out_of_range_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "'-3'" in refusal(capsys, "train", "x", "--out", "y", "--epochs", "-3")


@pytest.mark.parametrize("arguments", [["nope"], ["--nope"], ["plugin", "nope"], ["info", "a", "nope"]])
def test_what_is_no_command_is_one_line_that_names_it(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "nope" in refusal(capsys, *arguments)


def test_a_mistyped_word_has_the_right_one_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert "train" in refusal(capsys, "trian").partition("trian")[2]
    assert "--out" in refusal(capsys, "train", "x", "--ou", "y").partition("--ou:")[2]


def test_there_are_commands_with_such_parameters() -> None:
    assert len(CHECKED) > 30
    assert len(REQUIRED) > 10


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
