"""Ctrl-C in a command: one line that says what was kept and how to go on, and exit code 130."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

EXIT_CODE = 130


class CommandInterruptedError(Exception):
    """Somebody pressed Ctrl-C. The message says what was kept and which command goes on."""


@contextmanager
def says_on_interrupt(kept: Callable[[], str]) -> Iterator[None]:
    """Turn KeyboardInterrupt in the block into CommandInterruptedError.

    Args:
        kept: Gives the message. It is called when the interrupt comes.

    Raises:
        CommandInterruptedError: Instead of KeyboardInterrupt.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise CommandInterruptedError(kept()) from None


def interruptible(command: Callable[P, T], kept: str) -> Callable[P, T]:
    """Make a command answer to Ctrl-C in its own words.

    Args:
        command: The function of the command; Typer still sees its parameters.
        kept: The message, for a command that does not give one of its own.

    Returns:
        The function to register.
    """

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        with says_on_interrupt(lambda: kept):
            return command(*args, **kwargs)

    return wrapped
