"""The class of all commands: an option that takes one value is given once, and a usage error shows no secret."""

from __future__ import annotations

import sys
from typing import Any, cast

import typer
from typer.core import TyperCommand

from edgead.files.addresses import hide_arguments

# Base of the usage errors of Typer, which does not export it.
UsageError: Any = typer.BadParameter.__mro__[1]


class Command(TyperCommand):
    """A command that shows an argument by its metavar only: some versions of Typer append a Python type."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for parameter in self.params:
            if parameter.param_type_name == "argument":
                vars(parameter)["display_type_rich"] = lambda ctx: None

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, which may hold the address of a camera.

        Typer takes the last value of an option that is given twice and drops the others silently. Here that is a usage
        error, except for options that may be repeated and flags, which say the same twice.

        Args:
            ctx: Context of the command.
            args: Arguments after the name of the command.

        Returns:
            Arguments that are left, none.

        Raises:
            typer.BadParameter: An option is given twice, or another usage error of Typer.
        """
        try:
            # The parser changes the list.
            _, _, given = self.make_parser(ctx).parse_args(list(args))
            for option in cast("list[Any]", given):
                # Arguments have no `multiple` of their own.
                repeatable = getattr(option, "multiple", True) or getattr(option, "is_flag", False)
                if not repeatable and given.count(option) > 1:
                    raise typer.BadParameter(
                        f"it is given {given.count(option)} times, give it once", ctx=ctx, param=option
                    )
            return super().parse_args(ctx, args)
        except UsageError as error:
            error.message = hide_arguments(error.message, sys.argv[1:])
            raise
