"""The start of a stream, before and while its model is opened."""

import os
import signal
import socket
import threading
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from edgead.api import load
from edgead.bundle import open_bundle
from edgead.errors import BundleError, EdgeadError, InputError, SinkError
from edgead.runtime.model import Model
from edgead.scoring.threshold import Threshold
from edgead.streaming.line import LineControl
from edgead.streaming.plan import CameraPlan, StreamPlan
from edgead.streaming.start import _calls_for_signals, start_stream
from tests.helpers.brightness_bundle import write_brightness_bundle
from tests.helpers.command_line import run_main
from tests.helpers.mqtt_broker import free_port
from tests.helpers.stream_page import Viewer
from tests.helpers.stream_parts import SIZE, verdicts_of
from tests.helpers.trigger_parts import wait_until


@pytest.mark.parametrize(
    "sink",
    [
        "mqtts://broker/line?spool=spool&ca=nowhere.pem",
        "webhook:https://plant/verdicts#spool=spool&ca=nowhere.pem",
        "webhook:https://plant:port/verdicts#spool=spool",
        "opcua://me:secret@0.0.0.0:4840/?cert=nowhere.pem&key=nowhere.pem",
        "video:line.mkv?fps=none",
    ],
)
def test_an_error_in_a_sink_shows_before_the_model_is_opened(
    sink: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    opened = []

    def load() -> Model:
        opened.append(True)
        raise BundleError("it must not be opened")

    with pytest.raises(SinkError if "none" not in sink else InputError):
        start_stream(load, StreamPlan((CameraPlan("0", sink=("jsonl:lines.jsonl", sink)),)))
    assert opened == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_a_pause_while_the_model_opens_does_not_end_the_process(number: signal.Signals) -> None:
    before = signal.getsignal(number)

    def load() -> Model:
        os.kill(os.getpid(), number)
        raise BundleError("the end of this test")

    with pytest.raises(BundleError):
        start_stream(load, StreamPlan((CameraPlan("0"),)))
    assert signal.getsignal(number) is before


def test_a_pause_before_the_bundle_is_read_does_not_end_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = signal.getsignal(signal.SIGUSR1)

    def open_bundle(path: Path) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        raise BundleError("the end of this test")

    monkeypatch.setattr("edgead.bundle.open_bundle", open_bundle)
    assert run_main("stream", str(tmp_path), "--source", "0") == BundleError.exit_code
    assert signal.getsignal(signal.SIGUSR1) is before


@pytest.mark.parametrize("option", ["serve", "trigger", "feedback", "trigger of nothing"])
def test_what_cannot_be_opened_shows_before_the_model_is_opened(option: str, tmp_path: Path) -> None:
    opened = []

    def load() -> Model:
        opened.append(True)
        raise BundleError("it must not be opened")

    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        camera, more = CameraPlan("0"), {"serve": f"127.0.0.1:{port}"}
        if option == "trigger":
            camera, more = replace(camera, trigger=f"http:{port}"), {}
        elif option == "trigger of nothing":
            camera, more = replace(camera, trigger=f"exec:{tmp_path}/nothing"), {}
        elif option == "feedback":
            more = {"serve": "127.0.0.1:0", "feedback": "folder?keep=3"}
        plan = StreamPlan((camera,), **more)
        with pytest.raises(EdgeadError) as caught:
            start_stream(load, plan)
    assert not isinstance(caught.value, BundleError)
    assert opened == []


def test_a_signal_pauses_and_resumes_all_cameras() -> None:
    lines = [LineControl() for _ in range(3)]
    pause, resume = _calls_for_signals(lines)
    pause()
    assert [(one.is_paused, one.set_by) for one in lines] == 3 * [(True, "signal")]
    resume()
    assert [one.is_paused for one in lines] == 3 * [False]


def test_cameras_of_one_part_share_the_threshold_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    built = Threshold(100.0, None, None, None, 0, None)
    folder = write_brightness_bundle(tmp_path / "bundle", SIZE, {"tablet": built, "washer": built})
    bundle, port = open_bundle(folder), free_port()
    viewer, stop = Viewer(port), threading.Event()
    plan = StreamPlan(
        tuple(
            CameraPlan(
                "synthetic:washer?fps=20&size=64",
                name,
                part="tablet" if name == "other" else "washer",
                threshold=threshold,
                sink=(f"jsonl:{name}",),
            )
            for name, threshold in (("left", None), ("right", None), ("own", 55.0), ("other", None))
        ),
        serve=f"127.0.0.1:{port}",
        feedback="feedback",
    )

    def change() -> None:
        with suppress(AssertionError):
            wait_until(lambda: viewer_sees("left"))
            answers.append(viewer.post("/threshold", {"camera": "left", "value": 77.5, "name": "Kim"}).status)
            answers.append(viewer.post("/threshold", {"camera": "own", "value": 66.5, "name": "Kim"}).status)
            wait_until(lambda: all(77.5 in thresholds_of(name) for name in ("left", "right")))
            before = n_verdicts("other")
            wait_until(lambda: n_verdicts("other") >= before + 2)
            cameras.extend(viewer.get("/cameras").json["cameras"])
        stop.set()

    def thresholds_of(name: str) -> set[float]:
        return {one["threshold"] for one in verdicts_of(Path(name).read_text())}

    def n_verdicts(name: str) -> int:
        return len(verdicts_of(Path(name).read_text()))

    def viewer_sees(name: str) -> bool:
        try:
            return bool(viewer.get(f"/numbers?camera={name}").json["good"])
        except OSError:
            return False

    answers: list[int] = []
    cameras: list[dict[str, object]] = []
    monkeypatch.setattr("edgead.streaming.start.stop_on_signals", lambda: nullcontext(stop))
    thread = threading.Thread(target=change)
    thread.start()
    found = start_stream(lambda: load(bundle, threads=1), plan)
    thread.join()
    # A threshold of the command line is no threshold of the bundle.
    assert answers == [200, 409]
    assert [one["name"] for one in cameras] == list(found.cameras) == ["left", "right", "own", "other"]
    assert {name: thresholds_of(name) for name in found.cameras} == {
        "left": {100.0, 77.5},
        "right": {100.0, 77.5},
        "own": {55.0},
        "other": {100.0},
    }
    thresholds = open_bundle(bundle.path).manifest.thresholds
    assert {part: one.value for part, one in thresholds.items()} == {"tablet": 100.0, "washer": 77.5}
