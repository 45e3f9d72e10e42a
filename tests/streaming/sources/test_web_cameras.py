"""Motion JPEG in parts over HTTP."""

import itertools
import threading

import numpy as np
import pytest

from edgead.streaming import open_source
from tests.helpers import web_camera as web
from tests.helpers.web_images import DECODED, JPEGS, MULTIPART

pytestmark = pytest.mark.usefixtures("short_waits")


@pytest.mark.parametrize("named", ["--myboundary", "myboundary", '"myboundary"'])
@pytest.mark.parametrize("length", [-1, None])
def test_motion_jpeg_in_parts(named: str, length: int | None, ending: threading.Event) -> None:
    pieces = [web.part(data, "myboundary", length) for data in JPEGS] + [b"--myboundary"]
    answer = web.parts(pieces, MULTIPART + named, ending)
    with web.serve({"/mjpg": answer}) as server, open_source(server.uri("/mjpg")) as source:
        assert (source.live, source.fps) == (True, None)
        frames = list(itertools.islice(source, len(JPEGS)))
        ending.set()
    for frame, image in zip(frames, DECODED, strict=True):
        np.testing.assert_array_equal(frame.image, image)


@pytest.mark.parametrize(
    "broken",
    [
        web.part(JPEGS[1][:500], "x"),
        web.part(JPEGS[1][:500], "x", None),
        web.part(JPEGS[1][:500], "x", len(JPEGS[1])),
        web.part(b"", "x"),
        web.part(b"<html>busy</html>", "x"),
    ],
)
def test_a_truncated_image_of_motion_jpeg_is_left_out_and_counted(
    broken: bytes, ending: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    pieces = [
        web.part(JPEGS[0], "x"),
        broken,
        broken,
        web.part(JPEGS[2], "x"),
        web.part(JPEGS[3], "x"),
        b"--x",
    ]
    answer = web.parts(pieces, f"{MULTIPART}x", ending)
    with web.serve({"/mjpg": answer}) as server, open_source(server.uri("/mjpg")) as source:
        frames = list(itertools.islice(source, 3))
        ending.set()
    assert [frame.index for frame in frames] == [0, 3, 4]
    assert source.broken == 2
    for frame, image in zip(frames, (DECODED[0], DECODED[2], DECODED[3]), strict=True):
        np.testing.assert_array_equal(frame.image, image)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_motion_jpeg_without_a_boundary(ending: threading.Event) -> None:
    answer = web.parts([web.part(data, "") for data in JPEGS], "multipart/x-mixed-replace", ending)
    with web.serve({"/mjpg": answer}) as server, open_source(server.uri("/mjpg")) as source:
        frames = list(itertools.islice(source, len(JPEGS)))
        ending.set()
    for frame, image in zip(frames, DECODED, strict=True):
        np.testing.assert_array_equal(frame.image, image)


def test_motion_jpeg_that_ends_is_opened_again(
    ending: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    def two(handler: web.Handler) -> None:
        web.send(handler, 200, f"{MULTIPART}x", b"".join(web.part(data, "x") for data in JPEGS[:2]), None)

    with web.serve({"/mjpg": two}) as server, open_source(server.uri("/mjpg")) as source:
        assert [frame.index for frame in itertools.islice(source, 5)] == [0, 1, 2, 3, 4]
    # A try for each of the two ends, and the return of the camera after each.
    arguments = [record.args[1:] for record in caplog.records]  # type: ignore[index]
    assert [values[-1] for values in arguments] == [1, 1, 1, 1]
