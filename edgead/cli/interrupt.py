"""End of a command by Ctrl-C, SIGTERM or SIGHUP: one line with the kept files and the way to continue.

SIGTERM and SIGHUP end a command as Ctrl-C does. A signal that the caller of the command ignores stays ignored: SIGHUP
under nohup, and SIGINT of a command that a shell script started in the background. SIGTERM always ends a command.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import FrameType
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class SignalInterrupt(KeyboardInterrupt):
    """SIGTERM or SIGHUP arrived. Every cleanup that follows Ctrl-C follows these signals too.

    Args:
        number: Number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class CommandInterruptedError(Exception):
    """A signal ended the command. The message describes the kept files and the command that continues.

    Args:
        kept: The message.
        interrupt: The interrupt.
    """

    def __init__(self, kept: str, interrupt: KeyboardInterrupt) -> None:
        super().__init__(kept)
        self.exit_code = exit_code_of(interrupt)


def exit_code_of(interrupt: KeyboardInterrupt) -> int:
    """Return the exit code of a command that a signal ended: 128 and the number of the signal, as shells do."""
    return 128 + (interrupt.number if isinstance(interrupt, SignalInterrupt) else signal.SIGINT)


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """Raise SignalInterrupt in the block on SIGTERM, and on SIGHUP unless it is ignored.

    Later signals do not disturb the cleanup after the first, because a terminal that closes, and `timeout`, send theirs
    twice. In another thread than the main thread, the block runs without handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    if previous[signal.SIGHUP] is signal.SIG_IGN:
        del previous[signal.SIGHUP]

    def interrupt(number: int, _: FrameType | None) -> None:
        for each in previous:
            signal.signal(each, signal.SIG_IGN)
        raise SignalInterrupt(number)

    for number in previous:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def says_on_interrupt(kept: Callable[[], str]) -> Iterator[None]:
    """Turn KeyboardInterrupt in the block into CommandInterruptedError.

    Args:
        kept: Function that returns the message; called when the interrupt comes.

    Raises:
        CommandInterruptedError: Ctrl-C, SIGTERM or SIGHUP came in the block.
    """
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise CommandInterruptedError(kept(), interrupt) from None


def interruptible(command: Callable[P, T], kept: str) -> Callable[P, T]:
    """Give a command a message for Ctrl-C, SIGTERM and SIGHUP.

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
