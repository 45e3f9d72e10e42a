"""A page of a stream that runs, and a client of it."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgead.bundle import Bundle, open_bundle
from edgead.runtime import FakeSession
from edgead.scoring.threshold import Threshold
from edgead.streaming import LineControl, stream
from edgead.streaming.page import Page, PageAddress, PageCamera
from edgead.streaming.page.feedback import FeedbackFolder
from edgead.streaming.page.threshold import ThresholdDesk
from edgead.types import UInt8Array
from tests.helpers.brightness_bundle import write_brightness_bundle
from tests.helpers.stream_parts import SIZE, Records, ScriptedSource
from tests.helpers.trigger_parts import LIMIT_S, wait_until

LOCAL = PageAddress("127.0.0.1", 0)
GOOD_SCORES = [40.0, 41.0, 42.0, 43.0, 44.0, 45.0, 46.0, 47.0, 60.0, 80.0]


def level_of(image: UInt8Array) -> float:
    """The `level` of a `textured` image, as the score of a fake session."""
    return float(image.min())


def page_bundle(folder: Path, threshold: float = 100.0) -> Bundle:
    """A bundle with the threshold and the scores of good images that a stream of `textured` images has."""
    held_out = {str(number): score for number, score in enumerate(GOOD_SCORES)}
    built = Threshold(threshold, None, None, None, len(held_out), None)
    return open_bundle(write_brightness_bundle(folder / "bundle", SIZE, built, held_out=held_out))


@dataclass
class Answer:
    """An answer of the page."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Viewer:
    """A client of a page, such as a browser. `headers` are added to every request."""

    port: int
    host: str = "127.0.0.1"
    headers: dict[str, str] = field(default_factory=dict)

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=LIMIT_S)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, {**self.headers, **named})
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.request("GET", path, **headers)

    def post(self, path: str, content: object, **headers: str) -> Answer:
        headers = {"Content_Type": "application/json", **headers}
        return self.request("POST", path, json.dumps(content).encode(), **headers)

    def numbers(self) -> Any:
        return self.get("/numbers").json

    def login(self, token: str) -> Answer:
        """Log in, and keep the cookie."""
        answer = self.post("/login", {"token": token})
        if cookie := answer.headers.get("Set-Cookie"):
            self.headers["Cookie"] = cookie.partition(";")[0]
        return answer


@dataclass
class Watched:
    """A page, and what the stream behind it gave to another sink."""

    page: Page
    camera: PageCamera
    line: LineControl
    viewer: Viewer
    records: Records
    images: list[UInt8Array]
    more: threading.Event

    def show(self, *images: UInt8Array) -> None:
        """Let the camera give images, and wait until they have their verdicts on the page."""
        before = len(self.records.of("verdict"))
        for image in images:
            self.images.append(image)
            self.more.set()
            wait_until(lambda: not self.images)
        wait_until(lambda: len(self.records.of("verdict")) >= before + len(images))
        wait_until(
            lambda: (
                self.camera.feed.numbers()["good"] + self.camera.feed.numbers()["rejected"]
                >= before + len(images)
            )
        )


def page_camera(
    bundle: Bundle | None, value: float = 100.0, name: str = "camera1", feedback: FeedbackFolder | None = None
) -> PageCamera:
    line = LineControl()
    return PageCamera(name, ThresholdDesk(value, "washer", bundle, line), line, feedback=feedback)


def opened_page(address: PageAddress, *cameras: PageCamera) -> Page:
    """A page without a stream."""
    page = Page(address)
    page.start(cameras)
    return page


@contextmanager
def watched(
    bundle: Bundle | None,
    address: PageAddress = LOCAL,
    value: float = 100.0,
    feedback: FeedbackFolder | None = None,
) -> Iterator[Watched]:
    """A page of a stream that runs. `Watched.show` gives images to the stream."""
    images: list[UInt8Array] = []
    more, stop, records = threading.Event(), threading.Event(), Records()

    def script() -> Iterator[UInt8Array]:
        while not source.stopped.is_set():
            more.wait(0.02)
            more.clear()
            while images:
                yield images.pop(0)

    source = ScriptedSource(script, live=False)
    camera = page_camera(bundle, value, feedback=feedback)
    camera.source = source.uri
    with opened_page(address, camera) as page:
        thread = threading.Thread(
            target=stream,
            args=(FakeSession(SIZE, score=level_of), source, [records, *camera.sinks()]),
            kwargs={"size": SIZE, "threshold": value, "stop": stop, "line": camera.line},
        )
        thread.start()
        try:
            yield Watched(page, camera, camera.line, Viewer(page.port), records, images, more)
        finally:
            stop.set()
            thread.join()
