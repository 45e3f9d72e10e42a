"""Requests of the page.

GET  /                         the page, or the form for the token
GET  /page.js ...              its files, which have no secrets
GET  /cameras                          state and counts of all cameras, as JSON
GET  /numbers?camera=NAME              all numbers of a camera, as JSON
GET  /live.jpg?camera=NAME&after=N     its newest image, if its number is greater than N; otherwise no content
GET  /image.jpg?camera=NAME&number=N   one of its last images, which is then kept for a while
GET  /prediction?camera=NAME&threshold=X   how many good images of the build are above X
POST /login                    {"token": ...}; the answer has the cookie
POST /threshold                {"camera": ..., "value": ..., "name": ...}
POST /pause, /resume           {"camera": ..., "name": ...}
POST /mark                     {"camera": ..., "run": ..., "number": ..., "label": ..., "name": ...}

The name of the camera may be left out if there is one only.

Each request has a connection of its own, which may take `CONNECTION_S`.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from email.message import Message
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from edgead.errors import EdgeadError
from edgead.files.parsing import RecordError, check_object, json_text, parse_json
from edgead.streaming.page.access import HEADERS
from edgead.streaming.page.feedback import LABELS
from edgead.streaming.page.images import Snapshot
from edgead.streaming.pauses import is_logged
from edgead.streaming.web_server import BoundedHandler
from edgead.text import printable

if TYPE_CHECKING:
    from edgead.streaming.page.camera import PageCamera
    from edgead.streaming.page.page import Page

MOST_BODY_BYTES = 2048
MOST_NAME_CHARACTERS = 60
_MOST_PATH_CHARACTERS = 256

_log = logging.getLogger(__name__)


class _RefusalError(Exception):
    """A request that gets an error as its answer."""

    def __init__(self, status: HTTPStatus, text: str = "") -> None:
        super().__init__(text or status.phrase)
        self.status = status


class PageHandler(BoundedHandler):
    """Answers one request."""

    page: Page
    wrong_tokens = 0

    def do_GET(self) -> None:  # noqa: N802 (name of the library)
        """Answer with a file, numbers or an image."""
        self._answer_or_refuse("GET")

    def do_POST(self) -> None:  # noqa: N802 (name of the library)
        """Log in, or change something."""
        self._answer_or_refuse("POST")

    def _answer_or_refuse(self, method: str) -> None:
        try:
            if len(self.path) > _MOST_PATH_CHARACTERS:
                raise _RefusalError(HTTPStatus.REQUEST_URI_TOO_LONG)
            if (status := self.page.access.refusal(method, self.headers)) is not None:
                raise _RefusalError(status)
            place = urlsplit(self.path)
            if method == "GET":
                self._get(place.path, {name: values[-1] for name, values in parse_qs(place.query).items()})
            else:
                self._post(place.path, self._body())
        except _RefusalError as error:
            self._refuse(error.status, str(error))
        except (ValueError, OverflowError):
            self._refuse(HTTPStatus.BAD_REQUEST, "not a valid request")

    def _get(self, path: str, query: Mapping[str, str]) -> None:
        page, name, allowed = self.page, path.removeprefix("/"), self.page.access.is_allowed(self.headers)
        if path == "/":
            name = "index.html" if allowed else "login.html"
        if name in page.files and (path == "/" or not name.endswith(".html")):
            kind, data = page.files[name]
            return self._send(HTTPStatus.OK, f"{kind}; charset=utf-8", data)
        self._check(allowed)
        if path == "/cameras":
            return self._send_json(page.overview())
        camera = self._camera(query.get("camera"))
        if path == "/numbers":
            return self._send_json({"run": page.run, **camera.numbers()})
        if path == "/prediction":
            value = float(query.get("threshold", ""))
            if not math.isfinite(value):
                raise ValueError
            return self._send_json(camera.desk.prediction(value))
        if path == "/live.jpg":
            after, snapshot = int(query.get("after", "0")), camera.images.live()
            if snapshot is None or snapshot.number <= after:
                return self._send(HTTPStatus.NO_CONTENT)
            return self._send_image(snapshot)
        if path == "/image.jpg":
            snapshot = camera.images.open(int(query.get("number", "")))
            if snapshot is not None:
                return self._send_image(snapshot)
        raise _RefusalError(HTTPStatus.NOT_FOUND)

    def _post(self, path: str, body: Mapping[str, Any]) -> None:
        if path == "/login":
            return self._login(body.get("token"))
        self._check(self.page.access.is_allowed(self.headers))
        name, camera = self._name(body.get("name")), self._camera(body.get("camera"))
        try:
            if path in ("/pause", "/resume"):
                line = camera.line
                (line.pause if path == "/pause" else line.resume)(name)
                _log.info("%s %s by %s", camera.name, "paused" if line.is_paused else "resumed", name)
                return self._send_json({"is_paused": line.is_paused})
            if path == "/threshold":
                value = body.get("value")
                if isinstance(value, bool) or not isinstance(value, int | float):
                    raise _RefusalError(HTTPStatus.BAD_REQUEST, "the threshold is no number")
                camera.desk.set(float(value), name)
                return self._send_json(camera.desk.numbers())
            if path == "/mark":
                return self._mark(camera, body, name)
        except EdgeadError as error:
            raise _RefusalError(HTTPStatus.CONFLICT, str(error)) from error
        raise _RefusalError(HTTPStatus.NOT_FOUND)

    def _mark(self, camera: PageCamera, body: Mapping[str, Any], name: str) -> None:
        number, label = body.get("number"), body.get("label")
        if type(number) is not int or label not in (*LABELS, None):
            raise _RefusalError(
                HTTPStatus.BAD_REQUEST, "give the number of an image, and good, defect or null"
            )
        if body.get("run") != self.page.run:
            # Its number stands for another image by now.
            raise _RefusalError(HTTPStatus.CONFLICT, "this image is of an earlier stream")
        if not self.page.may_mark():
            raise _RefusalError(HTTPStatus.TOO_MANY_REQUESTS, "wait a moment before the next mark")
        camera.mark(number, label, name)
        _log.info("%s: image %d marked as %s by %s", camera.name, number, label or "nothing", name)
        self._send_json({"number": number, "label": label})

    def _camera(self, name: object) -> PageCamera:
        """Return the camera of a name, or the only one."""
        cameras = self.page.cameras
        if name is None and len(cameras) == 1:
            return next(iter(cameras.values()))
        if not isinstance(name, str) or name not in cameras:
            raise _RefusalError(HTTPStatus.NOT_FOUND, "no such camera")
        return cameras[name]

    def _login(self, token: object) -> None:
        cookie = self.page.access.login(token) if isinstance(token, str) else None
        if cookie is None:
            kind = type(self)
            kind.wrong_tokens += 1
            if is_logged(kind.wrong_tokens):
                _log.warning(
                    "page: %d logins with a wrong token, the last from %s", kind.wrong_tokens, self._client
                )
            raise _RefusalError(HTTPStatus.UNAUTHORIZED, "the token is wrong")
        self._send(HTTPStatus.NO_CONTENT, headers={"Set-Cookie": cookie})

    def _check(self, allowed: bool) -> None:
        if not allowed:
            raise _RefusalError(HTTPStatus.UNAUTHORIZED)

    @property
    def _client(self) -> str:
        return printable(str(self.client_address[0]))

    def _name(self, given: object) -> str:
        """Return the name of who changes something, with the address that it came from."""
        text = " ".join(given.split()) if isinstance(given, str) else ""
        if not text or len(text) > MOST_NAME_CHARACTERS or printable(text) != text:
            raise _RefusalError(
                HTTPStatus.BAD_REQUEST, f"give a name of 1 to {MOST_NAME_CHARACTERS} characters"
            )
        return f"{text}, page, {self._client}"

    def _body(self) -> Mapping[str, Any]:
        """Read the body, which is a small JSON object."""
        length = self.headers.get("Content-Length", "")
        if "Transfer-Encoding" in self.headers or not re.fullmatch(r"[0-9]{1,15}", length):
            raise _RefusalError(HTTPStatus.LENGTH_REQUIRED)
        if int(length) > MOST_BODY_BYTES:
            raise _RefusalError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        try:
            return check_object(parse_json(self.rfile.read(int(length)), MOST_BODY_BYTES))
        except RecordError as error:
            raise _RefusalError(HTTPStatus.BAD_REQUEST, str(error)) from error

    def _send_image(self, snapshot: Snapshot) -> None:
        verdict = snapshot.verdict
        about = {
            "number": snapshot.number,
            "age_s": round(snapshot.age_s, 3),
            "frame_index": verdict.frame_index,
            "score": verdict.anomaly_score,
            "threshold": verdict.threshold,
            "is_anomalous": verdict.is_anomalous,
            "label": snapshot.label,
        }
        self._send(
            HTTPStatus.OK, "image/jpeg", snapshot.jpeg(), {"X-Verdict": json_text(about, indent=None).strip()}
        )

    def _send_json(self, content: object) -> None:
        self._send(HTTPStatus.OK, "application/json", json_text(content, indent=None).encode())

    def _refuse(self, status: HTTPStatus, text: str) -> None:
        self._send(status, "text/plain; charset=utf-8", printable(text).encode())

    def _send(
        self,
        status: HTTPStatus,
        kind: str | None = None,
        data: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, **(headers or {})}.items():
            self.send_header(name, value)
        if kind is not None:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse a request that the library does not understand, without its page of HTML."""
        # The library has no headers yet if it refuses the first line.
        self.headers = getattr(self, "headers", None) or Message()
        self._refuse(HTTPStatus(code), HTTPStatus(code).phrase)
