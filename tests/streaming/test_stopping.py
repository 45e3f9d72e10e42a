import os
import signal
import threading

import pytest

from edgead.runtime import FakeSession
from edgead.streaming import stop_on_signals, stream
from edgead.types import Float32Array, Frame, Verdict
from tests.helpers.stream_parts import SIZE, Record
from tests.streaming.test_loop import LIMIT_S, endless


@pytest.mark.usefixtures("signals_of_a_terminal")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_stream_cleanly(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    record = Record()

    class SendsSignal(Record):
        def write(self, frame: Frame, verdict: Verdict, anomaly_map: Float32Array) -> None:
            super().write(frame, verdict, anomaly_map)
            if len(self.verdicts) == 4:
                os.kill(os.getpid(), number)

    with stop_on_signals() as stop:
        sinks = [SendsSignal(), record]
        summary = stream(FakeSession(SIZE), endless(), sinks, size=SIZE, threshold=1.0, stop=stop)
    assert summary.frames_scored == len(record.verdicts) >= 4
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
@pytest.mark.usefixtures("signals_of_a_terminal")
def test_an_ignored_signal_does_not_end_the_stream(number: signal.Signals) -> None:
    signal.signal(number, signal.SIG_IGN)
    with stop_on_signals() as stop:
        os.kill(os.getpid(), number)
        assert not stop.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(LIMIT_S)
        # timeout(1) sends it twice.
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(number) is signal.SIG_IGN


@pytest.mark.usefixtures("signals_of_a_terminal")
def test_a_second_ctrl_c_interrupts_at_once() -> None:
    def ctrl_c_twice() -> None:
        with stop_on_signals() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.wait(LIMIT_S)
            os.kill(os.getpid(), signal.SIGINT)
            threading.Event().wait(LIMIT_S)

    with pytest.raises(KeyboardInterrupt):
        ctrl_c_twice()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
