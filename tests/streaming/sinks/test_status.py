import sys

import pytest

from edgead.streaming.record import lost_record, state_record
from edgead.streaming.sinks import StatusLine
from edgead.streaming.state import StateChange
from tests.helpers.screen import Screen
from tests.helpers.stream_parts import frame, textured
from tests.streaming.test_sinks import BACK, LOST, MAP, rejected, verdict


def show_some(sink: StatusLine) -> None:
    sink.tick()
    sink.write(frame(textured(1)), verdict(), MAP)
    sink.write(*rejected(1))
    sink.state(LOST)
    sink.tick()
    sink.state(BACK)
    sink.withheld(frame(textured(2)), "the map is not finite")
    sink.write(frame(textured(1)), verdict(), MAP)


@pytest.mark.parametrize("columns", [200, 40, 20])
def test_the_status_line_in_a_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(columns)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("edgead.streaming.sinks.status.TERMINAL_EVERY_S", 0.0)
    with StatusLine() as sink:
        show_some(sink)
    sink.close()
    shown = [text.rstrip() for text in screen.written.removesuffix("\n").split("\r")[1:]]
    first_words = [text.split()[0] for text in shown]
    # A signal that returns does not show the last verdict again, and the end shows the state again.
    assert first_words == ["waiting", "good", "REJECT", "NO", "NO", "waiting", "NO", "good", "good"]
    assert [shown[index].split("  ")[0] for index in (3, 6)] == ["NO SIGNAL", "NO VERDICT"]
    assert [len(text) for text in screen.lines] == [len(screen.lines[0]), 0]
    if columns == 200:
        assert "waiting for a verdict  0 scored" in shown[0]
        assert "good    score 0.2500 of 0.5000" in shown[1]
        assert "1 scored  0 rejected" in shown[1]
        assert "REJECT  score 0.7500 of 0.5000" in shown[2]
        assert "2 scored  1 rejected" in shown[2]
        assert "NO SIGNAL  no image comes" in shown[3]
        assert "NO VERDICT  the map is not finite" in shown[6]
    if columns == 40:
        assert shown[2] == "REJECT  score 0.7500 of 0.5000"
    assert "\x1b" not in screen.written


def test_the_status_in_a_log_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with StatusLine() as sink:
        for index in range(500):
            sink.write(frame(textured(1), index), verdict(index), MAP)
        sink.state(LOST)
    lines = capsys.readouterr().err.splitlines()
    counted = [[text for text in line.split("  ") if text.endswith("scored")] for line in lines]
    assert counted == [["1 scored"], ["500 scored"], ["500 scored"]]
    assert "NO SIGNAL" in lines[1]
    assert not any("\r" in line or "\x1b" in line for line in lines)


def test_a_doubt_is_in_front_of_the_verdict_until_it_has_passed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgead.streaming.sinks.status.LOG_EVERY_S", 0.0)
    with StatusLine() as sink:
        sink.write(frame(textured(1)), verdict(), MAP)
        sink.state(StateChange("degraded", "running", ("rejects", "not_finite"), "many"))
        sink.write(*rejected(1))
        sink.state(StateChange("running", "degraded"))
        sink.state(StateChange("stopped", "running", reason="the source has ended"))
    shown = [line.split("  ")[:3] for line in capsys.readouterr().err.splitlines()]
    assert [words[0] for words in shown] == ["good", "DEGRADED", "DEGRADED", "REJECT", "REJECT"]
    assert shown[1][1:] == ["rejects, not finite", "good"]
    assert shown[2][2] == "REJECT"


def test_a_loss_of_a_shared_sink_is_no_camera(capsys: pytest.CaptureFixture[str]) -> None:
    with StatusLine() as sink:
        for camera in ("left", "right"):
            sink.record(state_record(StateChange("running", "starting")).of_camera(camera))
        sink.record(lost_record("jsonl:log", 1, "it is slow").of_camera(None))
        sink.record(state_record(LOST).of_camera("left"))
    last = capsys.readouterr().err.splitlines()[-1]
    assert [camera.split()[0] for camera in last.split(" | ")] == ["left", "right"]
