"""Cameras that are absent at the start of a stream with several: the others do not wait for them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgead.api import load
from edgead.bundle import Bundle
from edgead.errors import AbsentSourceError, SinkError, TriggerError
from edgead.streaming import LineControl, Source, open_source
from edgead.streaming.arrivals import JOIN_S, Arrivals
from edgead.streaming.camera import Camera
from edgead.streaming.plan import CameraPlan, StreamPlan
from edgead.streaming.sinks import JsonLines
from edgead.streaming.start import start_stream
from edgead.streaming.summary import LineSummary
from edgead.streaming.triggers import Trigger
from edgead.types import Frame
from tests.helpers.mqtt_broker import free_port
from tests.helpers.stream_page import Viewer, page_bundle
from tests.helpers.stream_parts import textured, verdicts_of, write_image
from tests.helpers.trigger_parts import LIMIT_S, wait_until

HERE = CameraPlan("synthetic:washer?fps=20&size=64", "here", ("jsonl:here",))


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("edgead.streaming.pauses.LONGEST_WAIT_S", 0.05)
    return page_bundle(tmp_path)


def run(
    bundle: Bundle, plan: StreamPlan, stop: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> LineSummary:
    monkeypatch.setattr("edgead.streaming.start.stop_on_signals", lambda: nullcontext(stop))
    return start_stream(lambda: load(bundle, threads=1), plan)


def n_verdicts(name: str) -> int:
    return len(verdicts_of(Path(name).read_text())) if Path(name).exists() else 0


def test_a_camera_that_comes_later_joins_the_others(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    stop, port, pages, states = threading.Event(), free_port(), [], list[str]()
    later = CameraPlan("later", "later", ("jsonl:later.jsonl",), wait=60.0, threshold=55.0)
    plan = StreamPlan((later, HERE), ("jsonl:all",), serve=f"127.0.0.1:{port}")

    def come() -> None:
        try:
            wait_until(lambda: n_verdicts("here") >= 2)
            states.append(Path("later.jsonl").read_text())
            pages.extend(Viewer(port).get("/cameras").json["cameras"])
            folder = Path("folder")
            folder.mkdir()
            write_image(folder / "0.png", textured(60))
            folder.rename("later")
            wait_until(lambda: n_verdicts("later.jsonl") == 1)
        finally:
            stop.set()

    thread = threading.Thread(target=come)
    thread.start()
    found = run(bundle, plan, stop, monkeypatch)
    thread.join()
    assert {one["name"]: one["state"] for one in pages} == {"later": "starting", "here": "running"}
    assert found.cameras["later"].frames_scored == 1
    assert [json.loads(line)["state"] for line in states[0].splitlines()] == ["starting"]
    assert not found.has_problem
    (verdict,) = verdicts_of(Path("later.jsonl").read_text())
    assert (verdict["camera"], verdict["threshold"]) == ("later", 55.0)
    assert {one["camera"] for one in verdicts_of(Path("all").read_text())} == {"here", "later"}


def test_a_stop_ends_the_wait_and_leaves_no_thread(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()

    def end() -> None:
        try:
            wait_until(lambda: n_verdicts("here") >= 1)
        finally:
            stop.set()

    thread = threading.Thread(target=end)
    thread.start()
    plan = StreamPlan((HERE, CameraPlan("never", "never", wait=float("inf"))))
    assert list(run(bundle, plan, stop, monkeypatch).cameras) == ["here"]
    thread.join()
    assert "edgead-arrival" not in [one.name for one in threading.enumerate()]


def test_cameras_are_opened_at_the_same_time(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2)

    def open_slowly(uri: str, **options: Any) -> Source:
        both.wait(LIMIT_S)
        return open_source(uri, **options)

    monkeypatch.setattr("edgead.streaming.start.open_source", open_slowly)
    cameras = [CameraPlan(f"synthetic:washer?frames={frames}&size=64", f"of{frames}") for frames in (1, 2)]
    found = run(bundle, StreamPlan(tuple(cameras)), threading.Event(), monkeypatch).cameras
    assert {name: one.frames_scored for name, one in found.items()} == {"of1": 1, "of2": 2}


@pytest.mark.parametrize("cameras", [1, 2])
def test_a_stop_does_not_wait_for_a_camera_that_hangs_at_the_start(
    cameras: int, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, release, waited = threading.Event(), threading.Event(), list[bool]()

    def hang(uri: str, **_: Any) -> Source:
        stop.set()
        waited.append(release.wait(LIMIT_S))
        raise AbsentSourceError(uri, hint="")

    monkeypatch.setattr("edgead.streaming.start.open_source", hang)
    plan = StreamPlan(tuple(CameraPlan("hung", f"hung{number}", wait=60.0) for number in range(cameras)))
    found = run(bundle, plan, stop, monkeypatch).cameras
    assert waited == []
    release.set()
    assert {one.frames_seen for one in found.values()} == {0}


def test_cameras_that_hang_share_the_wait_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    release, waits = threading.Event(), list[float]()

    def join(thread: threading.Thread, timeout_s: float) -> None:
        waits.append(timeout_s)

    with Arrivals() as arrivals, monkeypatch.context() as clock:
        for _ in range(4):
            arrivals.expect("hung", [], lambda: release.wait(LIMIT_S) and None)
        clock.setattr("edgead.streaming.arrivals.time", SimpleNamespace(monotonic=lambda: sum(waits)))
        clock.setattr(threading.Thread, "join", join)
        arrivals.close()
    release.set()
    assert sum(waits) == JOIN_S


@pytest.mark.parametrize(
    ("camera", "error"),
    [
        (CameraPlan("never", "never"), AbsentSourceError),
        (CameraPlan("later", "later", ("jsonl:nowhere/x",), wait=60.0), SinkError),
    ],
)
def test_an_address_without_an_answer_and_a_sink_of_an_absent_camera_are_errors_at_the_start(
    camera: CameraPlan, error: type[Exception], bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(error):
        run(bundle, StreamPlan((HERE, camera)), threading.Event(), monkeypatch)
    assert n_verdicts("here") == 0


def test_a_camera_that_does_not_come_in_time_ends_alone(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, own = threading.Event(), Path("never.jsonl")

    def states() -> list[dict[str, Any]]:
        return [json.loads(line) for line in own.read_text().splitlines()] if own.exists() else []

    def end() -> None:
        try:
            wait_until(lambda: "stopped" in [one["state"] for one in states()])
            before = n_verdicts("here")
            wait_until(lambda: n_verdicts("here") >= before + 2)
        finally:
            stop.set()

    thread = threading.Thread(target=end)
    thread.start()
    never = CameraPlan("never", "never", ("jsonl:never.jsonl",), wait=0.1)
    found = run(bundle, StreamPlan((HERE, never)), stop, monkeypatch)
    thread.join()
    assert list(found.cameras) == ["here"]
    assert list(found.failed) == ["never"]
    assert found.has_problem
    assert [one["state"] for one in states()] == ["starting", "stopped"]
    assert states()[-1]["reason"] == found.failed["never"]


class Opened(Source):
    """A source that says whether it was closed."""

    def __init__(self) -> None:
        super().__init__("opened")
        self.is_closed = False

    def __iter__(self) -> Iterator[Frame]:
        return iter(())

    def close(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize("comes", ["taken", "waiting", "after the end"])
def test_the_end_closes_the_sources_of_cameras_that_came(comes: str) -> None:
    source, ended = Opened(), threading.Event()

    def open_it() -> Camera:
        if comes == "after the end":
            assert ended.wait(LIMIT_S)
        return Camera(source, [], 1.0, name="late")

    with Arrivals() as arrivals:
        arrivals.expect("late", [], open_it)
        if comes != "after the end":
            wait_until(lambda: arrivals._arrived)
        if comes == "taken":
            name, found = arrivals.take() or ("", None)
            assert (name, isinstance(found, Camera)) == ("late", True)
            assert arrivals.expected == 0
        assert not source.is_closed
        arrivals.stop.set()
        ended.set()
    assert source.is_closed


def test_a_trigger_that_cannot_start_closes_the_sinks_and_the_source(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(Trigger):
        def start(self, line: LineControl) -> None:
            raise TriggerError("it does not start")

        def close(self) -> None:
            pass

    closed, source, close = list[str](), Opened(), JsonLines.close

    def close_it(sink: JsonLines) -> None:
        closed.append(sink.name)
        close(sink)

    monkeypatch.setattr(JsonLines, "close", close_it)
    monkeypatch.setattr("edgead.streaming.start.open_trigger", lambda uri: Broken())
    monkeypatch.setattr("edgead.streaming.start.open_source", lambda *_, **__: source)
    plan = StreamPlan((CameraPlan("0", "0", ("jsonl:own",), trigger="motion:"),), ("jsonl:all",))
    with pytest.raises(TriggerError):
        run(bundle, plan, threading.Event(), monkeypatch)
    assert sorted(closed) == ["jsonl:all", "jsonl:own"]
    assert source.is_closed
