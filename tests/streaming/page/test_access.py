"""Attacks on the page: requests without rights, of other origins, too large, too slow, and of any content."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import pytest

from edgead.errors import EdgeadError, InputError, SinkError, StreamError
from edgead.streaming.page import Page, PageAddress, read_page_address
from edgead.streaming.page.feedback import FeedbackAddress, FeedbackFolder
from edgead.streaming.page.handler import MOST_BODY_BYTES
from edgead.streaming.web_server import MOST_CONNECTIONS, MOST_REQUEST_BYTES
from edgead.types import Verdict
from tests.helpers.certificates import certificate, needs_openssl
from tests.helpers.stream_page import LIMIT_S, LOCAL, Viewer, opened_page, page_bundle, page_camera, watched
from tests.helpers.stream_parts import SIZE, frame, textured
from tests.helpers.trigger_parts import wait_until

TOKEN = "a token of 27 characters ok"
MAP = np.zeros((SIZE.height_px, SIZE.width_px), np.float32)
SECRET_PATHS = (
    "/cameras",
    "/numbers",
    "/numbers?camera=camera1",
    "/live.jpg",
    "/image.jpg?number=1",
    "/prediction?threshold=1",
)
CHANGES = ("/threshold", "/pause", "/resume", "/mark")
CHANGE = {"value": 85.5, "name": "Kim", "run": "x", "number": 1, "label": "good"}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A page with a token."""
    folder = tmp_path_factory.mktemp("page")
    feedback = FeedbackFolder(FeedbackAddress(folder / "feedback"), {"washer"})
    camera = page_camera(page_bundle(folder), feedback=feedback)
    # There is an image to mark.
    camera.images.write(frame(textured(150)), Verdict(0, 150.0, 100.0, True, 1.0, ()), MAP)
    with (
        pytest.MonkeyPatch.context() as patch,
        opened_page(PageAddress("127.0.0.1", 0, TOKEN), camera) as page,
    ):
        # The tests make requests faster than a person.
        patch.setattr("edgead.streaming.web_server.BoundedServer.cpu_share", 1e3)
        patch.setattr("edgead.streaming.page.page.MARK_EVERY_S", 0.0)
        yield page
        # Whatever a test sends, nothing was changed.
        assert camera.line.take_threshold() is None
        assert not camera.line.is_paused
        assert camera.desk.value == 100.0
        assert not [path for path in (folder / "feedback").rglob("*") if path.is_file()]


@pytest.fixture
def inside(page: Page) -> Viewer:
    viewer = Viewer(page.port)
    assert viewer.login(TOKEN).status == 204
    return viewer


