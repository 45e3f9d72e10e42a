"""The three clocks, with sessions whose least time is known because they sleep."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from edgead.benchmark.clocks import camera_images, measure
from edgead.benchmark.report import CLOCKS, ROUNDS, Clock, Conditions
from edgead.errors import InputError
from edgead.imaging.preprocess import ModelSize
from edgead.imaging.view import WHOLE, View
from edgead.runtime import FakeSession
from edgead.types import Prediction, UInt8Array

SIZE = ModelSize(32, 64)
SLEEP_S = 0.004


class Sleeper(FakeSession):
    """A session whose inference takes a time for each image, and that counts the images."""

    def __init__(self) -> None:
        super().__init__(SIZE, score=0.1)
        self.batches: list[int] = []

    def infer(self, batch: UInt8Array) -> Prediction:
        self.batches.append(len(batch))
        time.sleep(SLEEP_S * len(batch))
        return super().infer(batch)


def textured(count: int) -> UInt8Array:
    return np.random.default_rng(0).integers(40, 200, (count, 32, 64, 3), np.uint8)


def conditions(*clocks: str, batch: int = 1, seconds: float = 1.0) -> Conditions:
    return Conditions(clocks, batch, None, 60.0, 96, 48, seconds, 0.0)


def measured(*clocks: str, batch: int = 1) -> tuple[dict[str, Clock], Sleeper]:
    session = Sleeper()
    images = camera_images(textured(1), 96, 48)
    found, yardstick_ms = measure(session, SIZE, 0.5, WHOLE, images, conditions(*clocks, batch=batch))
    assert len(yardstick_ms) == ROUNDS
    assert min(yardstick_ms) > 0
    return found, session


def test_every_clock_has_the_inference_in_it_and_only_a_camera_has_ages():
    found, _ = measured(*CLOCKS)
    assert tuple(found) == CLOCKS
    for clock in found.values():
        assert len(clock.round_p50_ms) == ROUNDS
        assert 1e3 * SLEEP_S <= min(clock.round_p50_ms) <= clock.p50_ms
        assert clock.p50_ms <= clock.p90_ms <= clock.p95_ms <= clock.p99_ms
        assert clock.per_second <= 1 / SLEEP_S
    assert found["device"].age_p50_ms is found["e2e"].age_p50_ms is None
    assert found["paced"].age_p50_ms is not None
    assert found["paced"].age_p50_ms >= 1e3 * SLEEP_S
    # The camera gives 12 images in a round.
    assert found["paced"].per_second < 120
    assert found["paced"].count <= ROUNDS * 15


def test_a_batch_is_for_the_device_alone():
    found, session = measured("device", batch=3)
    assert set(session.batches) == {3}
    assert min(found["device"].round_p50_ms) >= 3e3 * SLEEP_S
    _, session = measured("e2e", batch=3)
    # The warm-up has the batch, the stream has single images.
    assert session.batches[:6] == [3] * 6
    assert set(session.batches[6:]) == {1}


def test_all_tiles_of_an_image_are_in_the_clocks_of_the_loop():
    session, images = Sleeper(), camera_images(textured(1), 128, 64)
    found, _ = measure(session, SIZE, 0.5, View(overlap=0), images, conditions("device", "e2e"))
    assert min(found["device"].round_p50_ms) >= 1e3 * SLEEP_S
    # Four tiles of 64 x 32 pixels.
    assert min(found["e2e"].round_p50_ms) >= 4e3 * SLEEP_S
    assert max(session.batches) == 4


def test_images_of_a_camera_have_its_size_and_differ():
    for golden in (textured(2), textured(0)):
        images = camera_images(golden, 96, 48)
        assert {image.shape for image in images} == {(48, 96, 3)}
        assert len({image.tobytes() for image in images}) == len(images)


@pytest.mark.parametrize(
    "change",
    [
        {"clocks": ()},
        {"clocks": ("e2e", "e2e")},
        {"batch": 0},
        {"fps": 0.0},
        {"width_px": 8},
        {"height_px": 10**5},
        {"seconds": 0.1},
        {"warm_up_s": -1.0},
    ],
)
def test_conditions_out_of_range_are_refused(change: dict[str, Any]):
    good: dict[str, Any] = {
        "clocks": ("e2e",),
        "batch": 1,
        "threads": None,
        "fps": 15.0,
        "width_px": None,
        "height_px": None,
    }
    good |= {"seconds": 5.0, "warm_up_s": 1.0}
    Conditions(**good)
    with pytest.raises(InputError):
        Conditions(**{**good, **change})
