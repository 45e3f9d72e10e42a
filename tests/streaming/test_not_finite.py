from collections.abc import Iterator

import numpy as np
import pytest

from edgead.runtime import FakeSession
from edgead.streaming import StreamPolicy, stream
from edgead.types import Prediction, UInt8Array
from tests.helpers.stream_parts import SIZE, Record, ScriptedSource, textured
from tests.streaming.test_loop import level_of, wait_for


class OneBadPixel(FakeSession):
    """A session whose maps of bright images have one pixel that is not finite, while their score looks right."""

    def __init__(self, value: float) -> None:
        super().__init__(SIZE, score=level_of)
        self._value = value

    def infer(self, batch: UInt8Array) -> Prediction:
        prediction = super().infer(batch)
        if prediction.anomaly_score[0] > 100:
            prediction.anomaly_map[0, 0, 3, 5] = self._value
        return prediction


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("threshold", [1000.0, 0.0])
def test_a_frame_whose_map_is_not_finite_is_withheld_with_a_reason_and_counted(
    value: float, live: bool, threshold: float, caplog: pytest.LogCaptureFixture
) -> None:
    record = Record()

    def script() -> Iterator[UInt8Array]:
        for number, level in enumerate((40, 150, 160, 60, 170), 1):
            yield textured(level)
            for _ in wait_for(lambda number=number: len(record.verdicts) + len(record.missing) == number):
                pass

    source = ScriptedSource(script, live)
    summary = stream(OneBadPixel(value), source, [record], size=SIZE, threshold=threshold)
    assert [verdict.frame_index for verdict in record.verdicts] == [0, 3]
    assert [index for index, _ in record.missing] == [1, 2, 4]
    assert all(reason for _, reason in record.missing)
    counts = summary.frames_seen, summary.frames_scored, summary.frames_withheld, summary.rejected
    assert counts == (5, 2, 3, 2 if threshold == 0.0 else 0)
    # The images are squeezed. One warning for all that are not finite, which names the first.
    _, warning = caplog.records
    assert warning.levelname == "WARNING"
    assert warning.args[:2] == ("test", 1)  # type: ignore[index]


def test_a_score_that_is_no_number_gives_no_verdict() -> None:
    record = Record()
    source = ScriptedSource(lambda: iter([textured(1), textured(2)]), live=False)
    session = FakeSession(SIZE, score=float("nan"))
    summary = stream(session, source, [record], size=SIZE, threshold=1.0)
    assert record.verdicts == []
    assert (summary.frames_scored, summary.frames_withheld) == (0, 2)


def test_max_frames_end_a_camera_whose_maps_are_all_not_finite() -> None:
    def script() -> Iterator[UInt8Array]:
        for number in range(100_000):
            yield textured(150 + number % 50)

    record = Record()
    source = ScriptedSource(script, live=True)
    summary = stream(
        OneBadPixel(np.nan), source, [record], size=SIZE, threshold=1.0, policy=StreamPolicy(max_frames=3)
    )
    assert len(record.missing) == 3
    assert record.verdicts == []
    assert (summary.frames_scored, summary.withheld["not_finite"]) == (0, 3)
