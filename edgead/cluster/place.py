"""The place where jobs run: `ray`, `ray:HOST:PORT`, `ray:auto` or `ray://HOST:PORT`, with the option `?cpus=N`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from edgead.cluster.job import Executor
from edgead.errors import InputError
from edgead.files.packages import require_packages
from edgead.streaming.uri import number_in, split_options

EXAMPLE = "give ray for Ray on this machine, ray:auto for the cluster of this machine, or ray:HOST:PORT"


@dataclass(frozen=True, slots=True)
class RayPlace:
    """A Ray cluster.

    Attributes:
        address: Address for `ray.init`; None to start Ray on this machine, for this process only.
        cpus: CPU cores of each job.
    """

    address: str | None
    cpus: int = 1


def read_place(text: str, known: Mapping[str, Callable[[str], Any]] | None = None) -> RayPlace:
    """Read the option `--on`.

    Args:
        text: Text of the option. `ray` stands for the cluster of the environment variable RAY_ADDRESS, or if that is
            not set for Ray on this machine.
        known: Parsers of the options behind a question mark; by default of `cpus`.

    Raises:
        InputError: It is no such text, or an option is unknown or has an invalid value.
    """
    place, options = split_options(text, {"cpus": number_in(int, 1, 4096)} if known is None else known)
    if place == "ray":
        return RayPlace(os.environ.get("RAY_ADDRESS") or None, **options)
    kind, _, address = place.partition(":")
    if kind != "ray" or not address.strip("/") or not address.isprintable():
        raise InputError(f"{text!r} is no place to run jobs on", hint=EXAMPLE)
    return RayPlace(place if address.startswith("//") else address, **options)


def check_place(on: str | None) -> None:
    """Check the option `--on` before any work.

    Args:
        on: Text of the option; None if it is not given.

    Raises:
        InputError: The text names no place.
        MissingExtraError: Ray is not installed.
    """
    if on is not None:
        read_place(on)
        require_packages("ray", f"--on {on}", "ray")


@contextmanager
def open_executor(on: str | None) -> Iterator[Executor]:
    """Open the executor of the option `--on`.

    Args:
        on: Text of the option; None for this machine, one job after the other.

    Yields:
        The executor.

    Raises:
        InputError: The text names no place.
        MissingExtraError: Ray is not installed.
        BackendError: The cluster cannot be reached, or has other versions of Python, edgead or torch.
    """
    if on is None:
        from edgead.cluster.local import LocalExecutor

        yield LocalExecutor()
        return
    place = read_place(on)
    from edgead.cluster.ray_connection import ray_connection
    from edgead.cluster.ray_executor import RayExecutor

    with ray_connection(place.address):
        yield RayExecutor(place.cpus)
