"""A Ray cluster of two nodes on this machine, and the check that none of its processes outlives a test."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

STORE_BYTES = 200 * 2**20


needs_ray = pytest.mark.skipif(
    find_spec("ray") is None, reason="ray is not installed: pip install 'edgead[ray]'"
)


@contextmanager
def two_nodes() -> Iterator[Any]:
    """Start a cluster of a head and a worker with one core each; the workers import what this process imports."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="ray") as folder:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        # As important as all other processes of the tests.
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("RAY_TMPDIR", folder)
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        from ray.cluster_utils import Cluster

        options = {"num_cpus": 1, "object_store_memory": STORE_BYTES, "include_dashboard": False}
        # A process that is not of the tests may have much shared memory in use.
        if (free := os.statvfs("/dev/shm")).f_bavail * free.f_frsize < 2 * STORE_BYTES:
            options["plasma_directory"] = folder
        cluster = Cluster(initialize_head=True, head_node_args=options)
        try:
            cluster.other = cluster.add_node(**options)
            yield cluster
        finally:
            cluster.shutdown()
            left = _end(folder)
        assert not left, f"processes of Ray outlive the cluster: {left}"


def processes(folder: str) -> set[int]:
    """Return the IDs of the processes of a cluster, which name its folder or write their output there."""
    found = set()
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            texts = [(place / name).read_bytes() for name in ("cmdline", "environ")]
            outputs = [os.fsencode(os.readlink(place / "fd" / number)) for number in "12"]
            if any(os.fsencode(folder) in text for text in (*texts, *outputs)):
                found.add(int(place.name))
    return found - {os.getpid()}


def _end(folder: str) -> set[int]:
    """Wait for the end of the processes of a cluster; kill and return those that stay."""
    until = time.monotonic() + 15.0
    while (left := processes(folder)) and time.monotonic() < until:
        time.sleep(0.1)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return left
