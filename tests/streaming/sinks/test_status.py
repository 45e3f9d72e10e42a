import io
import sys

import pytest

from edgead.streaming.sinks import StatusLine
from tests.helpers.stream_parts import frame, textured
from tests.streaming.test_sinks import BACK, LOST, MAP, rejected, verdict


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_status_line_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("edgead.streaming.sinks.status.TERMINAL_EVERY_S", 0.0)
    with StatusLine() as sink:
        sink.tick()
        sink.write(frame(textured(1)), verdict(), MAP)
        sink.write(*rejected(1))
        sink.signal(LOST)
        sink.tick()
        sink.signal(BACK)
        sink.withheld(frame(textured(2)), "the map is not finite")
        sink.write(frame(textured(1)), verdict(), MAP)
    sink.close()
    shown = terminal.getvalue().removesuffix("\n").split("\r\x1b[K")[1:]
    assert "0 scored" in shown[0]
    assert "waiting for the first image" in shown[0]
    assert "1 scored  0 rejected" in shown[1]
    assert "good    score 0.2500 of 0.5000" in shown[1]
    assert "2 scored  1 rejected" in shown[2]
    assert "REJECT  score 0.7500 of 0.5000" in shown[2]
    assert [("NO SIGNAL  no image comes" in text) for text in shown[3:6]] == [True, True, False]
    assert [("NO VERDICT  the map is not finite" in text) for text in shown[5:8]] == [False, True, False]
    assert terminal.getvalue().count("\n") == 1


def test_the_status_in_a_log_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with StatusLine() as sink:
        for index in range(500):
            sink.write(frame(textured(1), index), verdict(index), MAP)
        sink.signal(LOST)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["1 scored", "500 scored", "500 scored"]
    assert "NO SIGNAL" in lines[1]
    assert not any("\r" in line or "\x1b" in line for line in lines)
