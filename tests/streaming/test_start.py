"""The start of a stream, before and while its model is opened."""

import os
import signal
from pathlib import Path

import pytest

from edgead.errors import BundleError, InputError, SinkError
from edgead.runtime.model import Model
from edgead.streaming.start import start_stream
from tests.helpers.command_line import run_main


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
        start_stream(load, "0", ["jsonl:lines.jsonl", sink], {})
    assert opened == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_a_pause_while_the_model_opens_does_not_end_the_process(number: signal.Signals) -> None:
    before = signal.getsignal(number)

    def load() -> Model:
        os.kill(os.getpid(), number)
        raise BundleError("the end of this test")

    with pytest.raises(BundleError):
        start_stream(load, "0", [], {})
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
