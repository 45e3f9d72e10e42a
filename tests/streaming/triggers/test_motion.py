"""Parts that enter a zone of the image: synthetic scenes with the noise of a sensor."""

from collections.abc import Iterable

import numpy as np
import pytest

from edgead.errors import InputError
from edgead.streaming import open_trigger
from edgead.streaming.triggers import motion
from edgead.types import Frame, UInt8Array
from tests.helpers.trigger_parts import Announced

HEIGHT, WIDTH, FPS = 120, 160, 20
RNG = np.random.default_rng(5)
BELT = RNG.integers(80, 120, (HEIGHT, WIDTH, 1)).repeat(3, axis=2)


def scene(part_x: int | None, *, noise: float = 2.0, light: float = 1.0, grey: int = 170) -> UInt8Array:
    """A belt with a part of 40 x 60 pixels whose left edge is at `part_x`."""
    image = BELT.astype(float)
    if part_x is not None:
        image[30:90, max(0, part_x) : max(0, part_x + 40)] = grey
    noisy = image * light + RNG.normal(0.0, noise, image.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


class Camera:
    """A camera with a trigger that looks at its images."""

    def __init__(self, address: str = "motion:") -> None:
        self.line, self.index = Announced(), 0
        open_trigger(address).start(self.line)

    def show(self, images: Iterable[UInt8Array]) -> list[int]:
        """Show images; the numbers of those, from 0, that announced a part."""
        found = []
        for number, image in enumerate(images):
            frame = Frame(image, self.index, self.index * 10**9 // FPS, "test")
            self.index += 1
            before = len(self.line.poll())
            self.line.needs(frame)
            if len(self.line.poll()) > before:
                found.append(number)
                # The image that announces a part is the first of the part.
                assert self.line.got[-1].triggered_ns == frame.captured_at_ns
        return found

    def learn(self, **how: float) -> None:
        assert self.line.trouble is not None
        assert self.show(scene(None, **how) for _ in range(2 * FPS + 4)) == []  # type: ignore[arg-type]
        assert self.line.trouble is None


# The zone is from 64 to 96, and a part covers enough of it with its right edge at 70.
PASSING = range(-40, WIDTH, 4)


@pytest.mark.parametrize("noise", [0.0, 2.0, 8.0])
def test_each_part_that_passes_is_found_once_when_it_enters_the_zone(noise: float) -> None:
    camera = Camera()
    camera.learn(noise=noise)
    for _ in range(3):
        (found,) = camera.show(scene(x, noise=noise) for x in PASSING)
        assert 64 <= PASSING[found] + 40 <= 80
        assert camera.show(scene(None, noise=noise) for _ in range(5)) == []
    assert camera.line.trouble is None


def test_a_part_that_stops_in_the_zone_is_found_once() -> None:
    camera = Camera()
    camera.learn()
    assert len(camera.show(scene(x) for x in [*range(-40, 60, 4), *[60] * 60, *range(60, WIDTH, 4)])) == 1
    assert len(camera.show(scene(x) for x in PASSING)) == 1


def test_an_empty_belt_announces_nothing_although_its_light_changes_slowly() -> None:
    camera = Camera()
    camera.learn()
    assert camera.show(scene(None, light=1.0 + 0.2 * n / 200) for n in range(200)) == []
    assert len(camera.show(scene(x, light=1.2) for x in PASSING)) == 1


def test_nothing_is_learnt_while_something_moves() -> None:
    camera = Camera()
    assert camera.show(scene(x) for x in [*range(28, 96, 4)] * 4) == []
    assert camera.line.trouble is not None
    camera.learn()
    assert len(camera.show(scene(x) for x in PASSING)) == 1


def test_a_zone_that_stays_covered_is_a_trouble_until_it_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(motion, "COVERED_S", 2.0)
    camera = Camera()
    camera.learn()
    assert len(camera.show(scene(60) for _ in range(3 * FPS))) == 1
    assert camera.line.trouble is not None
    camera.show(scene(None) for _ in range(3))
    assert camera.line.trouble is None


def test_a_pause_and_a_new_size_learn_anew() -> None:
    camera = Camera()
    camera.learn()
    camera.line.pause()
    camera.show(scene(None, light=2.0) for _ in range(FPS))
    camera.line.resume()
    camera.learn(light=2.0)
    small = [scene(None)[::2, ::2] for _ in range(2 * FPS)]
    assert camera.show(small[:3]) == []
    assert camera.line.trouble is not None
    assert camera.show(small) == []
    assert camera.line.trouble is None
    assert len(camera.show(scene(x)[::2, ::2] for x in PASSING)) == 1


def test_the_zone_can_be_elsewhere() -> None:
    camera = Camera("motion:?zone=0,0,1,0.2")
    camera.learn()
    assert camera.show(scene(x) for x in PASSING) == []
    camera = Camera("motion:?zone=0.8,0.4,0.2,0.2")
    camera.learn()
    (found,) = camera.show(scene(x) for x in PASSING)
    assert 128 <= PASSING[found] + 40 <= 144


@pytest.mark.parametrize(
    "target", ["zone", "?zone=1,2,3", "?zone=0,0,1.1,1", "?zone=0.5,0,0.6,1", "?zone=0,0,0,1", "?zone=nan,0,1,1",
               "?zone=-0.1,0,1,1", "?other=1"],
)  # fmt: skip
def test_a_zone_outside_the_image_is_refused(target: str) -> None:
    with pytest.raises(InputError):
        open_trigger(f"motion:{target}")
