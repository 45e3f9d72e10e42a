"""The front: the answers about the whole server, `GET /`, `/health` and `/metrics`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from edgead.serving.desk import NAME
from edgead.serving.requests import Gate, RefusalError, json_answer
from edgead.streaming.page.address import PageAddress

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


class Front:
    """Answers about the server.

    Args:
        models: Names of the models.
        address: Address that the server listens on.
    """

    def __init__(self, models: Sequence[str], address: PageAddress) -> None:
        import ray

        self._models, self._gate = list(models), Gate(address)
        self._desk = ray.get_actor(NAME)

    async def __call__(self, request: Request) -> Response:
        """Answer a request."""
        from starlette.responses import Response

        try:
            self._gate.check(request, "GET")
            path = request.url.path
            known = ("/", "/health", "/metrics")
            if path not in known:
                raise RefusalError(
                    HTTPStatus.NOT_FOUND,
                    f"there are {', '.join(known)} and {', '.join(map(path_of, self._models))}",
                )
        except RefusalError as error:
            return json_answer({"error": str(error)}, error.status)
        if path == "/metrics":
            return Response(await self._desk.metrics.remote(), media_type="text/plain; version=0.0.4")
        if path == "/health":
            health = await asyncio.to_thread(health_of, self._models)
            status = HTTPStatus.OK if health["is_healthy"] else HTTPStatus.SERVICE_UNAVAILABLE
            return json_answer(health, status)
        return json_answer({"models": {name: path_of(name) for name in self._models}})


def path_of(model: str) -> str:
    """Return the path of a model in the address.

    Args:
        model: Name of the model.
    """
    return f"/models/{model}"


def health_of(models: Sequence[str]) -> dict[str, Any]:
    """Ask Ray Serve for the replicas of the models.

    Args:
        models: Names of the models.

    Returns:
        `is_healthy`: whether every model has a running replica; and the number of replicas of each by their state.
    """
    from ray import serve

    applications = serve.status().applications
    states: dict[str, dict[str, int]] = {}
    for name in models:
        found = applications[name].deployments.values() if name in applications else ()
        states[name] = {
            str(state): n for deployment in found for state, n in deployment.replica_states.items()
        }
    return {"is_healthy": all(state.get("RUNNING", 0) > 0 for state in states.values()), "models": states}
