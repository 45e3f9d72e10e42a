"""The connection to a Ray cluster, and the check that its nodes have the versions of this machine.

This file, `ray_executor.py` and the room serving are the only ones that import Ray. A cluster is one circle of trust:
whoever reaches its ports can run code on its machines. So Ray that edgead starts takes no command without a random
token.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from edgead.cluster.versions import difference, versions_here
from edgead.errors import BackendError, needs_extra, vendor_errors
from edgead.files.cache import temporary_directory
from edgead.text import one_line

_log = logging.getLogger(__name__)

# Ray reads them when it is imported. It sends no statistics, and leaves the GPUs of a job without GPUs to the job.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_SERVE_ENABLE_TELEMETRY": "0",
}
# Of Ray that edgead starts: a token, of which Ray keeps the first one of a process, and processes that are as important
# as all others, which Ray's own are not.
_OWN = {"RAY_AUTH_MODE": "token", "RAY_worker_niceness": "0", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
# Time that a node may take to start a worker, which imports edgead.
PROBE_S = 120.0
_CONNECT_S = 5.0


@contextmanager
def ray_connection(address: str | None, **options: Any) -> Iterator[None]:
    """Connect this process to Ray for the time of the block, and check the versions of all nodes.

    Args:
        address: Address of a cluster; None to start Ray on this machine, which ends with the block.
        options: Other options of `ray.init`.

    Raises:
        MissingExtraError: Ray is not installed.
        BackendError: The cluster cannot be reached or started, or a node has other versions.
    """
    own = {} if address is not None else _OWN
    with _environment({**_ENVIRONMENT, **own}), needs_extra("ray", "a Ray cluster"):
        import ray

    with _environment({**_ENVIRONMENT, **own}), temporary_directory() as folder:
        if address is None:
            _log.info("starting Ray on this machine")
            options |= {"address": "local", "include_dashboard": False, "_temp_dir": str(folder)}
            options |= {"_node_ip_address": "127.0.0.1"}
        else:
            _log.info("connecting to Ray at %s", address)
            options["address"] = address
        # Ray prints the deaths of its processes to standard output, which is for results; no option prevents it.
        ray._private.worker.print_to_stdstream = _log_of_ray
        with (
            _handlers_kept(),
            vendor_errors(
                f"cannot {'start Ray' if address is None else f'reach the Ray cluster {address}'}",
                "start the cluster with 'ray start', check the address, the versions and the free memory",
            ),
        ):
            ray.init(log_to_driver=False, logging_level="ERROR", namespace="edgead", **options)
        try:
            _check_nodes()
            yield
        finally:
            ray.shutdown()


def live_nodes() -> dict[str, dict[str, float]]:
    """Return the resources, such as "CPU" and "GPU", of every node that lives and has CPU cores, by its ID."""
    import ray

    return {
        node["NodeID"]: node["Resources"]
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("CPU", 0.0) > 0.0
    }


def head_answers() -> bool:
    """Return whether the head of the cluster accepts a connection.

    Ray ends this process without an exception if it asks a head that is lost. A client of Ray (``ray://``) has no
    connection to the head, and gets an exception: here it is True.
    """
    import ray
    from ray.util.client import ray as client

    if client.is_connected():
        return True
    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
    except OSError:
        return False
    return True


def _check_nodes() -> None:
    """Raise BackendError if a node has other versions than this machine."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    probe = ray.remote(num_cpus=0, max_retries=0)(versions_here)
    expected = versions_here()
    probes = {
        node: probe.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote()
        for node in live_nodes()
    }
    lost = (ray.exceptions.TaskUnschedulableError, ray.exceptions.NodeDiedError)
    for node, found in probes.items():
        try:
            other = difference(expected, ray.get(found, timeout=PROBE_S))
        except lost:
            # The head lists a lost node as alive for some seconds.
            _log.warning("node %s of the Ray cluster is lost; its other nodes are used", node[:12])
            continue
        except Exception as error:
            # A node that cannot import edgead gives one of several errors.
            raise BackendError(
                f"node {node[:12]} of the Ray cluster does not run edgead ({last_line(error)})",
                hint=f"install edgead {expected['edgead']} there, for Python {expected['Python']}",
            ) from error
        if other is not None:
            raise BackendError(
                f"node {node[:12]} of the Ray cluster has {other}",
                hint="install the versions of this machine there",
            )


def last_line(error: BaseException) -> str:
    """Return the last line of an error of Ray, which has the traceback of a worker before it.

    Args:
        error: Error of Ray.
    """
    lines = [line for line in str(error).splitlines() if line.strip()]
    return one_line(lines[-1])[:300] if lines else type(error).__name__


def _log_of_ray(message: Mapping[str, Any], **_: object) -> None:
    """Log a message of Ray as a detail."""
    _log.debug("Ray: %s", one_line(message.get("lines")))


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the time of the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Keep the handlers of signals, which Ray replaces: its own end the process without a word."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
