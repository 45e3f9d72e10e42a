"""What every answer has in common: who may ask, the ID of a request, and the bounded body."""

from __future__ import annotations

import hmac
import re
import uuid
from email.message import Message
from http import HTTPStatus
from typing import TYPE_CHECKING

from edgead.files.parsing import json_text
from edgead.streaming.page.access import Access
from edgead.streaming.page.address import PageAddress

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

MAX_BODY_BYTES = 32 * 2**20
"""Longest image file of a request, and longest archive of images."""

ARCHIVE = "application/zip"
"""Type of a body with several images."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}")


class RefusalError(Exception):
    """A request that gets an error as its answer.

    Args:
        status: HTTP status.
        text: Reason in one line.
    """

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


class Gate:
    """Rules for the requests to one server.

    Args:
        address: Address that the server listens on.
    """

    def __init__(self, address: PageAddress) -> None:
        self._token = address.token
        self._access = Access(address)

    def check(self, request: Request, method: str) -> None:
        """Raise RefusalError for another method, a page of another origin, or without the token."""
        if request.method != method:
            raise RefusalError(HTTPStatus.METHOD_NOT_ALLOWED, f"send {method}")
        headers = Message()
        for name in ("host", "origin", "sec-fetch-site"):
            if (value := request.headers.get(name)) is not None:
                headers[name] = value
        if (status := self._access.refusal("GET", headers)) is not None:
            raise RefusalError(status, "the request is for another host or of another origin")
        given = request.headers.get("authorization", "")
        if self._token is not None and not hmac.compare_digest(
            given.encode(), f"Bearer {self._token}".encode()
        ):
            raise RefusalError(HTTPStatus.UNAUTHORIZED, "send the header Authorization: Bearer TOKEN")


def id_of(request: Request) -> str:
    """Return the ID of a request: its header `X-Request-ID`, or a random one.

    Args:
        request: The request.

    Raises:
        RefusalError: The header has other characters, or more than 100.
    """
    given: str | None = request.headers.get("x-request-id")
    if given is None:
        return uuid.uuid4().hex
    if _ID.fullmatch(given) is None:
        raise RefusalError(
            HTTPStatus.BAD_REQUEST, "X-Request-ID is no text of 1 to 100 letters, digits, or . _ : -"
        )
    return given


def kind_of(request: Request) -> str:
    """Return the type of the body of a request, in lower case.

    Args:
        request: The request.
    """
    return str(request.headers.get("content-type", "")).partition(";")[0].strip().lower()


async def body_of(request: Request) -> bytes:
    """Read the body of a request.

    Args:
        request: The request.

    Returns:
        The body, 1 byte or more.

    Raises:
        RefusalError: It is empty, longer than `MAX_BODY_BYTES`, or of a type that a page may send to other origins.
    """
    kind = kind_of(request)
    if not (kind.startswith("image/") or kind in ("application/octet-stream", ARCHIVE)):
        raise RefusalError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"send Content-Type: image/jpeg, image/png or application/octet-stream, or {ARCHIVE} for several images",
        )
    too_long = RefusalError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is longer than {MAX_BODY_BYTES} bytes"
    )
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or len(length) > 15 or int(length) > MAX_BODY_BYTES:
        raise too_long
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise too_long
    if not body:
        raise RefusalError(HTTPStatus.BAD_REQUEST, "send an image file as the body, or an archive of them")
    return bytes(body)


def json_answer(content: object, status: int = HTTPStatus.OK) -> Response:
    """Make an answer of JSON.

    Args:
        content: JSON value.
        status: HTTP status.
    """
    from starlette.responses import Response

    return Response(
        json_text(content, indent=None), status, {"Cache-Control": "no-store"}, media_type="application/json"
    )
