"""The part of a job on a cluster that runs on a worker: unpack, run the commands, and pack the results.

The paths of a job are those of the machine that asked for it. On the worker all of them lie in a temporary folder, so
`/parts/bottle` becomes `/tmp/edgead-job-x/parts/bottle`, in the arguments and in the records that the commands read. At
the end this beginning is removed from the texts of the results.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from edgead.cluster.commands import run_command
from edgead.cluster.job import Job
from edgead.cluster.parcel import pack, unpack
from edgead.cluster.versions import difference, versions_here
from edgead.errors import EdgeadError
from edgead.text import path_text

MAX_INPUT_BYTES = 2**40
MAX_RESULT_BYTES = 8 * 2**30

_PREFIX = "edgead-job-"
# A folder without a lock and of this age belongs to a worker that is gone.
_LEFT_BEHIND_S = 600.0
_TEXTS = (".json", ".txt", ".html", ".csv", ".md")


@dataclass(frozen=True, slots=True)
class Result:
    """Result of a job on a worker.

    Attributes:
        error: Error of the job in one line, None if all its commands succeeded.
        chunks: Parcel of the job's folder; empty if nothing was written.
        seconds: Time that the job took on the worker.
    """

    error: str | None
    chunks: tuple[bytes, ...]
    seconds: float


def run_job(
    job: Job,
    parcels: Sequence[Iterable[bytes]],
    cpus: int,
    gpus: int,
    expected: Mapping[str, str],
) -> Result:
    """Run a job in a temporary folder of this machine.

    Args:
        job: The job, with the paths of the machine that asks for it.
        parcels: Parcels of `job.sources`, in their order. The last may be left out, if the folder of the job is new.
        cpus: Number of threads of the commands.
        gpus: Number of GPUs that Ray gives this process; 0 to hide all of them.
        expected: Versions of the machine that asks.

    Returns:
        The result. An error of the job is in it.
    """
    began = time.monotonic()
    if (other := difference(expected, versions_here())) is not None:
        return Result(f"the worker has {other}: install the versions of this machine there", (), 0.0)
    try:
        with _job_folder() as root:
            error = _run(job, root, parcels, _environment(cpus, gpus))
            folder = _moved(job.folder, root)
            chunks: tuple[bytes, ...] = ()
            if folder.is_dir():
                _replace_texts(folder, os.fsencode(root), b"")
                chunks = tuple(pack(folder, folder, MAX_RESULT_BYTES))
            text = None if error is None else error.replace(str(root), "")
            return Result(text, chunks, time.monotonic() - began)
    except EdgeadError as error:
        return Result(str(error), (), time.monotonic() - began)


def _run(
    job: Job, root: Path, parcels: Sequence[Iterable[bytes]], environment: Mapping[str, str]
) -> str | None:
    """Unpack the inputs and run the commands of a job; return the error of the first that fails."""
    folder = _moved(job.folder, root)
    for source, parcel in zip(job.sources, parcels, strict=False):
        unpack(parcel, _moved(source, root).parent, MAX_INPUT_BYTES)
    for source in job.inputs:
        # A folder without files, which the command has to name.
        if not (place := _moved(source, root)).exists():
            place.mkdir(parents=True)
    for source in job.sources:
        # A path in JSON is a text of its own.
        text = json.dumps(path_text(source))[:-1].encode()
        _replace_texts(folder, text, b'"' + os.fsencode(root) + text[1:])
    for command in job.commands:
        moved = [_moved_argument(argument, job, root) for argument in command]
        log = folder / job.log.name
        if (error := run_command(moved, log, environment=environment, tied=True)) is not None:
            return error
    return None


def _environment(cpus: int, gpus: int) -> dict[str, str]:
    """Return the environment of the commands."""
    packages = os.pathsep.join(path for path in sys.path if path)
    threads = {name: str(cpus) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    hidden = {} if gpus else {"CUDA_VISIBLE_DEVICES": ""}
    return {**os.environ, "PYTHONPATH": packages, **threads, **hidden}


def _moved(path: Path, root: Path) -> Path:
    return root / path.relative_to(path.anchor)


def _moved_argument(argument: str, job: Job, root: Path) -> str:
    """Return an argument with the paths of this machine. Files of weights may be joined by commas."""
    known = {str(source) for source in job.inputs}

    def moved(text: str) -> str:
        inside = text == str(job.folder) or text.startswith(f"{job.folder}{os.sep}")
        return str(_moved(Path(text), root)) if text in known or inside else text

    whole = moved(argument)
    return whole if whole != argument else ",".join(map(moved, argument.split(",")))


def _replace_texts(folder: Path, old: bytes, new: bytes) -> None:
    """Replace a text in all text files below a folder."""
    for file in folder.rglob("*"):
        if file.suffix in _TEXTS and file.is_file():
            content = file.read_bytes()
            if old in content:
                file.write_bytes(content.replace(old, new))


@contextmanager
def _job_folder() -> Iterator[Path]:
    """Make a temporary folder for the time of the block, and remove those of workers that were killed."""
    base = Path(tempfile.gettempdir())
    for old in base.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if time.time() - old.stat().st_mtime > _LEFT_BEHIND_S and _take(old):
                shutil.rmtree(old)
    root = Path(tempfile.mkdtemp(prefix=_PREFIX))
    descriptor = os.open(root, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield root
    finally:
        os.close(descriptor)
        shutil.rmtree(root, ignore_errors=True)


def _take(folder: Path) -> bool:
    """Return whether no living process holds the lock of a folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
