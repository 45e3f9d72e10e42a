import threading
from collections.abc import Iterator

import pytest

from edgead.errors import SourceError
from edgead.streaming.capture import QUEUE_FRAMES, Capture
from edgead.types import UInt8Array
from tests.helpers.stream_parts import ScriptedSource, textured


def take_all(capture: Capture) -> list[int]:
    indexes = []
    while not capture.ended:
        frame = capture.take(0.05)
        if frame is not None:
            indexes.append(frame.index)
    return indexes


def test_every_frame_of_a_file_in_order() -> None:
    source = ScriptedSource(lambda: (textured(level) for level in range(100)), live=False)
    with Capture(source) as capture:
        assert take_all(capture) == list(range(100))
        assert capture.dropped == 0


def test_a_file_is_not_read_further_ahead_than_the_queue() -> None:
    given = 0
    ahead = threading.Event()

    def script() -> Iterator[UInt8Array]:
        nonlocal given
        for level in range(50):
            given += 1
            if given == QUEUE_FRAMES + 1:
                ahead.set()
            yield textured(level)

    with Capture(ScriptedSource(script, live=False)) as capture:
        assert ahead.wait(10)
        assert capture.take(0) is not None
        # The frames in the queue, the frame that was taken, and the frame that waits for room.
        assert given <= QUEUE_FRAMES + 2
        assert len(take_all(capture)) == 49


def test_only_the_newest_frame_of_a_camera_is_kept_and_the_others_are_counted() -> None:
    given = threading.Event()

    def script() -> Iterator[UInt8Array]:
        for level in range(30):
            yield textured(level)
        given.set()

    with Capture(ScriptedSource(script, live=True)) as capture:
        assert given.wait(10)
        assert take_all(capture) == [29]
        assert capture.dropped == 29


def test_an_error_of_the_source_comes_after_the_frames_before_it() -> None:
    burnt = SourceError("the camera burnt down")

    def script() -> Iterator[UInt8Array]:
        yield textured(1)
        raise burnt

    with Capture(ScriptedSource(script, live=False)) as capture:
        first = capture.take(10)
        assert first is not None
        with pytest.raises(SourceError) as caught:
            capture.take(10)
        assert caught.value is burnt
        assert not capture.ended


def test_leaving_ends_a_thread_that_waits_for_room() -> None:
    source = ScriptedSource(lambda: (textured(level) for level in range(200)), live=False)
    with Capture(source) as capture:
        assert capture.take(10) is not None
    assert source.stopped.is_set()
    assert "edgead-capture" not in [thread.name for thread in threading.enumerate()]


def test_a_reader_that_hangs_is_left_behind_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("edgead.streaming.capture.JOIN_S", 0.05)
    release = threading.Event()

    def script() -> Iterator[UInt8Array]:
        release.wait(30)
        yield textured(1)

    with Capture(ScriptedSource(script, live=True)) as capture:
        assert capture.take(0.01) is None
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "scripted" in record.getMessage()
    release.set()
