"""Processes that need torch. They are forked from a server that has imported it, which saves seconds in each."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from unittest import mock

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["edgead.training.start", "edgead.cli.main", "tests.helpers.training_parts"])


def start_process(work: Callable[..., object], *arguments: object, output: Path) -> ForkServerProcess:
    """Start a process that calls a function of a module; its `exitcode` is negative where a signal ended it.

    Args:
        work: Function of a module, which the process imports.
        arguments: Arguments of the function.
        output: File of what the process prints on standard output and standard error.
    """
    # The server would measure coverage, and every process that is forked from it.
    without = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_")}
    with mock.patch.dict(os.environ, without | {"OMP_NUM_THREADS": "1"}, clear=True):
        process = _context.Process(target=_run, args=(work, arguments, os.getcwd(), output))
        process.start()
    return process


def _run(work: Callable[..., object], arguments: tuple[object, ...], directory: str, output: Path) -> None:
    os.chdir(directory)
    # The dispositions of a process that a shell starts in the foreground.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    work(*arguments)
