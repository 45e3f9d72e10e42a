"""The class of all commands: an option of one value is given once, and a usage error is one line with the value."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any, cast

import typer
from typer.core import TyperCommand

from edgead.errors import EdgeadError

# Base of the usage errors of Typer, which does not export it.
UsageError: Any = typer.BadParameter.__mro__[1]

# Typer puts its advice behind the description, which ends with a quoted name.
_ADVICE = re.compile(r"(.*')\. ((?:Did you mean|Choose from).*)")
# The beginning of a message of Pydantic, which Typer passes on.
_PYDANTIC = "Value error, "


class CommandLineError(EdgeadError):
    """A command line that no command takes."""

    exit_code = 2


def named_options(context: typer.Context) -> dict[str, str]:
    """Return the parameters that the command line names: the option as text, by the name of the parameter."""
    return {
        parameter.name: parameter.opts[0]
        for parameter in context.command.params
        if parameter.name
        and getattr(context.get_parameter_source(parameter.name), "name", "") == "COMMANDLINE"
    }


class Command(TyperCommand):
    """A command that shows an argument by its metavar only: some versions of Typer append a Python type."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for parameter in self.params:
            if parameter.param_type_name == "argument":
                vars(parameter)["display_type_rich"] = lambda ctx: None

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments.

        Typer takes the last value of an option that is given twice and drops the others silently. Here that is a usage
        error, except for options that may be repeated and flags, which say the same twice.

        Args:
            ctx: Context of the command.
            args: Arguments after the name of the command.

        Returns:
            Arguments that are left, none.

        Raises:
            UsageError: An option is given twice, or another usage error of Typer.
        """
        values: Mapping[str, Any] = {}
        try:
            # The parser changes the list.
            values, _, given = self.make_parser(ctx).parse_args(list(args))
            for option in cast("list[Any]", given):
                # Arguments have no `multiple` of their own.
                repeatable = getattr(option, "multiple", True) or getattr(option, "is_flag", False)
                if not repeatable and given.count(option) > 1:
                    raise UsageError(
                        f"{option.opts[0]} is given {given.count(option)} times, give it once", ctx=ctx
                    )
            return super().parse_args(ctx, args)
        except UsageError as error:
            error.ctx = error.ctx or ctx
            error.message = _with_value(error, values)
            raise


def command_line_error(error: Any) -> CommandLineError | None:
    """Return a usage error of Typer as an error in one line.

    Args:
        error: The usage error.

    Returns:
        The error; None for a command without arguments that shows its help, which Typer raises as an error, too.
    """
    context = error.ctx
    if context is not None and error.message == context.get_help():
        return None
    # Choices are on lines of their own.
    text = error.format_message().replace("\n\t", " ").rstrip(".")
    advice = _ADVICE.fullmatch(text)
    what, hint = (
        advice.groups() if advice else (text, f"see '{context.command_path if context else 'edgead'} -h'")
    )
    if hasattr(error, "possibilities"):
        what = f"no such option {error.option_name}"
        # Compared without the dashes, which all options share.
        options = {option.lstrip("-"): option for option in error.possibilities or ()}
        if near := difflib.get_close_matches(error.option_name.lstrip("-"), options):
            hint = f"did you mean {' or '.join(sorted(options[name] for name in near))}?"
    return CommandLineError(what[:1].lower() + what[1:], hint=hint[:1].lower() + hint[1:])


def _with_value(error: Any, values: Mapping[str, Any]) -> str:
    """Return the message of a usage error with the value that it refuses, which Typer may leave out."""
    message = str(error.message).removeprefix(_PYDANTIC)
    parameter = getattr(error, "param", None)
    value = None if parameter is None else values.get(parameter.name)
    if not message or value is None or repr(value) in message:
        return message
    shown = " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return f"{shown!r} ({message[:1].lower()}{message[1:]})"
