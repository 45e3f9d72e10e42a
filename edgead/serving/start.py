"""Start and end of a server: the connection to Ray, the desk, and one application of Ray Serve for each model."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from edgead.cluster.parcel import pack
from edgead.cluster.place import RayPlace
from edgead.cluster.ray_connection import last_line, live_nodes, ray_connection
from edgead.errors import BackendError, InputError, vendor_errors
from edgead.serving.desk import NAME, Desk
from edgead.serving.front import Front, path_of
from edgead.serving.plan import ServedModel
from edgead.serving.replica import MAX_BUNDLE_BYTES, Replica
from edgead.streaming.page.address import PageAddress

_log = logging.getLogger(__name__)

REQUEST_S = 60.0
"""Time that a request may take; then it is answered with an error."""

MOST_WAITING = 256
"""Requests of a model that wait for a replica; more are answered with HTTP 503."""

ONGOING = 32
"""Requests that a replica decodes and scores at once: several batches, so that the next is ready when one ends."""

_QUIET = {"log_level": "ERROR", "enable_access_log": False}


@contextmanager
def serving(
    models: Sequence[ServedModel], address: PageAddress, place: RayPlace, replicas: int, threads: int | None
) -> Iterator[None]:
    """Serve models for the time of the block.

    Args:
        models: Models that `edgead.serving.plan.check_models` has checked.
        address: Address to listen on.
        place: Ray cluster.
        replicas: Number of replicas of each model.
        threads: CPU threads of each replica; None to divide the cores among all of them.

    Raises:
        InputError: The cluster has too few cores or GPUs, or serves something already.
        BackendError: Ray cannot be started or reached, the port is in use, or a replica does not start.
        MissingExtraError: Ray is not installed.
    """
    cores = len(os.sched_getaffinity(0))
    count = replicas * len(models)
    own: dict[str, Any] = {}
    if place.address is None:
        # On one machine the system divides the cores, so replicas may be more than cores.
        own["num_cpus"] = max(cores, count * (threads or 1))
    with ray_connection(place.address, **own):
        nodes = live_nodes()
        if place.address is not None:
            cores = int(sum(found.get("CPU", 0.0) for found in nodes.values()))
        each = threads or max(1, cores // count)
        gpus = sum(found.get("GPU", 0.0) for found in nodes.values())
        _check_nodes(nodes, each, count if place.address is not None else 0)
        share = _gpu_share(models, replicas, gpus)
        with _serve(address, is_own=place.address is None):
            # The desk lives as long as its handle.
            desk = _start(models, address, replicas, each, share)
            yield
            del desk


@contextmanager
def _serve(address: PageAddress, is_own: bool) -> Iterator[None]:
    """Start Ray Serve, and end it; a cluster of others stays without it."""
    import ray
    from ray import serve

    try:
        ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
    except ValueError:
        pass
    else:
        raise InputError(
            "the cluster serves something already",
            hint="end it with 'serve shutdown', or choose another cluster",
        )
    options = {
        "host": address.host,
        "port": address.port,
        "location": "HeadOnly",
        "request_timeout_s": REQUEST_S,
        "keep_alive_timeout_s": 30,
    }
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    try:
        with vendor_errors(
            f"cannot listen on {address.host}:{address.port}",
            "give another --listen, or end what uses the port",
        ):
            serve.start(http_options=options, logging_config=_QUIET)
        yield
    finally:
        # The replicas first, which answer what they have begun.
        for name in serve.status().applications:
            serve.delete(name)
        if not is_own:
            serve.shutdown()


def _start(
    models: Sequence[ServedModel], address: PageAddress, replicas: int, threads: int, gpu_share: float
) -> Any:
    """Start the replicas of all models, and wait until they are ready; return the desk."""
    import ray
    from ray import serve

    parcels = {
        model.name: [ray.put(chunk) for chunk in pack(model.bundle, model.bundle, MAX_BUNDLE_BYTES)]
        for model in models
    }
    desk = ray.remote(Desk).options(name=NAME, num_cpus=0).remote(parcels)
    ray.get(desk.metrics.remote())
    targets = [
        _target("_front", serve.deployment(Front), {"num_cpus": 0}, 1, "/", [m.name for m in models], address)
    ]
    for model in models:
        resources = {"num_cpus": threads, **({"num_gpus": gpu_share} if model.needs_gpu else {})}
        arguments = (model.name, address, threads if model.on_cpu else None)
        targets.append(
            _target(
                model.name, serve.deployment(Replica), resources, replicas, path_of(model.name), *arguments
            )
        )
    _log.info("starting %d replicas with %d threads each", replicas * len(models), threads)
    try:
        serve.run_many(targets)
    except Exception as error:
        # Ray Serve raises errors of several classes, with the traceback of the replica in their text.
        raise BackendError(
            f"a replica does not start ({last_line(error)})",
            hint="check the memory, and the bundle on that machine",
        ) from error
    return desk


def _target(
    name: str, kind: Any, resources: dict[str, Any], replicas: int, path: str, *arguments: Any
) -> Any:
    """Make an application of Ray Serve with one deployment."""
    from ray import serve

    deployment = kind.options(
        name=name,
        num_replicas=replicas,
        ray_actor_options=resources,
        max_ongoing_requests=ONGOING,
        max_queued_requests=MOST_WAITING,
        health_check_period_s=2.0,
        graceful_shutdown_wait_loop_s=0.2,
        max_constructor_retry_count=1,
        logging_config=_QUIET,
    )
    return serve.RunTarget(deployment.bind(*arguments), name=name, route_prefix=path)


def _check_nodes(nodes: dict[str, dict[str, float]], threads: int, count: int) -> None:
    """Raise InputError if a cluster has too few cores for the replicas, which would wait for them without end."""
    fitting = sum(int(found["CPU"]) // threads for found in nodes.values())
    if fitting < count:
        raise InputError(
            f"the cluster has cores for {fitting} replicas with {threads} threads, not for {count}",
            hint="give fewer --replicas or --threads",
        )


def _gpu_share(models: Sequence[ServedModel], replicas: int, gpus: float) -> float:
    """Return the GPUs of each replica that needs one: 1, or a share if there are fewer."""
    count = replicas * sum(model.needs_gpu for model in models)
    if count and gpus < 1.0:
        raise InputError("an engine needs a GPU, and the Ray cluster has none", hint="add a node with a GPU")
    if count <= gpus:
        return 1.0
    # A replica has its share on one GPU, so each GPU has a whole number of them.
    each = -(-count // int(gpus))
    return int(1000.0 / each) / 1000.0
