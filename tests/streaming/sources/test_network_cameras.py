"""Cameras of the network from their opening to their loss, with real servers."""

import http.server
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
import pytest

from edgead.errors import AbsentSourceError, InputError, SourceError
from edgead.runtime import FakeSession
from edgead.streaming import open_source, stream
from tests.helpers.rtsp_camera import free_port, needs_rtsp, rtsp_camera
from tests.helpers.stream_parts import SIZE, StateRecord, textured


@contextmanager
def mjpeg_camera(port: int) -> Iterator[None]:
    """A network camera: a real HTTP server that sends different JPEG images until it is shut down."""
    ending = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            level = 0
            while not ending.wait(0.02):
                level = (level + 1) % 200
                _, jpeg = cv2.imencode(".jpg", textured(level, 96, 128))
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                try:
                    self.wfile.write(head.encode() + jpeg.tobytes() + b"\r\n")
                except OSError:
                    return

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield
    finally:
        ending.set()
        server.shutdown()
        server.server_close()
        thread.join()


CAMERAS = [
    pytest.param("http://127.0.0.1:{port}/line.mjpg", mjpeg_camera, (96, 128, 3), id="http"),
    pytest.param(
        "rtsp://127.0.0.1:{port}/line",
        rtsp_camera,
        (128, 160, 3),
        id="rtsp",
        marks=needs_rtsp,
    ),
]


@pytest.mark.parametrize(("address", "camera", "shape"), CAMERAS)
def test_a_network_camera_that_restarts_goes_on(
    address: str,
    camera: type,
    shape: tuple[int, ...],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("edgead.streaming.health.NO_SIGNAL_AFTER_S", 0.3)
    port = free_port()
    record, stop = StateRecord(), threading.Event()
    summaries = []

    def wait_for(count: int) -> None:
        end = time.monotonic() + 60
        while len(record.verdicts) < count:
            assert time.monotonic() < end, f"{len(record.verdicts)} verdicts, {caplog.text}"
            time.sleep(0.02)

    with camera(port):
        source = open_source(address.format(port=port))
        assert source.live

        def run() -> None:
            session = FakeSession(SIZE)
            summaries.append(stream(session, source, [record], size=SIZE, threshold=2.0, stop=stop))

        thread = threading.Thread(target=run)
        thread.start()
        wait_for(10)
    end = time.monotonic() + 30
    while not record.losses:
        assert time.monotonic() < end, "the loss was not reported"
        time.sleep(0.02)
    before = len(record.verdicts)
    with camera(port):
        wait_for(before + 10)
        stop.set()
        thread.join(30)
        source.close()
    assert not thread.is_alive()
    after = record.states[record.states.index("no_signal") :]
    assert "running" in after
    # Warnings of tries with their reason, wait and number, and at the end one with the number of tries.
    tries = [record.args[1:] for record in caplog.records if record.name == "edgead.streaming.sources.live"]  # type: ignore[index]
    assert [len(values) for values in tries] == [3] * (len(tries) - 1) + [1]
    indexes = [verdict.frame_index for verdict in record.verdicts]
    assert indexes == sorted(set(indexes))
    assert summaries[0].frames_scored == len(indexes)
    assert summaries[0].signal_losses >= 1


@pytest.mark.parametrize(("address", "camera", "shape"), CAMERAS)
def test_images_of_a_network_camera(address: str, camera: type, shape: tuple[int, ...]) -> None:
    port = free_port()
    with camera(port), open_source(address.format(port=port)) as source:
        frames = iter(source)
        first, second = next(frames), next(frames)
    assert first.image.shape == second.image.shape == shape
    assert not np.array_equal(first.image, second.image)
    assert first.source == address.format(port=port)


@needs_rtsp
def test_the_transport_of_rtsp_is_the_one_in_the_address() -> None:
    port = free_port()
    uri = f"rtsp://127.0.0.1:{port}/line"
    with rtsp_camera(port, "--transport", "udp"):
        with open_source(f"{uri}#transport=udp") as source:
            assert source.uri == f"{uri}#transport=udp"
            assert next(iter(source)).image.shape == (128, 160, 3)
        with pytest.raises(AbsentSourceError):
            open_source(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "rtsp://127.0.0.1:9/line#transport=http",
        "rtsp://127.0.0.1:9/line#fps=2",
        "rtsps://127.0.0.1:9/line#transport=udp",
        "http://127.0.0.1:9/line#transport=udp",
    ],
)
def test_an_option_that_does_not_fit_the_protocol_is_refused(uri: str) -> None:
    with pytest.raises(InputError):
        open_source(uri)


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_network_camera_that_is_not_there(scheme: str) -> None:
    uri = f"{scheme}://me:secret@127.0.0.1:{free_port()}/line"
    with pytest.raises(SourceError) as caught:
        open_source(uri)
    assert uri.replace("me:secret", "***") in caught.value.what
    assert "127.0.0.1" in str(caught.value.hint)
    assert "secret" not in str(caught.value)
    assert "me" not in str(caught.value).split("@")[0].split("//")[1]