def raw(port: int, data: bytes) -> bytes:
    """Send bytes, and return all bytes of the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S) as client:
        answer = b""
        with suppress(OSError):
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            while part := client.recv(2**16):
                answer += part
        return answer


def test_without_the_token_nothing_is_seen_or_changed(page: Page) -> None:
    outside = Viewer(page.port)
    for _ in range(2):
        for path in SECRET_PATHS:
            answer = outside.get(path)
            assert (answer.status, b"good" in answer.body) == (401, False)
        for path in CHANGES:
            assert outside.post(path, CHANGE).status == 401
        assert b"token" in outside.get("/").body
        for wrong in ("", TOKEN[:-1], TOKEN + "x", "a" * 27, "ü" * 27):
            answer = outside.login(wrong)
            assert (answer.status, answer.headers["Set-Cookie"]) == (401, None)
        for content in ({}, {"token": None}, {"token": [TOKEN]}, [TOKEN]):
            assert outside.post("/login", content).status in (400, 401)
        # Once more with cookies of others: of another token, of another port, and of no form.
        name = f"edgead-{page.port}"
        outside.headers["Cookie"] = f"{name}={'0' * 64}; edgead-1={page.access._session}; {name}2=x; \x7f=;"


def test_the_token_opens_the_page_and_is_in_no_answer(page: Page, inside: Viewer) -> None:
    assert inside.get("/").body != Viewer(page.port).get("/").body
    assert inside.numbers()["threshold"]["value"] == 100.0
    assert inside.get("/live.jpg?after=1").status == 204
    cookie = inside.login(TOKEN).headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    assert TOKEN not in cookie
    assert TOKEN not in inside.get("/").body.decode() + inside.get("/numbers").body.decode()


def test_pages_of_other_origins_can_neither_read_nor_change(page: Page, inside: Viewer) -> None:
    own = f"http://127.0.0.1:{page.port}"
    for origin in ("https://elsewhere", "null", f"http://127.0.0.1:{page.port + 1}", "http://localhost", ""):
        for path in CHANGES:
            assert inside.post(path, CHANGE, Origin=origin).status == 403
        assert inside.get("/numbers", Origin=origin).status == 403
    for site in ("cross-site", "same-site", "x"):
        for path in CHANGES:
            assert inside.post(path, CHANGE, Origin=own, Sec_Fetch_Site=site).status == 403
        for path in SECRET_PATHS:
            assert inside.get(path, Sec_Fetch_Site=site).status == 403
    # A link to the page may be followed, but a form cannot send JSON.
    link = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    assert inside.get("/", **link).status == 200
    assert inside.get("/", **{**link, "Sec_Fetch_Dest": "iframe"}).status == 403
    for kind in ("", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        assert inside.post("/pause", CHANGE, Content_Type=kind).status == 415
    assert inside.request("OPTIONS", "/pause").status == 501
    for name in (
        f"127.0.0.1:{page.port}",
        f"localhost:{page.port}",
        "localhost:9000",
        f"[::1]:{page.port}",
        "127.0.0.1",
    ):
        assert (
            inside.get("/numbers", Host=name, Sec_Fetch_Site="same-origin", Origin=f"http://{name}").status
            == 200
        )


def test_a_name_of_somebody_else_does_not_lead_here(inside: Viewer) -> None:
    for host in (
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example:80",
        "192.168.0.9",
        "",
        "a b",
        "[::1",
        "x:y:z",
    ):
        for path in ("/", "/numbers", "/page.js"):
            assert inside.get(path, Host=host).status == 421
        assert inside.post("/pause", CHANGE, Host=host, Origin=f"http://{host}").status == 421


def test_a_page_for_other_machines_takes_their_names_for_this_one(tmp_path: Path) -> None:
    own = socket.gethostname()
    with opened_page(PageAddress("0.0.0.0", 0, TOKEN), page_camera(page_bundle(tmp_path))) as page:
        assert page.url == f"http://{own}:{page.port}/"
        viewer = Viewer(page.port)
        for host in (
            own,
            f"{own}.local:8000",
            f"{own.upper()}.plant.example",
            "192.168.0.9",
            "[fe80::1]:8000",
            "localhost",
        ):
            assert viewer.get("/", Host=host).status == 200
        for host in ("evil.example", f"x{own}", f"evil.{own}"):
            assert viewer.get("/", Host=host).status == 421
        assert viewer.get("/numbers").status == 401


def test_every_answer_has_the_headers_of_a_closed_page(page: Page, inside: Viewer) -> None:
    answers = [inside.get(path) for path in ("/", "/page.js", "/page.css", "/numbers", "/live.jpg", "/none")]
    answers += [
        inside.get("/", Host="evil.example"),
        inside.request("PUT", "/"),
        Viewer(page.port).get("/numbers"),
    ]
    for answer in answers:
        policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    for name in ("index.html", "login.html"):
        html = page.files[name][1].decode()
        assert not re.search(r"<style|\bstyle=|\bon\w+=|javascript:|<script>|https?://", html)


def test_no_path_reaches_the_disk(page: Page, inside: Viewer) -> None:
    cookie = inside.headers["Cookie"]
    for path in (
        "/../page.py", "/files/page.js", "/%2e%2e/page.py", "//etc/passwd", "/etc/passwd", "/page.js/../../page.py",
        "/..%5cpage.py", "/page.js%00.css", "/index.html", "/login.html", "/.", "/../../../../etc/passwd", "page.py",
        "http://127.0.0.1/etc/passwd", "*", "/page.js;x", "/PAGE.JS", "/icon.svg/", "file:///etc/passwd",
    ):  # fmt: skip
        answer = raw(
            page.port, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n".encode()
        )
        assert answer.split()[1] in (b"404", b"400"), path
        assert b"root:" not in answer


def test_large_and_odd_requests_are_refused(page: Page, inside: Viewer) -> None:
    for length in (str(MOST_BODY_BYTES + 1), str(2**30)):
        assert inside.post("/pause", CHANGE, Content_Length=length).status == 413
        # A body that nobody reads resets the connection, so the answer may be lost.
        head = f"POST /pause HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}"
        assert raw(page.port, f"{head}\r\n\r\n".encode() + b"x" * 1_000_000)[9:12] in (b"413", b"")
    for length in ("-1", "x", "", "9" * 20, "1e3"):
        assert inside.post("/pause", CHANGE, Content_Length=length).status in (400, 411)
    assert inside.post("/pause", CHANGE, Transfer_Encoding="chunked").status == 411
    json_type = {"Content_Type": "application/json"}
    for body in (
        b"",
        b"{",
        b"[]",
        b'"x"',
        b"\xff",
        b'{"name":"a","name":"b"}',
        b'{"value":NaN}',
        b"[" * 2000,
    ):
        for path in (*CHANGES, "/login"):
            assert inside.request("POST", path, body, **json_type).status in (400, 401)
    assert inside.get(f"/{'x' * 300}").status == 414
    for path in ("/live.jpg?after=x", "/image.jpg?number=", "/prediction?threshold=x"):
        assert inside.get(path).status == 400
    assert inside.get("/image.jpg?number=99").status == 404
    for name in ("camera2", "../camera1", "x" * 100, "camera1%00"):
        for path in ("/numbers", "/live.jpg", "/image.jpg"):
            assert inside.get(f"{path}?camera={name}&number=1").status == 404
        for path in CHANGES:
            assert inside.post(path, {**CHANGE, "camera": name}).status == 404
    run = inside.get("/numbers").json["run"]
    for wrong in (
        {"label": "../good"}, {"label": ""}, {"label": ["good"]}, {"label": True}, {"number": "1"}, {"number": True},
        {"number": 1.0}, {"number": None}, {"name": "\u202e"}, {"name": ""},
    ):  # fmt: skip
        assert inside.post("/mark", {**CHANGE, "run": run, **wrong}).status == 400
    for number in (0, -1, 2, 10**30):
        assert inside.post("/mark", {**CHANGE, "run": run, "number": number}).status == 409
    # Its number is of an earlier stream.
    assert inside.post("/mark", CHANGE).status == 409
    for method in ("PUT", "DELETE", "HEAD", "TRACE", "CONNECT", "x"):
        assert inside.request(method, "/").status == 501


def test_large_headers_are_refused_before_they_cost_time(page: Page, inside: Viewer) -> None:
    head = "GET /numbers HTTP/1.1\r\nHost: localhost\r\n"
    for lines in (
        f"Cookie: {'x' * MOST_REQUEST_BYTES}\r\n",
        f"X: {'x' * 100}\r\n" * (MOST_REQUEST_BYTES // 100),
    ):
        answer = raw(page.port, f"{head}{lines}\r\n".encode())
        # The rest that nobody reads resets the connection, so the answer may be lost.
        assert answer[9:12] in (b"431", b"")
    assert raw(page.port, b"x" * 2 * MOST_REQUEST_BYTES) == b""
    # The parser of the library would take seconds for this one.
    cookie = 'a="' + "\\" * (MOST_REQUEST_BYTES // 2)
    inside.headers["Cookie"] = f"{cookie}; {inside.headers['Cookie']}; b"
    assert inside.get("/numbers").status == 200


def test_requests_of_any_content_end_nothing(page: Page, inside: Viewer) -> None:
    rng = np.random.default_rng(7)
    good = b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    for number in range(30):
        data = bytearray(good)
        for place in rng.integers(0, len(data), 1 + number % 8):
            data[place] = rng.integers(0, 256)
        raw(page.port, bytes(data) if number % 4 else rng.bytes(3000) + b"\r\n\r\n")
    assert inside.get("/numbers").status == 200


def test_slow_clients_and_clients_that_never_read_hold_up_neither_loop_nor_viewers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgead.streaming.web_server.CONNECTION_S", 0.2)
    with watched(page_bundle(tmp_path)) as seen, ExitStack() as clients:
        port = seen.page.port
        for number in range(2 * MOST_CONNECTIONS):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", port)))
            if number % 2:
                # It asks, and never reads.
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
                client.sendall(b"GET /page.js HTTP/1.1\r\nHost: localhost\r\n\r\n")
        stop = threading.Event()

        def drip() -> None:
            with suppress(OSError):
                while not stop.wait(0.02):
                    client.send(b"P")

        thread = threading.Thread(target=drip)
        thread.start()
        seen.show(*(textured(level) for level in range(40, 60)))
        assert len(seen.records.of("verdict")) == 20
        wait_until(lambda: seen.viewer.get("/numbers").json["good"] == 20)
        stop.set()
        thread.join()
        assert sum(other.name.startswith("Thread-") for other in threading.enumerate()) < 2 * MOST_CONNECTIONS


def test_a_burst_of_viewers_waits_its_turn(page: Page, inside: Viewer) -> None:
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(inside.get("/page.css").status))
        for _ in range(3 * MOST_CONNECTIONS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * len(threads)


@needs_openssl
def test_a_certificate_encrypts(tmp_path: Path) -> None:
    import ssl
    import urllib.request

    cert, key = certificate(tmp_path)
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    address = read_page_address(f"127.0.0.1:0?token={tmp_path / 'token'}&cert={cert}&key={key}")
    with opened_page(address, page_camera(page_bundle(tmp_path))) as page:
        trusted = ssl.create_default_context(cafile=str(cert))
        request = urllib.request.Request(
            f"{page.url}login", b'{"token": "%s"}' % TOKEN.encode(), {"Content-Type": "application/json"}
        )
        # A client that sends no handshake holds up nobody.
        with (
            socket.create_connection(("127.0.0.1", page.port)),
            urllib.request.urlopen(request, context=trusted) as answer,
        ):
            assert "Secure" in answer.headers["Set-Cookie"]
        assert raw(page.port, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")[:4] != b"HTTP"


def test_addresses_are_read(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"  {TOKEN}\n")
    assert read_page_address("8000") == PageAddress("127.0.0.1", 8000)
    assert read_page_address("localhost:8000") == PageAddress("localhost", 8000)
    assert read_page_address("[::1]:8000") == PageAddress("::1", 8000)
    assert read_page_address(f"0.0.0.0:80?token={tmp_path / 'token'}") == PageAddress("0.0.0.0", 80, TOKEN)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", SinkError),
        ("127.0.0.1", SinkError),
        ("127.0.0.1:70000", SinkError),
        ("http://127.0.0.1:8000", SinkError),
        ("0.0.0.0:8000", InputError),
        (":::8000", InputError),
        ("line7:8000", InputError),
        ("0.0.0.0:8000?token=short", InputError),
        ("0.0.0.0:8000?token=two", InputError),
        ("0.0.0.0:8000?token=latin", InputError),
        ("0.0.0.0:8000?token=missing", StreamError),
        ("0.0.0.0:8000?token=", StreamError),
        ("8000?password=x", InputError),
        ("8000?key=short", InputError),
        ("8000?cert=short", StreamError),
        ("8000?cert=missing&key=missing", StreamError),
    ],
)
def test_bad_addresses_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, error: type[EdgeadError]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("short").write_text("15 characters--")
    Path("two").write_text(f"{TOKEN}\n{TOKEN}\n")
    Path("latin").write_bytes(b"\xe4" * 20)
    with pytest.raises(error):
        read_page_address(text)


def test_a_port_in_use_is_refused(page: Page) -> None:
    with pytest.raises(StreamError):
        opened_page(PageAddress("127.0.0.1", page.port))
    with pytest.raises(StreamError):
        opened_page(PageAddress("a..b", 0))
    second = opened_page(LOCAL)
    second.close()
    second.close()
