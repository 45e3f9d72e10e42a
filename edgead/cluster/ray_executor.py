"""Execution of jobs on a Ray cluster, whose machines need share no disk.

A job is a Ray task with its CPU cores and GPUs. Its inputs go to the workers as objects, which Ray copies to a node
once, and its folder comes back as the result of the task. Ray runs the task again if its worker or node is lost. A job
that fails by itself is not run again.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from edgead.cluster.job import Job
from edgead.cluster.parcel import pack, unpack
from edgead.cluster.ray_connection import head_answers, last_line, live_nodes
from edgead.cluster.ray_task import MAX_INPUT_BYTES, MAX_RESULT_BYTES, Result, run_job
from edgead.cluster.versions import versions_here
from edgead.errors import BackendError, EdgeadError, InputError, vendor_errors
from edgead.files.atomic import replace_directory
from edgead.text import duration

_log = logging.getLogger(__name__)

RETRIES = 5
"""How often a job is run again after its worker or node was lost."""

# Jobs that wait on the cluster, beyond those that run: a core that becomes free has work at once.
_WAITING = 2
_POLL_S = 1.0
# Ray gives a head that is lost 60 seconds to come back, and then ends this process without an exception.
_HEAD_S = 30.0
_LOST = ("the Ray cluster does not answer", "start it again, then run the same command again")


class RayExecutor:
    """Runs jobs on the cluster that this process is connected to.

    Args:
        cpus: CPU cores of each job, which is also the number of its threads.
    """

    def __init__(self, cpus: int) -> None:
        self._cpus, self._versions = cpus, versions_here()
        self._nodes = live_nodes()
        self._silent_since: float | None = None

    def run(self, jobs: Sequence[Job], lock: int | None) -> Iterator[tuple[Job, str | None]]:
        """Run jobs. See `edgead.cluster.job.Executor.run`."""
        for job in jobs:
            self._check(job)
        waiting, running = deque(jobs), dict[Any, Job]()
        objects = _Inputs(jobs)
        try:
            while waiting or running:
                self._watch_nodes()
                while waiting and self._has_room(waiting[0], len(running)):
                    job = waiting.popleft()
                    try:
                        running[self._submit(job, objects)] = job
                    except EdgeadError as error:
                        objects.release(job)
                        yield job, str(error)
                for reference in _ended(list(running)):
                    job = running.pop(reference)
                    objects.release(job)
                    yield job, _finish(job, reference)
        finally:
            for reference in running:
                _cancel(reference)

    def _submit(self, job: Job, objects: _Inputs) -> Any:
        """Send a job to the cluster; return the reference of its result."""
        import ray

        gpus = self._gpus(job)
        # A worker whose node is being lost may live for a moment more; then its job ends with
        # Ray's "Broken pipe". Errors of the job itself are in its result.
        task = ray.remote(_run_on_worker).options(
            num_cpus=self._cpus,
            num_gpus=gpus,
            max_retries=RETRIES,
            retry_exceptions=[OSError],
            name=f"edgead {job.name}",
        )
        _log.info("%s: sent to the cluster", job.name)
        return task.remote(job, objects.take(job), self._cpus, gpus, self._versions)

    def _gpus(self, job: Job) -> int:
        """Return the number of GPUs of a job."""
        if job.devices is not None:
            return job.devices
        return int(any(resources.get("GPU", 0.0) >= 1.0 for resources in self._nodes.values()))

    def _slots(self, job: Job) -> int:
        """Return the number of jobs that the cluster can run beside each other."""
        gpus = self._gpus(job)
        return sum(
            min(
                int(found.get("CPU", 0.0)) // self._cpus,
                int(found.get("GPU", 0.0)) // gpus if gpus else 2**31,
            )
            for found in self._nodes.values()
        )

    def _has_room(self, job: Job, running: int) -> bool:
        """Return whether the cluster takes a job beside those that it has."""
        return self._silent_since is None and running < self._slots(job) + _WAITING

    def _check(self, job: Job) -> None:
        """Raise InputError if no node has the resources of a job: Ray would wait for one without end."""
        if not self._slots(job):
            gpus = self._gpus(job)
            raise InputError(
                f"no node of the Ray cluster has {self._cpus} CPU cores and {gpus} GPUs, as {job.name} needs",
                hint="give fewer, as in --on 'ray?cpus=1', or add a node with 'ray start'",
            )

    def _watch_nodes(self) -> None:
        """Report nodes that are lost or new, and a cluster that does not answer, which gets no new jobs meanwhile.

        Raises:
            BackendError: The cluster has not answered for a while.
        """
        try:
            nodes = live_nodes() if head_answers() else None
            reason = "its head takes no connection"
        except Exception as error:
            # The errors of Ray have no base class in common.
            nodes, reason = None, last_line(error)
        if nodes is None:
            if self._silent_since is None:
                self._silent_since = time.monotonic()
                _log.warning("%s (%s); jobs that run there go on", _LOST[0], reason)
            elif time.monotonic() - self._silent_since > _HEAD_S:
                raise BackendError(f"{_LOST[0]} ({reason})", hint=_LOST[1])
            return
        if self._silent_since is not None:
            self._silent_since = None
            _log.info("the Ray cluster answers again")
        for node in self._nodes.keys() - nodes.keys():
            _log.warning("node %s of the Ray cluster is lost; its jobs run again on other nodes", node[:12])
        for node in nodes.keys() - self._nodes.keys():
            _log.info("node %s joined the Ray cluster", node[:12])
        self._nodes = nodes


class _Inputs:
    """Inputs of jobs as objects of the cluster. Each input is read once, and freed after the last job with it."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._left = Counter(source for job in jobs for source in _kept(job))
        self._objects: dict[Path, list[Any]] = {}

    def take(self, job: Job) -> list[list[Any]]:
        """Return the references to the chunks of each source of a job; its folder is left out if it is new."""
        for source in _kept(job):
            if source not in self._objects:
                self._objects[source] = _stored(source)
        return [
            _stored(source) if source == job.folder else self._objects[source]
            for source in job.sources
            if source != job.folder or source.is_dir()
        ]

    def release(self, job: Job) -> None:
        """Free the inputs that no other job needs."""
        for source in _kept(job):
            self._left[source] -= 1
            if not self._left[source]:
                self._objects.pop(source, None)


