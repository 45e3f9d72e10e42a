"""A job: commands of edgead that write into one folder. Executors run jobs and report how each of them ended.

A job knows every path that its commands read or write, so an executor can move it to a machine that shares no disk with
this one. `edgead.cluster.local` runs jobs one after the other, `edgead.cluster.ray_executor` on a Ray cluster.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Job:
    """Commands that run one after the other, until one of them fails.

    Attributes:
        name: Name of the job, with its number, for messages: "[3/8] bottle".
        folder: Folder of the outputs, an absolute path. All that the commands write is in it. What it holds at the
            start, such as an unfinished training, is there for the commands.
        inputs: Folders and files that the commands read, absolute paths.
        commands: Arguments of each command, such as ("edgead", "train", ...). Paths in them are absolute.
        devices: Number of GPUs of the job on a cluster; None for one if the cluster has any.
    """

    name: str
    folder: Path
    inputs: tuple[Path, ...]
    commands: tuple[tuple[str, ...], ...]
    devices: int | None = None

    @property
    def log(self) -> Path:
        """Log file of the commands, in the folder of the job."""
        return self.folder / LOG_FILE

    @property
    def sources(self) -> tuple[Path, ...]:
        """Files and folders that another machine needs: the inputs and `folder`, but none that comes with another."""
        given = dict.fromkeys((*self.inputs, self.folder))
        return tuple(path for path in given if not any(_comes_with(path, other) for other in given))


LOG_FILE = "log.txt"


class Executor(Protocol):
    """Runs jobs."""

    def run(self, jobs: Sequence[Job], lock: int | None) -> Iterator[tuple[Job, str | None]]:
        """Run jobs. A job that fails does not stop the others.

        Args:
            jobs: Jobs with folders and names of their own.
            lock: Descriptor of a lock that commands on this machine inherit, see `edgead.files.lock.exclusive`.

        Yields:
            Each job as it ends, with its error in one line, or None if all its commands succeeded. The files of the
            job are in its folder by then.

        Raises:
            EdgeadError: No job can run, such as on a cluster without the GPUs that they need.
        """
        ...


def _comes_with(path: Path, other: Path) -> bool:
    """Return whether a path is in another folder. What is hidden there is not sent with it, see `pack`."""
    inside = path.relative_to(other).parts if path.is_relative_to(other) else ()
    return bool(inside) and not any(part.startswith(".") for part in inside)


# Values of --teacher-weights and --textures that are no paths, also beside a folder of the same name.
_WORDS = ("package", "hub", "random", "procedural")


def absolute_paths(value: str) -> str:
    """Replace the files and folders in the value of an option by their absolute paths.

    Args:
        value: Value of an option: text, a path, or several with commas between.

    Returns:
        The value, for a command that may run in any folder.
    """
    if value in _WORDS:
        return value
    if os.path.exists(value):
        return os.path.abspath(value)
    return ",".join(os.path.abspath(part) if os.path.isfile(part) else part for part in value.split(","))


def paths_in(values: Iterable[str]) -> tuple[Path, ...]:
    """Return the files and folders that options name.

    Args:
        values: Values of options, from `absolute_paths`.
    """
    parts = [part for value in values for part in ([value] if os.path.exists(value) else value.split(","))]
    return tuple(Path(part) for part in parts if os.path.isabs(part) and os.path.exists(part))
