"""Execution of jobs on this machine, one after the other."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from edgead.cluster.commands import run_command
from edgead.cluster.job import Job

_log = logging.getLogger(__name__)


class LocalExecutor:
    """Runs jobs one after the other, because each of them may use all cores and GPUs of this machine."""

    def run(self, jobs: Sequence[Job], lock: int | None) -> Iterator[tuple[Job, str | None]]:
        """Run jobs. See `edgead.cluster.job.Executor.run`."""
        for job in jobs:
            yield job, _run(job, lock)


def _run(job: Job, lock: int | None) -> str | None:
    """Run the commands of a job; return the error of the first that fails."""
    for command in job.commands:
        _log.info("%s: %s", job.name, " ".join(command[:2]))
        if (error := run_command(command, job.log, lock=lock)) is not None:
            return error
    return None
