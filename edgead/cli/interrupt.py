"""Ctrl-C in a command: one line with the kept files and the way to continue, and exit code 130."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

EXIT_CODE = 130


class CommandInterruptedError(Exception):
    """The user pressed Ctrl-C. The message describes the kept files and the command that continues."""


@contextmanager
def says_on_interrupt(kept: Callable[[], str]) -> Iterator[None]:
    """Turn KeyboardInterrupt in the block into CommandInterruptedError.

    Args:
        kept: Function that returns the message; called when the interrupt comes.

    Raises:
        CommandInterruptedError: The user pressed Ctrl-C in the block.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise CommandInterruptedError(kept()) from None


def interruptible(command: Callable[P, T], kept: str) -> Callable[P, T]:
    """Give a command a message for Ctrl-C.

    Args:
        command: Function of the command; Typer still sees its parameters.
        kept: Message, unless the command itself raises CommandInterruptedError.

    Returns:
        The function to register.
    """

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        with says_on_interrupt(lambda: kept):
            return command(*args, **kwargs)

    return wrapped
