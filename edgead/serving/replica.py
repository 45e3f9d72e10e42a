"""A replica: one process that answers the requests to one model.

A request has one image, or an archive of images, which costs HTTP less for each. An image is decoded and resized in a
few threads, while the model scores a batch in another thread. Images that wait for the model are scored in one batch,
up to the largest batch that the model takes at once.
"""

from __future__ import annotations

import asyncio
import base64
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2

from edgead.bundle import open_bundle
from edgead.cluster.parcel import unpack
from edgead.errors import EdgeadError, InputError
from edgead.files.cache import temporary_directory
from edgead.imaging.decode import image_from_bytes
from edgead.imaging.heatmap import overlay
from edgead.prediction.rows import row_of
from edgead.runtime.base import largest_batch
from edgead.runtime.framed import BATCH
from edgead.runtime.model import Model
from edgead.runtime.results import (
    LoadedImage,
    Outcome,
    ReadImage,
    Result,
    UsedThreshold,
    load_image,
    score_images,
)
from edgead.serving.archive import archive_images
from edgead.serving.desk import NAME, Counts
from edgead.serving.requests import ARCHIVE, Gate, RefusalError, body_of, id_of, json_answer, kind_of
from edgead.serving.scorer import Scorer
from edgead.streaming.page.address import PageAddress

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

MAX_BUNDLE_BYTES = 8 * 2**30
REPORT_S = 1.0

_Item = tuple[LoadedImage, UsedThreshold]


class Replica:
    """Answers `POST /models/NAME`.

    Args:
        name: Name of the model.
        address: Address that the server listens on.
        threads: CPU threads of one inference; None for a model on a GPU.

    Raises:
        EdgeadError: The bundle cannot be opened on the machine of this replica, or does not give its golden answers.
    """

    def __init__(self, name: str, address: PageAddress, threads: int | None) -> None:
        import ray
        from ray import serve

        self._name, self._gate, self._counts = name, Gate(address), Counts()
        self._desk = ray.get_actor(NAME)
        self._id = serve.get_replica_context().replica_id.unique_id
        cv2.setNumThreads(1)
        with temporary_directory() as folder:
            unpack(map(ray.get, ray.get(self._desk.bundle.remote(name))), folder, MAX_BUNDLE_BYTES)
            self._model = Model.of_bundle(open_bundle(folder), threads)
        self._decoding = ThreadPoolExecutor(max(1, threads or 2), "edgead-decode")
        # Images that are decoded and not yet scored: a large image in tiles takes 250 MiB, and archives have many.
        self._room = asyncio.Semaphore(4 * batch_size(self._model))
        # One batch at a time: a session is not shared by threads. What has come while the last batch was scored is the
        # next one.
        self._score = Scorer(self._score_batch, batch_size(self._model))
        self._reporting: asyncio.Task[None] | None = None

    async def __call__(self, request: Request) -> Response:
        """Answer a request with its verdict or verdicts, or with an error in one line."""
        if self._reporting is None:
            self._reporting = asyncio.get_running_loop().create_task(self._report())
        began, number = time.monotonic(), None
        try:
            self._gate.check(request, "POST")
            number = id_of(request)
            used = self._used_threshold(request)
            heatmap = _flag(request, "heatmap")
            data = await body_of(request)
            if kind_of(request) == ARCHIVE:
                answer = {"verdicts": await self._verdicts(data, used, heatmap, began)}
            else:
                answer = await self._verdict(data, number, used, heatmap, began)
        except RefusalError as error:
            self._count(error)
            return json_answer({"id": number, "model": self._name, "error": str(error)}, error.status)
        return json_answer({"id": number, "model": self._name, **answer})

    async def _verdicts(
        self, data: bytes, used: UsedThreshold, heatmap: bool, began: float
    ) -> list[dict[str, Any]]:
        """Decide on the images of an archive; RefusalError if it is broken, or the server fails."""
        loop = asyncio.get_running_loop()
        images = await loop.run_in_executor(self._decoding, archive_images, data)

        async def verdict(name: str, image: bytes) -> dict[str, Any]:
            try:
                return await self._verdict(image, name, used, heatmap, began)
            except RefusalError as error:
                if error.status == HTTPStatus.INTERNAL_SERVER_ERROR:
                    raise
                self._count(error)
                return {"image": name, "error": str(error)}

        tasks = [loop.create_task(verdict(*image)) for image in images]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            # After an error, or if the client has hung up, nobody waits for the others.
            for task in tasks:
                task.cancel()

    def _count(self, error: RefusalError) -> None:
        failed = error.status == HTTPStatus.INTERNAL_SERVER_ERROR
        self._counts.outcomes["failed" if failed else "refused"] += 1

    async def _verdict(
        self, data: bytes, name: str, used: UsedThreshold, heatmap: bool, began: float
    ) -> dict[str, Any]:
        """Decide on an image file, and count the verdict and its time; RefusalError if there is no decision."""
        loop = asyncio.get_running_loop()
        read = partial(image_from_bytes, data, f"image {name}", self._model.bit_depth)
        async with self._room:
            loaded = await loop.run_in_executor(
                self._decoding, load_image, read, self._model.size, self._model.view
            )
            if loaded.error is not None:
                raise RefusalError(HTTPStatus.UNPROCESSABLE_ENTITY, str(loaded.error))
            try:
                outcome = await self._score((loaded, used))
            except EdgeadError as error:
                raise RefusalError(HTTPStatus.INTERNAL_SERVER_ERROR, str(error)) from error
        row = dict(row_of(Path(name), None, outcome))
        if outcome.result is None:
            raise RefusalError(HTTPStatus.INTERNAL_SERVER_ERROR, str(row["error"]))
        if heatmap:
            # Read again, because large images that wait for the model would fill the memory.
            row["heatmap_png"] = await loop.run_in_executor(self._decoding, _heatmap, read, outcome.result)
        self._counts.outcomes["anomalous" if row["is_anomalous"] else "good"] += 1
        self._counts.add_time(time.monotonic() - began)
        return row

    def _used_threshold(self, request: Request) -> UsedThreshold:
        try:
            return self._model.used_threshold(request.query_params.get("part"))
        except InputError as error:
            raise RefusalError(HTTPStatus.BAD_REQUEST, str(error)) from error

    def _score_batch(self, items: list[_Item]) -> list[Outcome]:
        """Score the images that wait."""
        self._counts.batches += 1
        return score_images(self._model.session, items)

    async def _report(self) -> None:
        """Send the counts to the desk, once a second."""
        while True:
            with suppress(Exception):
                await self._desk.report.remote(self._name, self._id, self._counts)
            await asyncio.sleep(REPORT_S)


def batch_size(model: Model) -> int:
    """Return the number of images that are scored together: an engine's largest batch, or as `edgead predict`.

    Args:
        model: Opened model.
    """
    return max(BATCH, largest_batch(model.session)) if not model.view.is_tiled else 1


def _flag(request: Request, name: str) -> bool:
    """Read an option of the address that is 0 or 1."""
    value: str = request.query_params.get(name, "0")
    if value not in ("0", "1"):
        raise RefusalError(HTTPStatus.BAD_REQUEST, f"{name} is 0 or 1")
    return value == "1"


def _heatmap(read: ReadImage, result: Result) -> str:
    """Return the heat map over the image as PNG in base64."""
    drawn = overlay(read(), result.anomaly_map, result.threshold)
    _, png = cv2.imencode(".png", cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))
    return base64.b64encode(png.tobytes()).decode()
