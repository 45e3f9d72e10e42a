"""A real web server for the tests of network sources: cameras, snapshots, videos, logins and errors."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import cv2

from edgead.types import UInt8Array

Handler = http.server.BaseHTTPRequestHandler
Answer = Callable[[Handler], None]


@dataclass
class Server:
    """A running server.

    Attributes:
        port: Port on 127.0.0.1.
        requests: Path of every request that was answered after its login.
    """

    port: int
    requests: list[str] = field(default_factory=list)

    def uri(self, place: str, user: str = "") -> str:
        """Address of a place, with `user:password` in front if it is given."""
        return f"http://{user}{'@' if user else ''}127.0.0.1:{self.port}{place}"


@contextlib.contextmanager
def serve(answers: dict[str, Answer], allows: Callable[[Handler], bool] | None = None) -> Iterator[Server]:
    """Serve answers by path, the query left out.

    Args:
        answers: What the server does for each path; others are 404.
        allows: Login, which returns whether a request may pass after it has answered those that may not.
    """

    class Camera(Handler):
        protocol_version = "HTTP/1.1"
        timeout = 20

        def do_GET(self) -> None:  # noqa: N802 (the name of the library)
            self.close_connection = True
            if allows is not None and not allows(self):
                return
            server.requests.append(self.path)
            answer = answers.get(self.path.partition("?")[0], page(404))
            with contextlib.suppress(OSError):  # the client left
                answer(self)

        def log_message(self, *_: object) -> None:
            pass

    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    web.daemon_threads = True
    server = Server(web.server_address[1])
    thread = threading.Thread(target=web.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        web.shutdown()
        web.server_close()
        thread.join()


def send(handler: Handler, status: int, content: str | None, data: bytes, length: int | None = -1) -> None:
    """Send an answer; a length of -1 is the length of the data, None sends no length."""
    handler.send_response(status)
    if content is not None:
        handler.send_header("Content-Type", content)
    if length is not None:
        handler.send_header("Content-Length", str(len(data) if length < 0 else length))
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.wfile.write(data)


def page(status: int) -> Answer:
    """A page of HTML with a status."""
    return lambda handler: send(handler, status, "text/html; charset=utf-8", b"<html>Login</html>")


def file(data: bytes, content: str | None) -> Answer:
    """A whole file."""
    return lambda handler: send(handler, 200, content, data)


def in_turn(answers: Iterable[Answer]) -> Answer:
    """Other answers for one request after another."""
    remaining = iter(answers)
    lock = threading.Lock()

    def answer(handler: Handler) -> None:
        with lock:
            following = next(remaining)
        following(handler)

    return answer


def parts(contents: Iterable[bytes], content: str, ending: threading.Event, pace_s: float = 0.0) -> Answer:
    """Send pieces of a stream without a length, and keep the connection open until the event is set."""

    def answer(handler: Handler) -> None:
        send(handler, 200, content, b"", None)
        for data in contents:
            if ending.wait(pace_s):
                return
            handler.wfile.write(data)
        ending.wait(20)

    return answer


def part(data: bytes, boundary: str, length: int | None = -1) -> bytes:
    """A part of a multipart stream; a length of -1 is the length of the data, None leaves it out."""
    declared = "" if length is None else f"Content-Length: {len(data) if length < 0 else length}\r\n"
    return f"--{boundary}\r\nContent-Type: image/jpeg\r\n{declared}\r\n".encode() + data + b"\r\n"


def jpeg(image: UInt8Array) -> bytes:
    """An image, (H, W, 3) uint8 RGB, as a JPEG file."""
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return data.tobytes()


def basic(user: str, password: str) -> Callable[[Handler], bool]:
    """A login by HTTP Basic (RFC 7617)."""
    expected = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    def allows(handler: Handler) -> bool:
        if handler.headers.get("Authorization") == expected:
            return True
        ask(handler, 'Basic realm="camera"')
        return False

    return allows


def digest(user: str, password: str, algorithm: str = "MD5") -> Callable[[Handler], bool]:
    """A login by HTTP Digest (RFC 7616) with MD5 or SHA-256."""
    hashed = {"MD5": hashlib.md5, "SHA-256": hashlib.sha256}[algorithm]
    secret = hashed(f"{user}:camera:{password}".encode()).hexdigest()

    def allows(handler: Handler) -> bool:
        given = dict(re.findall(r'(\w+)="?([^",]+)"?', handler.headers.get("Authorization", "")))
        if given.get("nonce") == "n0nce":
            action = hashed(f"{handler.command}:{given['uri']}".encode()).hexdigest()
            middle = f"n0nce:{given['nc']}:{given['cnonce']}:auth"
            if given["response"] == hashed(f"{secret}:{middle}:{action}".encode()).hexdigest():
                return True
        ask(handler, f'Digest realm="camera", nonce="n0nce", qop="auth", algorithm={algorithm}')
        return False

    return allows


def ask(handler: Handler, challenge: str) -> None:
    """Answer that a login is needed."""
    handler.send_response(401)
    handler.send_header("WWW-Authenticate", challenge)
    handler.send_header("Content-Length", "0")
    handler.send_header("Connection", "close")
    handler.end_headers()