def _kept(job: Job) -> list[Path]:
    """Return the sources of a job that other jobs may have, too."""
    return [source for source in job.sources if source != job.folder]


def _stored(source: Path) -> list[Any]:
    import ray

    chunks = pack(source, source.parent, MAX_INPUT_BYTES)
    return [_put(chunk, source, ray.put) for chunk in chunks]


def _put(chunk: bytes, source: Path, put: Callable[[bytes], Any]) -> Any:
    """Store a chunk in the cluster; BackendError, for this job alone, if it has no room for it."""
    with vendor_errors(f"the Ray cluster does not take {source}", "check its disk and memory"):
        return put(chunk)


def _ended(references: list[Any]) -> list[Any]:
    """Wait for a moment, at most until a job ends; return the references of the jobs that ended."""
    import ray

    if not references:
        time.sleep(_POLL_S)
        return []
    with vendor_errors(*_LOST):
        ended, _ = ray.wait(references, num_returns=1, timeout=_POLL_S)
    return list(ended)


def _cancel(reference: Any) -> None:
    """Cancel a job. A cluster that is lost cannot, which must not hide the error that ended this command."""
    import ray

    try:
        ray.cancel(reference, force=True)
    except Exception as error:
        _log.debug("a job was not cancelled: %s", last_line(error))


def _run_on_worker(job: Job, parcels: list[list[Any]], *others: Any) -> Result:
    """Run a job on a worker, which gets one chunk of its inputs after the other."""
    import ray

    return run_job(job, [map(ray.get, references) for references in parcels], *others)


def _finish(job: Job, reference: Any) -> str | None:
    """Write the files of an ended job; return its error in one line."""
    import ray

    try:
        result: Result = ray.get(reference)
    except ray.exceptions.RayError as error:
        return f"the job was lost on the cluster ({last_line(error)})"
    try:
        if result.chunks:
            with replace_directory(job.folder) as partial:
                unpack(result.chunks, partial, MAX_RESULT_BYTES)
    except EdgeadError as error:
        return str(error)
    if result.error is None:
        _log.info("%s: done in %s", job.name, duration(result.seconds))
    return result.error
