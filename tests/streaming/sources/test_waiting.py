import logging
import os
import signal
import threading
from pathlib import Path

import pytest

from edgead.errors import AbsentSourceError, InputError, SourceError
from edgead.scoring.threshold import Threshold
from edgead.streaming import open_source, open_when_there
from edgead.streaming.pauses import LONGEST_WAIT_S, pause_s
from tests.helpers.brightness_bundle import write_brightness_bundle
from tests.helpers.command_line import run_main
from tests.helpers.stream_parts import SIZE, textured, write_image
from tests.helpers.web_camera import file, in_turn, jpeg, page, serve

NOT_SET = threading.Event()


def test_pauses_grow_to_a_limit_and_are_random() -> None:
    pauses = [pause_s(tries) for tries in range(1, 60)]
    assert 0.25 <= pauses[0] <= 0.5
    assert max(pauses) <= LONGEST_WAIT_S
    assert min(pauses[3:]) >= LONGEST_WAIT_S / 2
    assert len(set(pauses)) == len(pauses)


def test_a_source_that_comes_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    share = tmp_path / "share"

    def come() -> None:
        share.mkdir()
        write_image(share / "a.png", textured(50))

    timer = threading.Timer(0.1, come)
    timer.start()
    source = open_when_there(lambda: open_source(str(share), watch=True), 60.0, NOT_SET)
    assert source is not None
    with source:
        assert next(iter(source)).index == 0
    timer.join()
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@pytest.mark.parametrize(
    "uri", ["camera:9876", "rtsp://127.0.0.1:9/line", "http://127.0.0.1:9/a.jpg", "missing"]
)
@pytest.mark.parametrize("wait_s", [0.0, 0.05])
def test_a_source_that_does_not_come_in_time_is_an_error(uri: str, wait_s: float) -> None:
    with pytest.raises(AbsentSourceError):
        open_when_there(lambda: open_source(uri), wait_s, NOT_SET)


@pytest.mark.parametrize("uri", ["camera:front", "synthetic:unicorn"])
def test_a_typing_error_is_not_waited_for(uri: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_when_there(lambda: open_source(uri), float("inf"), NOT_SET)
    assert not isinstance(caught.value, AbsentSourceError)


@pytest.mark.parametrize("wait_s", [-1.0, float("nan")])
def test_a_wait_that_is_no_time_is_refused(wait_s: float) -> None:
    with pytest.raises(InputError):
        open_when_there(lambda: open_source("camera:9876"), wait_s, NOT_SET)


def test_a_stop_ends_the_wait() -> None:
    stop = threading.Event()
    threading.Timer(0.05, stop.set).start()
    assert open_when_there(lambda: open_source("camera:9876"), float("inf"), stop) is None


def test_the_command_waits_for_a_camera(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bundle = write_brightness_bundle(
        tmp_path / "bundle", SIZE, Threshold(40 / 255, 0.01, 0.95, 0.96, 320, 299)
    )
    folder = tmp_path / "later"
    images = tmp_path / "images"
    images.mkdir()
    write_image(images / "a.png", textured(90))
    timer = threading.Timer(0.1, lambda: images.rename(folder))
    timer.start()
    assert run_main("stream", str(bundle), "--source", str(folder), "--wait", "60") == 0
    timer.join()
    assert "1 scored" in capfd.readouterr().out
    assert run_main("stream", str(bundle), "--source", str(tmp_path / "never"), "--wait", "0.05") == 1
    capfd.readouterr()


@pytest.mark.usefixtures("signals_of_a_terminal")
def test_a_signal_ends_the_wait_of_a_stream_with_a_trigger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def send(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    # The log of the first try shows that the wait has begun.
    monkeypatch.setattr(logging.getLogger("edgead.streaming.sources.waiting"), "warning", send)
    bundle = write_brightness_bundle(
        tmp_path / "bundle", SIZE, Threshold(40 / 255, 0.01, 0.95, 0.96, 320, 299)
    )
    arguments = ("--source", str(tmp_path / "never"), "--wait", "inf", "--trigger", f"file:{tmp_path}")
    assert run_main("stream", str(bundle), *arguments) == 0
    assert "0 seen" in capfd.readouterr().out


def test_a_web_camera_that_starts_is_waited_for_and_a_wrong_path_is_not() -> None:
    image = file(jpeg(textured(90)), "image/jpeg")
    with serve({"/snap": in_turn([page(503), page(503), image])}) as server:
        source = open_when_there(lambda: open_source(server.uri("/snap")), 60.0, NOT_SET)
        assert source is not None
        source.close()
        with pytest.raises(SourceError):
            open_when_there(lambda: open_source(server.uri("/other")), 60.0, NOT_SET)
