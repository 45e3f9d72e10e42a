"""A stream of an RTSP camera in a thread, with the true age and the state of each image that got a verdict."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from edgead.runtime import FakeSession
from edgead.streaming import StreamPolicy, Summary, open_source, stream
from edgead.types import Float32Array, Frame, UInt8Array, Verdict
from tests.helpers.rtsp_camera import free_port, rtsp_camera, stamp_of_image_ms
from tests.helpers.stream_parts import SIZE, StateRecord

FPS = 15
MAX_AGE_S = 0.5
# Levels of the squares in an image of `rtsp_server.py`; x264 changes them by at most 25.
_LEVELS = (16, 235)
_LIMIT_S = 60.0


def damage_of_image(image: UInt8Array) -> int:
    """Return the largest difference of a pixel in the squares of an image of `rtsp_server.py` from its level."""
    height, width = image.shape[:2]
    side, worst = height // 6, 0
    for row in range(4):
        for column in range(8):
            square = image[
                row * side + 4 : (row + 1) * side - 4,
                column * width // 8 + 4 : (column + 1) * width // 8 - 4,
                1,
            ].astype(np.int16)
            worst = max(worst, min(int(np.abs(square - level).max()) for level in _LEVELS))
    return worst


class Ages(StateRecord):
    """True ages of the images at their verdicts, in milliseconds, their sizes, and their damage."""

    def __init__(self) -> None:
        super().__init__()
        self.true_ms: list[float] = []
        self.shapes: set[tuple[int, ...]] = set()
        self.damages: list[int] = []

    def write(self, frame: Frame, verdict: Verdict, anomaly_map: Float32Array) -> None:
        assert verdict.age_ms is not None
        decided_ms = frame.captured_at_ns / 1e6 + verdict.age_ms
        self.true_ms.append(decided_ms - stamp_of_image_ms(frame.image))
        self.shapes.add(frame.image.shape)
        self.damages.append(damage_of_image(frame.image))
        super().write(frame, verdict, anomaly_map)


class Running:
    """A stream in a thread.

    Args:
        port: Port of the camera.
        option: Option at the end of its address, such as "#transport=udp".
        max_age_s: Largest age of an image at its verdict, in seconds.
    """

    def __init__(self, port: int, option: str = "", max_age_s: float = MAX_AGE_S) -> None:
        self.record, self.summaries, self._stop = Ages(), list[Summary](), threading.Event()
        self.source = open_source(f"rtsp://127.0.0.1:{port}/line{option}")
        self._policy = StreamPolicy(max_age_s=max_age_s)
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with self.source:
            self.summaries.append(
                stream(
                    FakeSession(SIZE),
                    self.source,
                    [self.record],
                    size=SIZE,
                    threshold=2.0,
                    policy=self._policy,
                    stop=self._stop,
                )
            )

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds."""
        end = time.monotonic() + _LIMIT_S
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            assert self._thread.is_alive()
            time.sleep(0.01)

    def more(self, count: int) -> None:
        """Wait for more verdicts."""
        target = len(self.record.verdicts) + count
        self.wait_for(lambda: len(self.record.verdicts) >= target)

    def __enter__(self) -> Running:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive()


@contextmanager
def clock_camera(codec: str, fps: int = FPS) -> Iterator[tuple[int, int]]:
    """A camera that draws the time into its images.

    Yields:
        Its port, and the ID of its process.
    """
    port = free_port()
    with rtsp_camera(port, "--fps", str(fps), "--codec", codec) as server:
        yield port, server.pid
