import itertools
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgead.errors import InputError, SourceError
from edgead.runtime import FakeSession
from edgead.scoring.threshold import Threshold
from edgead.streaming import open_source, stream
from edgead.streaming.sources import LiveSource, Video
from tests.helpers import web_camera as web
from tests.helpers.brightness_bundle import write_brightness_bundle
from tests.helpers.command_line import run_main
from tests.helpers.containers import write_avi_with_sound, write_mkv_with_sound
from tests.helpers.stream_parts import SIZE, Record, write_video
from tests.helpers.web_images import DECODED, IMAGES, JPEGS, MULTIPART, cut

pytestmark = pytest.mark.usefixtures("short_waits")


def snapshots(*answers: web.Answer | bytes) -> web.Answer:
    """Answers for one request after another, JPEG files where bytes are given; the last is repeated."""
    made = [web.file(answer, "image/jpeg") if isinstance(answer, bytes) else answer for answer in answers]
    return web.in_turn(itertools.chain(made, itertools.repeat(made[-1])))


def video_file(path: Path) -> bytes:
    if path.suffix == ".mp4":
        writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), 25, (64, 48))
        for image in IMAGES:
            writer.write(image)
        writer.release()
    elif path.suffix == ".avi":
        write_avi_with_sound(path, IMAGES, 3)
    elif path.stem == "sound":
        write_mkv_with_sound(path, IMAGES, 3)
    else:
        write_video(path, IMAGES)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("line.mkv", "video/x-matroska"),
        ("line.mkv", None),
        ("line.mkv", "application/octet-stream"),
        ("sound.mkv", "video/x-matroska"),
        ("line.avi", "video/x-msvideo"),
        ("line.mp4", "video/mp4"),
    ],
)
def test_a_video_behind_a_web_address_ends_with_the_file(
    name: str, content: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record = Record()
    answer = web.file(video_file(tmp_path / name), content)
    with (
        web.serve({f"/{name}": answer}) as server,
        open_source(server.uri(f"/{name}?token=S3cret")) as source,
    ):
        assert (type(source), source.live) == (Video, False)
        assert source.uri == server.uri(f"/{name}?token=***")
        summary = stream(FakeSession(SIZE), source, [record], size=SIZE, threshold=2.0)
        asked = len(server.requests)
    assert [verdict.frame_index for verdict in record.verdicts] == list(range(12))
    assert summary.frames_scored == summary.frames_seen == 12
    assert asked < 12, "the file was opened again and again"
    # The images are squeezed, which is said once.
    assert [record.name for record in caplog.records] == ["edgead.streaming.examination"]


def test_a_video_that_stops_early_behind_a_web_address_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = video_file(tmp_path / "line.avi")
    answer = web.file(data[: len(data) // 4], "video/x-msvideo")
    with web.serve({"/line.avi": answer}) as server, open_source(server.uri("/line.avi")) as source:
        count = len(list(source))
    assert 1 < count < 12
    # The last image is truncated, too.
    assert source.broken == 1
    _, record = caplog.records
    assert record.args == (source.uri, count, 12)


def test_a_video_without_a_length_is_a_live_camera(ending: threading.Event) -> None:
    frames = itertools.cycle(JPEGS)
    answer = web.parts(frames, "video/x-motion-jpeg", ending)
    with web.serve({"/line": answer}) as server, open_source(server.uri("/line")) as source:
        assert (type(source), source.live) == (LiveSource, True)
        first = next(iter(source))
        ending.set()
    assert first.image.shape == (48, 64, 3)


def test_a_snapshot_address_is_polled_at_the_rate_that_is_asked_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with web.serve({"/snap": snapshots(*JPEGS)}) as server:
        start_s = time.monotonic()
        with open_source(server.uri("/snap?size=1&key=S3cret#fps=40")) as source:
            assert (source.live, source.fps) == (True, 40.0)
            assert source.uri == server.uri("/snap?size=1&key=***#fps=40")
            frames = list(itertools.islice(source, 8))
        asked = list(server.requests)
    # A frame may be late but never early, after the first.
    times = [frame.captured_at_ns / 1e9 - start_s for frame in frames]
    assert [number for number, time_s in enumerate(times) if time_s < number / 40 - 1e-6] == []
    # The first request looks at the address; what is behind the # is not sent.
    assert asked == ["/snap?size=1&key=S3cret"] * 9
    for frame, image in zip(frames, DECODED[1:], strict=False):
        np.testing.assert_array_equal(frame.image, image)
    assert [frame.index for frame in frames] == list(range(8))
    assert caplog.records == []


@pytest.mark.parametrize("suffix", [".bmp", ".webp", ".tiff"])
def test_an_image_without_a_content_type_is_read_as_an_image_file_is(suffix: str) -> None:
    parameters = [cv2.IMWRITE_WEBP_QUALITY, 101] if suffix == ".webp" else []
    data = cv2.imencode(suffix, IMAGES[0], parameters)[1].tobytes()
    with (
        web.serve({"/snap": snapshots(web.file(data, "application/octet-stream"))}) as server,
        open_source(server.uri("/snap#fps=20")) as source,
    ):
        assert source.live
        first = next(iter(source))
    assert np.array_equal(first.image, cv2.cvtColor(IMAGES[0], cv2.COLOR_BGR2RGB))


def test_a_snapshot_address_without_a_rate_is_polled_once_a_second() -> None:
    with web.serve({"/snap": snapshots(*JPEGS)}) as server, open_source(server.uri("/snap")) as source:
        assert source.fps == 1.0


@pytest.mark.parametrize("rate", ["0", "-1", "nan", "101", "x", ""])
def test_a_rate_that_is_not_usable_is_refused(rate: str) -> None:
    with pytest.raises(InputError):
        open_source(f"http://127.0.0.1:9/snap#fps={rate}")


def test_a_rate_is_for_snapshots_only(ending: threading.Event) -> None:
    answer = web.parts([web.part(JPEGS[0], "x")], f"{MULTIPART}x", ending)
    with web.serve({"/mjpg": answer}) as server, pytest.raises(InputError):
        open_source(server.uri("/mjpg#fps=2"))


@pytest.mark.parametrize("status", [401, 403, 404, 500, 503, 799])
def test_an_error_of_the_server_is_one_line_with_its_code(status: int) -> None:
    with web.serve({"/snap": web.page(status)}) as server, pytest.raises(SourceError) as caught:
        open_source(server.uri("/snap?pwd=S3cret", "admin:S3cret"))
    assert str(status) in caught.value.what.split()
    assert caught.value.hint
    assert "S3cret" not in str(caught.value)


@pytest.mark.parametrize("content", ["text/html", "application/json", "text/plain"])
def test_a_page_is_neither_an_image_nor_a_video(content: str) -> None:
    answer = web.file(b"<html>Please log in</html>", content)
    with web.serve({"/snap": answer}) as server, pytest.raises(SourceError) as caught:
        open_source(server.uri("/snap?pwd=S3cret"))
    assert content in caught.value.what
    assert "S3cret" not in str(caught.value)


@pytest.mark.parametrize("broken", [JPEGS[1][:500], JPEGS[1][:-2], b"", b"no image", cut])
def test_a_broken_snapshot_is_left_out_and_counted(
    broken: web.Answer | bytes, caplog: pytest.LogCaptureFixture
) -> None:
    answer = snapshots(JPEGS[0], JPEGS[0], broken, broken, broken, JPEGS[3])
    with web.serve({"/snap": answer}) as server, open_source(server.uri("/snap?k=S3cret#fps=50")) as source:
        frames = list(itertools.islice(source, 2))
    assert [frame.index for frame in frames] == [0, 4]
    np.testing.assert_array_equal(frames[1].image, DECODED[3])
    assert source.broken == 3
    # One warning for the three of them, and no try to open the camera again.
    (warning,) = caplog.records
    assert warning.levelname == "WARNING"
    assert "S3cret" not in caplog.text


@pytest.mark.parametrize("lost", [web.page(401), web.page(404), web.page(200), web.page(503)])
def test_a_snapshot_address_that_fails_for_a_while_is_a_lost_camera(
    lost: web.Answer, caplog: pytest.LogCaptureFixture
) -> None:
    answer = snapshots(JPEGS[0], JPEGS[1], lost, lost, JPEGS[2])
    with web.serve({"/snap": answer}) as server, open_source(server.uri("/snap?k=S3cret#fps=50")) as source:
        frames = list(itertools.islice(source, 2))
    np.testing.assert_array_equal(frames[1].image, DECODED[2])
    assert [frame.index for frame in frames] == [0, 1]
    # Two tries, each with its reason, its wait and its number, and the return of the camera.
    arguments = [record.args[1:] for record in caplog.records]  # type: ignore[index]
    assert [values[2:] for values in arguments] == [(1,), (2,), ()]
    assert arguments[-1] == (2,)
    assert "S3cret" not in caplog.text


PASSWORDS = ["S3cret", "S3@c:r/e#t?%", "p%40x y&=+", "ü€"]


@pytest.mark.parametrize("login", [web.basic, web.digest])
@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize("kind", ["snapshot", "mjpeg", "video"])
def test_a_login_with_any_password(
    login: Callable[[str, str], Callable[[web.Handler], bool]],
    password: str,
    kind: str,
    tmp_path: Path,
    ending: threading.Event,
) -> None:
    answers = {
        "/snapshot": snapshots(*JPEGS),
        "/mjpeg": web.parts([web.part(data, "x") for data in JPEGS], f"{MULTIPART}x", ending),
        "/video": web.file(video_file(tmp_path / "line.mkv"), "video/x-matroska"),
    }
    # What RFC 3986 reads as an encoded byte is one.
    meant = password.replace("%40", "@")
    with web.serve(answers, login("admin", meant)) as server:
        with open_source(server.uri(f"/{kind}", f"admin:{password}")) as source:
            assert next(iter(source)).image.shape == (48, 64, 3)
            assert source.uri == server.uri(f"/{kind}", "***")
        with pytest.raises(SourceError) as caught:
            open_source(server.uri(f"/{kind}", "admin:wrong"))
    assert "401" in caught.value.what


def test_a_login_by_sha_256_or_none_that_is_known() -> None:
    with web.serve({"/snap": snapshots(JPEGS[0])}, web.digest("admin", "S3cret", "SHA-256")) as server:
        open_source(server.uri("/snap", "admin:S3cret")).close()

    def other(handler: web.Handler) -> bool:
        web.ask(handler, 'Digest realm="camera", nonce="n0nce", qop="auth", algorithm=MD4')
        return False

    with web.serve({}, other) as server, pytest.raises(SourceError) as caught:
        open_source(server.uri("/snap", "admin:S3cret"))
    assert "S3cret" not in str(caught.value)


SECRETS = ("S3cret", "s3c@ret", "T0ken", "jdoe")


@pytest.mark.parametrize("place", ["/mjpg", "/snap", "/line.mkv", "/gone", "/page"])
def test_a_command_shows_no_secret_of_its_source(
    place: str, tmp_path: Path, ending: threading.Event, capfd: pytest.CaptureFixture[str]
) -> None:
    path = f"/user=jdoe_password=S3cret_channel=1{place}"
    answers = {
        "/mjpg": web.parts((web.part(d, "x") for d in itertools.cycle(JPEGS)), f"{MULTIPART}x", ending, 0.02),
        "/snap": snapshots(*itertools.islice(itertools.cycle(JPEGS), 5000)),
        "/line.mkv": web.file(video_file(tmp_path / "line.mkv"), None),
        "/page": web.page(200),
    }
    threshold = Threshold(40 / 255, 0.01, 0.95, 0.96, 320, 299)
    bundle = write_brightness_bundle(tmp_path / "bundle", SIZE, threshold)
    sinks = [f"jsonl:{tmp_path}/out.jsonl", f"rejects:{tmp_path}/rejects", "status:", "jsonl:-"]
    with web.serve({path: answers[place]} if place in answers else {}) as server:
        uri = server.uri(f"{path}?usr=jdoe&pwd=S3cret&token=T0ken", "jdoe:s3c@ret")
        uri += "#fps=50" if place == "/snap" else ""
        arguments = [value for sink in sinks for value in ("--sink", sink)]
        code = run_main("stream", str(bundle), "--source", uri, "--max-frames", "4", *arguments)
        ending.set()
    assert code == (1 if place in ("/gone", "/page") else 0)
    out, err = capfd.readouterr()
    shown = [out, err, *(file.name for file in (tmp_path / "rejects").glob("*"))]
    if code == 0:
        lines = (tmp_path / "out.jsonl").read_text()
        shown.append(lines)
        expected = f"http://***@127.0.0.1:{server.port}/user=***_password=***_channel=1{place}?usr=***&pwd=***&token=***"
        sources = {json.loads(line).get("source", expected) for line in lines.splitlines()}
        assert {source.removesuffix("#fps=50") for source in sources} == {expected}
    for text, secret in itertools.product(shown, SECRETS):
        assert secret not in text
