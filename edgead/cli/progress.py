"""What a person sees while a command works: its first line, its steps with their times, and a bar for a training.

Everything here goes to standard error, because standard output belongs to results. On a terminal a line is completed or
redrawn; anywhere else each line is whole.
"""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

import typer
from typing_extensions import Self

from edgead import __version__

if TYPE_CHECKING:
    from edgead.training.loop import Progress as TrainingState

LOG_LINES = 10
# A step that is shorter is a message, and its time says nothing.
WORTH_TELLING_S = 0.1


def is_first_process() -> bool:
    """Whether this is the only process of a training, or the one of many that reports."""
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "NODE_RANK", "RANK"))


def first_line(text: str) -> None:
    """Print what the command is about to do, before anything slow is imported."""
    if is_first_process():
        typer.echo(f"edgead {__version__}: {text}", err=True)


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


class Steps:
    """The steps of a command, each with the time that it took. A context manager.

    On a terminal the time is written behind the step; elsewhere on a line of its own, so that a log has the step when
    it begins.
    """

    def __init__(self) -> None:
        self._started_at = self._step_at = time.monotonic()
        self._open = False

    def say(self, line: str) -> None:
        """End the step under way and begin the next one."""
        self._end()
        typer.echo(line, err=True, nl=not sys.stderr.isatty())
        self._open, self._step_at = True, time.monotonic()

    @property
    def total(self) -> str:
        """The time since the first step began."""
        return duration(time.monotonic() - self._started_at)

    def _end(self) -> None:
        if self._open:
            seconds = time.monotonic() - self._step_at
            taken = f"  {duration(seconds)}" if seconds >= WORTH_TELLING_S else ""
            if sys.stderr.isatty():
                typer.echo(taken, err=True)
            elif taken:
                typer.echo(f"  took{taken[1:]}", err=True)
        self._open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._end()
        elif self._open and sys.stderr.isatty():
            # What went wrong begins on a line of its own.
            typer.echo(err=True)


def show_scored(done: int, total: int) -> None:
    """Redraw how many images are scored; nothing without a terminal."""
    if sys.stderr.isatty():
        typer.echo(f"\rscored {done} of {total} images", nl=done == total, err=True)


class TrainingProgress:
    """Epoch, loss, images per second and the time: a bar on a terminal, a line per tenth of the way elsewhere.

    The bar shows the time left, and the total time once the training ends. A context manager.

    Args:
        enabled: False for all but one of many processes.

    Raises:
        ModuleNotFoundError: rich is not installed.
    """

    def __init__(self, enabled: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._console = Console(stderr=True, quiet=not enabled, highlight=False, soft_wrap=True)
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(),
            TextColumn("loss {task.fields[loss]:.4f}  {task.fields[rate]:.0f} images/s"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[rest]}"),
            console=self._console,
            disable=not (enabled and self._console.is_terminal),
        )
        fields: dict[str, Any] = {"epoch": 0, "epochs": 0, "loss": 0.0, "rate": 0.0, "rest": ""}
        self._task = self._bar.add_task("", total=1.0, start=False, **fields)
        self._began: float | None = None
        self._done_before = 0.0
        self._logged = 0

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._console.print(line, markup=False)

    def update(self, state: TrainingState) -> None:
        """Show the state after a batch."""
        done = (state.epoch + state.share) / state.epochs
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
            rate=state.pictures_per_s,
            rest=f"left {duration(left)}" if done < 1.0 else "total",
        )
        if first:
            self._bar.start()
        tenth = int(done * LOG_LINES)
        if not self._console.is_terminal and tenth > self._logged:
            self._logged = tenth
            total = f"  total {duration(taken)}" if done >= 1.0 else ""
            self.say(
                f"epoch {state.epoch + 1}/{state.epochs}  loss {state.loss:.4f}  "
                f"{state.pictures_per_s:.0f} images/s{total}"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
