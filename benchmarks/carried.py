"""The number of cameras that `edgead bench` names, tried in the loop of a stream.

    python benchmarks/carried.py [--fps 15] [--seconds 20] [--inference-ms 8] [--spread] [--batch 4]

The fake session sleeps in each inference, and takes little of the processor. On a machine with other work,
`chrt -f 10` keeps that out of the times. The clock `e2e` is measured, and then a stream runs with N cameras, the number
that follows from it, with N + 1, and with more than the session can score. All cameras give their frames at one moment,
which is the worst case of their phases; `--spread` puts them at equal distances. With `--batch` the stream scores the
frames of several cameras together, of which each further one takes a quarter of the time of the first.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from edgead.benchmark.capacity import USED_SHARE, capacity_of
from edgead.benchmark.clocks import camera_images, measure
from edgead.benchmark.report import Clock, Conditions
from edgead.imaging.preprocess import ModelSize
from edgead.imaging.view import WHOLE
from edgead.runtime import FakeSession
from edgead.streaming import StreamPolicy
from edgead.streaming.camera import Camera
from edgead.streaming.loop import stream_cameras
from edgead.streaming.sources import Source
from edgead.types import Frame, Prediction, UInt8Array

SIZE = ModelSize(128, 128)
HEIGHT, WIDTH = 240, 320


class Sleeper(FakeSession):
    """A session whose inference takes a time at least: for one image, and a quarter of it for each further one."""

    def __init__(self, inference_s: float) -> None:
        super().__init__(SIZE, score=0.5)
        self._inference_s = inference_s

    def infer(self, batch: UInt8Array) -> Prediction:
        end_s = time.monotonic() + self._inference_s * (3 + len(batch)) / 4
        prediction = super().infer(batch)
        time.sleep(max(0.0, end_s - time.monotonic()))
        return prediction


class Paced(Source):
    """A camera that gives frames at fixed times, the same for all cameras, or a part of the period later."""

    def __init__(self, number: int, fps: float, first_s: float, images: list[UInt8Array]) -> None:
        super().__init__(f"paced:{number}", fps)
        self.live, self._first_s, self._images = True, first_s, images

    def __iter__(self) -> Iterator[Frame]:
        assert self.fps is not None
        index = 0
        while not self._stopping.wait(max(0.0, self._first_s + index / self.fps - time.monotonic())):
            image = self._images[index % len(self._images)]
            yield Frame(image, index, time.monotonic_ns(), self.uri)
            index += 1


def run(
    session: Sleeper, n_cameras: int, fps: float, seconds: float, batch: int, spread: bool
) -> tuple[float, int, int]:
    """Return the largest age at p99 of a camera, and the dropped and all frames."""
    start_s = time.monotonic() + 1.0
    images = camera_images(np.empty((0, HEIGHT, WIDTH, 3), np.uint8), WIDTH, HEIGHT)
    policy = StreamPolicy(max_frames=round(fps * seconds), withhold_still="never")
    cameras = [
        Camera(
            Paced(number, fps, start_s + (number / (n_cameras * fps) if spread else 0.0), images),
            [],
            1e3,
            policy,
            name=f"camera{number}",
        )
        for number in range(n_cameras)
    ]
    found = list(stream_cameras(session, cameras, size=SIZE, batch=batch).cameras.values())
    ages = [one.age_p99_ms for one in found if one.age_p99_ms is not None]
    return max(ages), sum(one.frames_dropped for one in found), sum(one.frames_seen for one in found)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fps", type=float, default=15.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--inference-ms", type=float, default=8.0)
    parser.add_argument("--spread", action="store_true")
    parser.add_argument("--batch", type=int, default=1)
    chosen = parser.parse_args()
    with Sleeper(chosen.inference_ms / 1e3) as session:
        images = camera_images(np.empty((0, HEIGHT, WIDTH, 3), np.uint8), WIDTH, HEIGHT)

        def clocks(batch: int) -> dict[str, Clock]:
            conditions = Conditions(
                ("device", "e2e"), batch, None, chosen.fps, WIDTH, HEIGHT, chosen.seconds / 2, 0.5
            )
            return measure(session, SIZE, 1e3, WHOLE, images, conditions)[0]

        alone = clocks(1)
        e2e, p99_ms = alone["e2e"], alone["e2e"].p99_ms
        if chosen.batch > 1:
            together = clocks(chosen.batch)["device"]
            p99_ms += together.p99_ms / chosen.batch - alone["device"].p50_ms
        capacity = capacity_of(replace(e2e, p99_ms=p99_ms), chosen.fps)
        print(f"e2e: mean {e2e.mean_ms:.2f} ms, p99 {e2e.p99_ms:.2f} ms; a frame {p99_ms:.2f} ms")
        print(capacity.text())
        print("\n| cameras | bound of the age, ms | age at p99, worst camera, ms | dropped |")
        print("|---|---|---|---|")
        # The first number that is beyond the time between two frames.
        more = int(1e3 / chosen.fps / p99_ms) + 1
        for n_cameras in sorted({1, capacity.cameras, capacity.cameras + 1, more}):
            age_ms, dropped, seen = run(
                session, n_cameras, chosen.fps, chosen.seconds, chosen.batch, chosen.spread
            )
            bound_ms = n_cameras * p99_ms / USED_SHARE
            print(f"| {n_cameras} | {bound_ms:.1f} | {age_ms:.1f} | {dropped} of {seen} |", flush=True)


if __name__ == "__main__":
    main()
