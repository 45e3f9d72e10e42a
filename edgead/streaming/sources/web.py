"""Requests to web cameras: login, errors as one line, and the kind of the answer."""

from __future__ import annotations

import hashlib
import http.client
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Literal

from edgead.errors import AbsentSourceError, SourceError
from edgead.files.addresses import Address, without_secrets

TIMEOUT_S = 5.0

Kind = Literal["snapshot", "mjpeg", "video", "playlist"]

# JPEG, PNG, TIFF, BigTIFF, BMP, GIF, JPEG 2000, JPEG XL, portable pixmaps, WebP, HEIF and AVIF. Also the ones that the
# decoder of image files refuses, because OpenCV would read them as a video, without its bounds.
_IMAGES = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|II[*+]\0|MM\0[*+]|BM|GIF8|\0\0\0\x0c(jP  |JXL )|\xff[\x4f\x0a]|P[1-7]\s|"
    rb"RIFF....WEBP|....ftyp(avi[fs]|hei[cfmsx]|hev[cx]|mif1|msf1)",
    re.DOTALL,
)
# Answers of a camera that starts, or of a proxy in front of it.
_NOT_YET = (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)
_PLAYLIST = b"#EXTM3U"
# Pages of a login or of an error that come with the status 200.
_NO_IMAGES = (
    "text/html",
    "text/plain",
    "text/xml",
    "application/json",
    "application/xml",
    "application/xhtml+xml",
)


class WebAddress:
    """A web address that can be requested again and again.

    Args:
        uri: Address, ``http://...`` or ``https://...``.

    Attributes:
        parsed: The address in parts.
        shown: The address without secrets.
    """

    def __init__(self, uri: str) -> None:
        self.parsed, self.shown = Address.parse(uri), without_secrets(uri)
        login = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        if self.parsed.user is not None:
            scheme, _, place = self.parsed.url.partition("://")
            root = f"{scheme}://{place.partition('/')[0]}/"
            login.add_password(None, root, self.parsed.user, self.parsed.password)
        # Cameras sign their certificates themselves, and FFmpeg does not check them either.
        unchecked = ssl.create_default_context()
        unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=unchecked),
            _CloseUnauthorized(),
            _Digest(login),
            urllib.request.HTTPBasicAuthHandler(login),
        )

    def get(self) -> http.client.HTTPResponse:
        """Request the address.

        Returns:
            The answer, to be closed.

        Raises:
            SourceError: There is no answer, or an error of the server.
        """
        try:
            answer: http.client.HTTPResponse = self._opener.open(self.parsed.url, timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            error.close()
            kind = AbsentSourceError if error.code in _NOT_YET else SourceError
            raise kind(
                f"{self.shown} answers {_status_text(error.code)}", hint=_hint_of(error.code)
            ) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self.lost(error) from error
        return answer

    def read(self, answer: http.client.HTTPResponse, n_bytes: int) -> bytes:
        """Read what has come of an answer, at least one byte before its end.

        Args:
            answer: Answer of the server.
            n_bytes: Largest number of bytes.

        Raises:
            SourceError: The connection is lost.
        """
        try:
            return answer.read1(n_bytes)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self.lost(error) from error

    def lost(self, error: Exception) -> AbsentSourceError:
        """Make the error of a camera that does not answer, or whose connection ends.

        Args:
            error: Error of a request or of reading an answer. Its text may hold the address, so only its kind is shown.
        """
        reason = getattr(error, "reason", error)
        cause = (reason.strerror if isinstance(reason, OSError) else None) or type(error).__name__
        host = self.shown.split("/")[2].rpartition("@")[2]
        return AbsentSourceError(
            f"no camera at {self.shown} ({cause})",
            hint=f"check the address, the user and password, and that {host} answers",
        )


class _CloseUnauthorized(urllib.request.BaseHandler):
    """Closes the answer that asks for a login, which urllib leaves to the garbage collector."""

    handler_order = 100  # before those that answer it

    def http_error_401(self, request: Any, answer: Any, *_: Any) -> None:
        answer.close()


class _Digest(urllib.request.HTTPDigestAuthHandler):
    """Digest login (RFC 7616) with any characters; urllib's own takes ASCII."""

    def get_algorithm_impls(self, algorithm: str) -> tuple[Callable[[str], str], Callable[[str, str], str]]:
        hashes = {"MD5": hashlib.md5, "SHA-256": hashlib.sha256}
        if algorithm not in hashes:
            raise ValueError("unknown algorithm of the login")

        def digest(text: str) -> str:
            return hashes[algorithm](text.encode()).hexdigest()

        return digest, lambda secret, data: digest(f"{secret}:{data}")


def kind_of(answer: http.client.HTTPResponse, head: bytes, shown: str) -> Kind:
    """Find out what an address serves.

    Args:
        answer: Answer of the server.
        head: First bytes of its content.
        shown: Address without secrets, for the error.

    Returns:
        "snapshot" for one image, "mjpeg" for images in parts, "playlist" for the list of a video's sections, else
        "video".

    Raises:
        SourceError: It serves a page.
    """
    content = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if content.startswith("multipart/"):
        return "mjpeg"
    if content.startswith("image/") or (not content.startswith("video/") and _IMAGES.match(head)):
        return "snapshot"
    if head.startswith(_PLAYLIST) or content.endswith("mpegurl"):
        return "playlist"
    if content in _NO_IMAGES:
        raise SourceError(
            f"{shown} answers with {content}, not with an image or a video",
            hint="open it in a browser, and check the path, the user and the password",
        )
    return "video"


def _status_text(code: int) -> str:
    """Return the code with its standard name, because the name that a server sends may be anything."""
    try:
        return f"{code} {HTTPStatus(code).phrase}"
    except ValueError:
        return str(code)


def _hint_of(code: int) -> str:
    if code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED):
        return "check the user and the password, and write @ : / # ? % in them as %40 %3A %2F %23 %3F %25"
    if code in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        return "check the path of the address"
    return "check the address, and the camera in a browser"
