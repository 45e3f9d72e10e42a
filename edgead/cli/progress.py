"""Display of the progress of a command: its first line, its steps with their times, bars and counts.

The package logs its progress (see `edgead.files.progress`), and a command installs `ProgressDisplay` as the handler.
Everything goes to standard error, because standard output is for results. On a terminal a line is completed or redrawn;
elsewhere each line is printed once, as a whole.
"""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType

import typer
from typing_extensions import Self

from edgead import __version__
from edgead.files.progress import ScoringState, TrainingState, is_first_process, state_of
from edgead.files.terminal_line import TerminalLine, is_drawable
from edgead.text import duration, printable

LOG_LINES = 10
# Time between the lines of a scoring that is not shown on a terminal.
LOG_INTERVAL_S = 30.0
BAR_COLUMNS = 40
SHORTEST_BAR_COLUMNS = 10
# The time of a shorter step is not worth a line.
WORTH_TELLING_S = 0.1


def first_line(text: str) -> None:
    """Print the version of edgead and the work of the command, before slow imports.

    Args:
        text: Work of the command, such as "training rd on parts".
    """
    if is_first_process():
        report(f"edgead {__version__}: {text}")


def report(line: str) -> None:
    """Print a line to standard error."""
    echo(printable(line), err=True)


def echo(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Print text. Every command prints with this function only.

    Args:
        text: One line or more. Characters that control a terminal are escaped. A name that may hold a line break must
            be made printable before it is put into a text of several lines.
        err: Whether to print to standard error instead of standard output.
        nl: Whether to print a newline at the end.
    """
    typer.echo("\n".join(map(printable, text.split("\n"))), err=err, nl=nl)


class ProgressDisplay(logging.Handler):
    """Logging handler that shows the progress of a command; a context manager, which installs and removes it.

    A record of level INFO is a step; a record of level WARNING or above is a line `warning: ...`. The state of a
    training is a bar on a terminal and one line for each tenth elsewhere. The state of a scoring is a count with the
    time left: one line on a terminal, and elsewhere a line now and then. Other records of level DEBUG are ignored. Only
    the first of several processes of a training shows anything.

    Args:
        timed: Whether the time of each step is shown: behind the step on a terminal, elsewhere on a line of its own, so
            that a log has the step as soon as it begins.
    """

    def __init__(self, *, timed: bool = False) -> None:
        super().__init__(logging.DEBUG)
        self._timed, self._silent = timed, not is_first_process()
        self._started_at = self._step_at = time.monotonic()
        # Whether a step is running, and whether the cursor is still behind its text.
        self._in_step = self._in_line = False
        self._bar: _TrainingBar | None = None
        self._count: _ScoringCount | None = None
        self._level_before = logging.NOTSET

    @property
    def total(self) -> str:
        """Time since the display was made, as text."""
        return duration(time.monotonic() - self._started_at)

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record. See `logging.Handler.emit`."""
        if self._silent:
            return
        state = state_of(record)
        if isinstance(state, TrainingState):
            self._show_training(state)
        elif isinstance(state, ScoringState):
            self._show_scoring(state)
        elif record.levelno >= logging.WARNING:
            self._print(f"warning: {printable(record.getMessage())}")
        elif record.levelno >= logging.INFO:
            self._begin_step(printable(record.getMessage()))

    def _begin_step(self, line: str) -> None:
        """End the running step and print the next; on a terminal without a newline, so that the time can follow."""
        self._stop_count()
        self._end_step()
        if not self._timed:
            self._print(line)
            return
        self._in_line = is_drawable(sys.stderr)
        echo(line, err=True, nl=not self._in_line)
        self._in_step, self._step_at = True, time.monotonic()

    def _end_step(self) -> None:
        """Print the time of the running step, if it was long enough."""
        seconds = time.monotonic() - self._step_at
        taken = duration(seconds) if self._in_step and seconds >= WORTH_TELLING_S else ""
        if self._in_line:
            report(f"  {taken}" if taken else "")
        elif taken:
            report(f"  took {taken}")
        self._in_step = self._in_line = False

    def _end_line(self) -> None:
        """Print the newline of an unfinished line."""
        if self._in_line:
            report("")
        self._in_line = False

    def _print(self, line: str) -> None:
        """Print a line: above the bar if there is one, otherwise below the running step."""
        self._end_line()
        if self._count is not None:
            self._count.end_line()
        if self._bar is not None:
            self._bar.print(line)
        else:
            report(line)

    def _show_scoring(self, state: ScoringState) -> None:
        """Start or update the count of scored images."""
        if self._count is None:
            self._end_line()
            self._count = _ScoringCount(state)
        self._count.update(state)
        if state.done == state.total:
            self._stop_count()

    def _show_training(self, state: TrainingState) -> None:
        """Start or update the bar; leave it at the end of the training."""
        if self._bar is None:
            self._end_step()
            self._bar = _TrainingBar()
        self._bar.update(state)
        if state.done >= 1.0:
            self._stop_bar()

    def _stop_bar(self) -> None:
        """Leave the bar, if there is one."""
        if self._bar is not None:
            self._bar.stop()
        self._bar = None

    def _stop_count(self) -> None:
        """Leave the count of scored images, if there is one."""
        if self._count is not None:
            self._count.end_line()
        self._count = None

    def __enter__(self) -> Self:
        logger = logging.getLogger("edgead")
        self._level_before = logger.level
        logger.addHandler(self)
        logger.setLevel(logging.DEBUG)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        logger = logging.getLogger("edgead")
        logger.removeHandler(self)
        logger.setLevel(self._level_before)
        self._stop_bar()
        self._stop_count()
        if kind is None:
            self._end_step()
        else:
            # The error message begins on a line of its own.
            self._end_line()


class _ScoringCount:
    """Number of scored images, time left and speed: one line on a terminal, elsewhere a line every `LOG_INTERVAL_S`.

    Args:
        first: First state. The speed is measured from here, because earlier images may be those of an interrupted run.
    """

    def __init__(self, first: ScoringState) -> None:
        self._line = TerminalLine(sys.stderr) if is_drawable(sys.stderr) else None
        self._done_before, self._began = first.done, time.monotonic()
        self._logged_at = self._began

    def update(self, state: ScoringState) -> None:
        """Show the state after a batch."""
        now, text = time.monotonic(), str(state)
        done, taken = state.done - self._done_before, now - self._began
        if done > 0 and taken > 0.0 and state.done < state.total:
            left = taken * (state.total - state.done) / done
            text += f"  left {duration(left)}  {done / taken:.3g} images/s"
        if self._line is not None:
            self._line.show(text)
        elif now - self._logged_at >= LOG_INTERVAL_S:
            self._logged_at = now
            report(text)

    def end_line(self) -> None:
        """Leave the text as it is; another line follows."""
        if self._line is not None:
            self._line.end()


class _TrainingBar:
    """Display of a training: a bar on a terminal, one line for each tenth elsewhere.

    The bar shows the epoch, the remaining time, the loss and the images per second, as far as the terminal has the
    space. The end of the training shows its total time.
    """

    def __init__(self) -> None:
        self._line = TerminalLine(sys.stderr) if is_drawable(sys.stderr) else None
        self._text = ""
        self._began: float | None = None
        self._done_before = 0.0
        self._logged = 0

    def print(self, line: str) -> None:
        """Print a line above the bar."""
        if self._line is None:
            report(line)
            return
        self._line.clear()
        report(line)
        self._line.show(self._text)

    def update(self, state: TrainingState) -> None:
        """Show the state of the training after a batch."""
        done = state.done
        if self._began is None:
            self._began = time.monotonic()
            self._done_before = state.epoch / state.epochs
            self._logged = int(self._done_before * LOG_LINES)
        taken = time.monotonic() - self._began
        left = taken * (1.0 - done) / (done - self._done_before)
        rest = f"left {duration(left)}" if done < 1.0 else f"total {duration(taken)}"
        tenth = int(done * LOG_LINES)
        if self._line is not None:
            epoch = f"epoch {state.epoch + 1}/{state.epochs}"
            figures = f"{rest}  loss {state.loss:.4f}  {state.images_per_s:.0f} images/s"
            space = self._line.columns - len(f"{epoch}  {figures}") - len(" []")
            bar = f" {_bar(done, min(space, BAR_COLUMNS))}" if space >= SHORTEST_BAR_COLUMNS else ""
            self._text = f"{epoch}{bar}  {figures}"
            self._line.show(self._text)
        elif tenth > self._logged:
            self._logged = tenth
            self.print(f"{state}  {rest}" if done >= 1.0 else str(state))

    def stop(self) -> None:
        """Leave the bar as it is."""
        if self._line is not None:
            self._line.end()


def _bar(done: float, columns: int) -> str:
    """Return a bar of some columns between brackets."""
    return f"[{'#' * round(done * columns):.<{columns}}]"
