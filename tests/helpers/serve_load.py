"""Load on `edgead serve`: good and bad images, clients that hang up, killed replicas; every answer is kept.

A client sends a request again, with the same ID, if it gets no answer or one of the server's own errors (500, 503).
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import aiohttp

TRY_AGAIN = (500, 503)
# Longer than the start of a new replica on a busy machine.
GIVE_UP_S = 120.0


@dataclass(frozen=True)
class Request:
    """A request: ID, body, status and score that it must get, whether the client hangs up first, type of the body."""

    number: str
    body: bytes
    status: int = 200
    score: float | None = None
    hangs_up: bool = False
    kind: str = "image/jpeg"


@dataclass
class Load:
    """What the clients saw: the answers by ID, times of verdicts in seconds, and tries that got no answer by reason."""

    answers: dict[str, list[tuple[int, dict[str, Any]]]] = field(default_factory=dict)
    times_s: list[float] = field(default_factory=list)
    again: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def wrong(self, requests: Sequence[Request]) -> list[str]:
        """Return the IDs of requests that are lost, answered twice, or got the answer of another."""
        found = []
        for request in requests:
            answers = self.answers.get(request.number, [])
            if len(answers) != 1:
                found.append(f"{request.number}: {len(answers)} answers")
                continue
            status, content = answers[0]
            if status != request.status or content["id"] != request.number:
                found.append(f"{request.number}: {status} {content}")
            elif (
                request.score is not None
                and abs(content["anomaly_score"] - request.score) > 1e-4 * request.score
            ):
                found.append(f"{request.number}: {content['anomaly_score']}, not {request.score}")
        return found


def run_load(
    url: str, requests: Sequence[Request], clients: int, at: dict[int, Callable[[], object]] | None = None
) -> Load:
    """Send requests from `clients` connections at once; `at` has functions to call after so many answers."""
    import aiohttp

    load, left = Load(), dict(at or {})

    async def start() -> None:
        waiting = iter(requests)
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(30.0)) as session:
            tasks = [_client(session, url, waiting, load, left) for _ in range(clients)]
            await asyncio.gather(*tasks)

    began = time.monotonic()
    asyncio.run(start())
    load.seconds = time.monotonic() - began
    return load


async def _client(
    session: aiohttp.ClientSession, url: str, waiting: Any, load: Load, at: dict[int, Callable[[], object]]
) -> None:
    import aiohttp

    for request in waiting:
        if request.hangs_up:
            load.again["client hung up"] += 1
            with suppress(asyncio.TimeoutError, aiohttp.ClientError):
                await asyncio.wait_for(_send(session, url, request), 0.004)
        until = time.monotonic() + GIVE_UP_S
        while time.monotonic() < until:
            began = time.monotonic()
            try:
                status, content = await _send(session, url, request)
            except (asyncio.TimeoutError, aiohttp.ClientError, ValueError) as error:
                load.again[type(error).__name__] += 1
                await asyncio.sleep(0.05)
                continue
            if status in TRY_AGAIN:
                load.again[str(status)] += 1
                await asyncio.sleep(0.05)
                continue
            load.answers.setdefault(request.number, []).append((status, content))
            if status == 200:
                load.times_s.append(time.monotonic() - began)
            if (action := _due(at, len(load.answers))) is not None:
                action()
            break


def _due(at: dict[int, Callable[[], object]], count: int) -> Callable[[], object] | None:
    return at.pop(count, None)


async def _send(session: aiohttp.ClientSession, url: str, request: Request) -> tuple[int, dict[str, Any]]:
    headers = {"X-Request-ID": request.number, "Content-Type": request.kind}
    async with session.post(url, data=request.body, headers=headers) as answer:
        if answer.status in TRY_AGAIN:
            return answer.status, {}
        return answer.status, await answer.json()


def replicas(model: str) -> list[int]:
    """Return the process IDs of the replicas of a model."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if line.startswith(f"ray::ServeReplica:{model}:".encode()):
            found.append(int(folder.name))
    return sorted(found)


def kill_replica(model: str) -> None:
    """End one replica without a word."""
    os.kill(replicas(model)[0], signal.SIGKILL)
