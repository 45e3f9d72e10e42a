"""The one place that draws what a command does: its first line, its steps with their times, bars and counts.

The package logs (see `edgead.files.progress`), and `ProgressDisplay` is the handler that a command installs. Everything
goes to standard error, because standard output belongs to results. On a terminal a line is completed or redrawn;
anywhere else each line is whole.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from types import TracebackType
from typing import Any

import typer
from typing_extensions import Self

from edgead import __version__
from edgead.files.progress import ScoringState, TrainingState, state_of

LOG_LINES = 10
# A step that is shorter is a message, and its time says nothing.
WORTH_TELLING_S = 0.1


def is_first_process() -> bool:
    """Whether this is the only process of a training, or the one of many that reports."""
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "NODE_RANK", "RANK"))


def first_line(text: str) -> None:
    """Print what the command is about to do, before anything slow is imported."""
    if is_first_process():
        report(f"edgead {__version__}: {text}")


def report(line: str) -> None:
    """Print a line."""
    typer.echo(line, err=True)


def duration(seconds: float) -> str:
    """A time as people read it: `0.4 s`, `12 s`, `3 min 5 s`, `2 h 10 min`."""
    if seconds < 10.0:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class ProgressDisplay(logging.Handler):
    """Shows what the package logs while a command works. A context manager, which installs and removes it.

    Level INFO is a step, WARNING and above a line `warning: ...`. The state of a training is a bar on a terminal and a
    line for each tenth elsewhere; the state of a scoring is a count on a terminal. Other records of level DEBUG are
    left out. Only one of many processes of a training shows anything.

    Args:
        timed: Whether each step has the time that it took: behind the step on a terminal, elsewhere on a line of its
            own, so that a log has the step when it begins.
    """

    def __init__(self, *, timed: bool = False) -> None:
        super().__init__(logging.DEBUG)
        self._timed, self._silent = timed, not is_first_process()
        self._started_at = self._step_at = time.monotonic()
        # A step is under way; its line is not ended yet.
        self._in_step = self._in_line = False
        self._bar: _TrainingBar | None = None
        self._level_before = logging.NOTSET

    @property
    def total(self) -> str:
        """The time since the display was made."""
        return duration(time.monotonic() - self._started_at)

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record."""
        if self._silent:
            return
        state = state_of(record)
        if isinstance(state, TrainingState):
            self._show_training(state)
        elif isinstance(state, ScoringState):
            self._show_scoring(state)
        elif record.levelno >= logging.WARNING:
            self._print(f"warning: {record.getMessage()}")
        elif record.levelno >= logging.INFO:
            self._begin_step(record.getMessage())

    def _begin_step(self, line: str) -> None:
        self._end_step()
        if not self._timed:
            self._print(line)
            return
        self._in_line = sys.stderr.isatty()
        typer.echo(line, err=True, nl=not self._in_line)
        self._in_step, self._step_at = True, time.monotonic()

    def _end_step(self) -> None:
        seconds = time.monotonic() - self._step_at
        taken = duration(seconds) if self._in_step and seconds >= WORTH_TELLING_S else ""
        if self._in_line:
            report(f"  {taken}" if taken else "")
        elif taken:
            report(f"  took {taken}")
        self._in_step = self._in_line = False

    def _end_line(self) -> None:
        if self._in_line:
            report("")
        self._in_line = False

    def _print(self, line: str) -> None:
        """Print a line: above the bar if there is one, below a step that goes on."""
        self._end_line()
        if self._bar is not None:
            self._bar.print(line)
        else:
            report(line)

    def _show_scoring(self, state: ScoringState) -> None:
        if sys.stderr.isatty():
            self._end_line()
            typer.echo(f"\r{state}", nl=state.done == state.total, err=True)

    def _show_training(self, state: TrainingState) -> None:
        if self._bar is None:
            self._end_step()
            self._bar = _TrainingBar()
        self._bar.update(state)
        if state.done >= 1.0:
            self._stop_bar()

    def _stop_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._bar = None

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
        if kind is None:
            self._end_step()
        else:
            # What went wrong begins on a line of its own.
            self._end_line()


class _TrainingBar:
    """Epoch, loss, images per second and the time: a bar on a terminal, a line for each tenth elsewhere.

    The bar shows the time left, and the total time once the training ends.

    Raises:
        ModuleNotFoundError: If rich is not installed.
    """

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(),
            TextColumn("loss {task.fields[loss]:.4f}  {task.fields[rate]:.0f} images/s"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[rest]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        fields: dict[str, Any] = {"epoch": 0, "epochs": 0, "loss": 0.0, "rate": 0.0, "rest": ""}
        self._task = self._bar.add_task("", total=1.0, start=False, **fields)
        self._began: float | None = None
        self._done_before = 0.0
        self._logged = 0

    def print(self, line: str) -> None:
        """Print a line above the bar."""
        self._console.print(line, markup=False)

    def update(self, state: TrainingState) -> None:
        """Show the state after a batch."""
        done = state.done
        first = self._began is None
        if self._began is None:
            self._began = time.monotonic()
            self._done_before = state.epoch / state.epochs
            self._logged = int(self._done_before * LOG_LINES)
            self._bar.start_task(self._task)
        taken = time.monotonic() - self._began
        left = taken * (1.0 - done) / (done - self._done_before)
        self._bar.update(
            self._task,
            completed=done,
            epoch=state.epoch + 1,
            epochs=state.epochs,
            loss=state.loss,
            rate=state.images_per_s,
            rest=f"left {duration(left)}" if done < 1.0 else "total",
        )
        if first:
            self._bar.start()
        tenth = int(done * LOG_LINES)
        if not self._console.is_terminal and tenth > self._logged:
            self._logged = tenth
            self.print(f"{state}  total {duration(taken)}" if done >= 1.0 else str(state))

    def stop(self) -> None:
        """Leave the bar as it is."""
        self._bar.stop()
