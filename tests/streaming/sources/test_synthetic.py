import threading
import time
from pathlib import Path

import numpy as np
import pytest

from edgead.errors import EdgeadError, InputError, SourceError
from edgead.streaming import open_source
from edgead.streaming.sources import SyntheticSource
from tests.helpers.stream_parts import textured


def test_synthetic_parts_are_the_conveyors(tmp_path: Path) -> None:
    from edgead.data.synthetic.dataset import KINDS, Conveyor

    kind = KINDS[0]
    uri = f"synthetic:{kind}?seed=3&size=64&defect_rate=0.5&frames=4"
    with open_source(uri) as source:
        assert (source.live, source.fps) == (False, None)
        frames = list(source)
    expected = [image for image, _ in Conveyor(kind, seed=3, size_px=64, defect_rate=0.5, n_frames=4)]
    assert len(frames) == 4
    for frame, image in zip(frames, expected, strict=True):
        np.testing.assert_array_equal(frame.image, image)
        assert frame.source == uri


def test_synthetic_parts_at_a_rate_are_live_and_paced() -> None:
    conveyor = [(textured(level), False) for level in range(5)]
    source = SyntheticSource("synthetic:test", conveyor, fps=50)
    assert source.live
    start_s = time.monotonic()
    times = [frame.captured_at_ns / 1e9 for frame in source]
    # A frame may be late but never early: each is due 20 ms after the frame before.
    assert [number for number, time_s in enumerate(times, 1) if time_s < start_s + number / 50 - 1e-6] == []


def test_synthetic_parts_stop_when_asked() -> None:
    source = SyntheticSource("synthetic:test", [(textured(1), False)] * 3, fps=0.01)
    threading.Timer(0.05, source.stop).start()
    assert list(source) == []


@pytest.mark.parametrize(
    ("uri", "error", "named", "hint"),
    [
        ("synthetic:unicorn", SourceError, "synthetic:unicorn", "washer"),
        ("synthetic:washer?speed=3", InputError, "'speed'", "defect_rate"),
        ("synthetic:washer?frames=0", InputError, "frames=0", "1"),
    ],
)
def test_synthetic_addresses_are_checked(uri: str, error: type[EdgeadError], named: str, hint: str) -> None:
    with pytest.raises(error) as caught:
        open_source(uri)
    assert named in caught.value.what
    assert hint in str(caught.value.hint)
