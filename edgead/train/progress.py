"""What a person sees while a training runs: a bar on a terminal, a line per tenth of the way anywhere else."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from typing_extensions import Self

from edgead.train.loop import Progress as TrainingState

LOG_LINES = 10


class TrainingProgress:
    """Shows epoch, loss, pictures per second and the time left on standard error. A context manager.

    enabled: False for all but one of many processes.
    """

    def __init__(self, enabled: bool) -> None:
        self._console = Console(stderr=True, quiet=not enabled, highlight=False, soft_wrap=True)
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(),
            TextColumn("loss {task.fields[loss]:.4f}  {task.fields[rate]:.0f} pictures/s"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=self._console,
            disable=not (enabled and self._console.is_terminal),
        )
        self._task = self._bar.add_task("", total=1.0, start=False, epoch=0, epochs=0, loss=0.0, rate=0.0)
        self._started = False
        self._logged = 0

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._console.print(line, markup=False)

    def update(self, state: TrainingState) -> None:
        """Show the state after a batch."""
        done = (state.epoch + state.share) / state.epochs
        if not self._started:
            self._started = True
            self._logged = int(state.epoch / state.epochs * LOG_LINES)
            self._bar.start()
            self._bar.start_task(self._task)
        self._bar.update(
            self._task,
            completed=done,
            epoch=state.epoch + 1,
            epochs=state.epochs,
            loss=state.loss,
            rate=state.pictures_per_s,
        )
        tenth = int(done * LOG_LINES)
        if not self._console.is_terminal and tenth > self._logged:
            self._logged = tenth
            self.say(
                f"epoch {state.epoch + 1}/{state.epochs}  loss {state.loss:.4f}  {state.pictures_per_s:.0f} pictures/s"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
