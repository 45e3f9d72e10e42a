import time

import numpy as np
import pytest

from edgead.imaging.view import View, read_roi
from edgead.streaming.exposure import ExposureLimits
from edgead.streaming.freshness import (
    BLANK_LEVELS,
    FrameCheck,
    Problem,
    SignalWatch,
    is_blank,
    is_same,
)
from edgead.streaming.policy import StreamPolicy
from edgead.streaming.standstill import STILL_AFTER_S
from edgead.types import Frame, UInt8Array
from tests.helpers.stream_parts import textured

DARK = Problem("dark", "dark")
BLACK = Problem("one_colour", "black")


def causes(
    images: list[UInt8Array], policy: StreamPolicy | None = None, fps: float = 10.0
) -> list[str | None]:
    """Causes of the frames of a camera, without waiting for them."""
    check = FrameCheck(policy or StreamPolicy(), 1.0)
    found = []
    for number, image in enumerate(images):
        now_ns = round(1e9 * (100 + number / fps))
        problem = check.problem(Frame(image, number, now_ns, "test"), now_ns)
        found.append(None if problem is None else problem.cause)
    return found


def noisy(level: float, sigma: float, seed: int, height: int = 96, width: int = 128) -> UInt8Array:
    noise = np.random.default_rng(seed).normal(level, sigma, (height, width, 3))
    return np.clip(noise, 0, 255).astype(np.uint8)


def test_a_repeated_image_is_withheld_until_another_one_comes() -> None:
    image = textured(50)
    assert causes([image, image.copy(), image.copy(), textured(51), image]) == [
        None, "unchanged", "unchanged", None, None,
    ]  # fmt: skip


@pytest.mark.parametrize(("level", "cause"), [(8, "dark"), (251, "overexposed"), (60, None), (200, None)])
def test_noise_without_light_is_dark_and_a_full_sensor_is_overexposed(
    level: float, cause: str | None
) -> None:
    images = [noisy(level, 12 if level < 100 else 6, seed) for seed in range(3)]
    assert causes(images) == [cause] * 3


def test_what_the_images_of_the_bundle_look_like_is_neither_dark_nor_overexposed() -> None:
    for level, cause in ((8, "dark"), (251, "overexposed")):
        images = [noisy(level, 2, seed) for seed in range(2)]
        limits = ExposureLimits.from_images(noisy(level, 2, seed, 64, 64) for seed in range(10, 12))
        assert causes(images, StreamPolicy(exposure=limits)) == [None, None]
        assert causes(images) == [cause, cause]


def test_an_image_of_another_size_is_withheld() -> None:
    images = [textured(50), textured(51, 96, 160), textured(52, 48, 64), textured(53)]
    assert causes(images) == [None, "size", "size", None]


@pytest.mark.parametrize(
    ("withhold_still", "frozen", "still"),
    [("frozen", "frozen", None), ("always", "frozen", "standstill"), ("never", None, None)],
)
def test_the_policy_chooses_what_happens_to_images_that_stand_still(
    withhold_still: str, frozen: str | None, still: str | None
) -> None:
    policy = StreamPolicy(withhold_still=withhold_still)
    one, other = textured(90), textured(90)
    # An encoder changes single pixels of a frozen image.
    other[5, 5] += 1
    frames = round((STILL_AFTER_S + 1) * 10)
    found = causes([one, other] * (frames // 2), policy)
    assert found[-1] == frozen
    # Before an image without movement and noise can be a second old, which is the limit.
    assert found[:8] == [None] * 8
    assert found[10] == (frozen and "unchanged")
    assert causes([noisy(90, 3, seed) for seed in range(frames)], policy)[-1] == still


def test_an_old_image_is_late() -> None:
    check = FrameCheck(StreamPolicy(), 0.5)
    now_ns = time.monotonic_ns()
    ages_s = (0.0, 0.49, 0.51, 5.0)
    frames = [Frame(textured(50 + i), i, now_ns - round(age * 1e9), "test") for i, age in enumerate(ages_s)]
    problems = [check.problem(each, now_ns) for each in frames]
    assert [None if problem is None else problem.cause for problem in problems] == [
        None,
        None,
        "late",
        "late",
    ]


def causes_of(watch: SignalWatch, *steps: tuple[float, Problem | bool | None]) -> list[str | None]:
    """Causes of a loss after each step: a time, and a problem, True for a good frame, or None for no frame."""
    found = []
    for now_s, came in steps:
        problem = came if isinstance(came, Problem) else None
        loss = watch.loss(problem, came is True, now_s)
        found.append(None if loss is None else loss.cause)
    return found


def test_silence_is_no_signal_and_a_good_frame_ends_it() -> None:
    watch = SignalWatch(3.0, 0.0)
    assert causes_of(watch, (2.9, None), (3.0, None), (4.0, None), (5.0, True), (6.0, True)) == [
        None, "no_image", "no_image", None, None,
    ]  # fmt: skip
    assert watch.silent_s(6.5) == 0.5


def test_the_cause_is_always_the_present_one() -> None:
    # At the end the frames have stopped.
    steps = (2.0, None), (2.5, BLACK), (3.0, None), (3.1, DARK), (3.2, DARK), (4.5, None), (5.0, True)
    assert causes_of(SignalWatch(2.0, 0.0), *steps) == [
        "no_image", "one_colour", "one_colour", "dark", "dark", "no_image", None,
    ]  # fmt: skip


def test_a_problem_is_reported_after_the_time_without_a_signal_and_some_at_once() -> None:
    assert causes_of(SignalWatch(2.0, 0.0), (1.9, DARK), (2.0, DARK)) == [None, "dark"]
    assert causes_of(SignalWatch(2.0, 0.0), (0.1, Problem("frozen", "frozen"))) == ["frozen"]
    assert causes_of(SignalWatch(2.0, 0.0), (0.1, Problem("size", "another size"))) == ["size"]


def test_a_known_trouble_is_reported_before_silence_is() -> None:
    def watch() -> SignalWatch:
        return SignalWatch(60.0, 0.0, trouble_after_s=3.0, no_image="no new image comes")

    first, second = watch(), watch()
    assert first.loss(None, False, 30.0) is None
    lost = first.loss(None, False, 31.0, "the share is away")
    assert lost == Problem("no_image", "no new image comes: the share is away")
    assert second.loss(None, False, 60.0) == Problem("no_image", "no new image comes")


@pytest.mark.parametrize("place", [(0, 0, 0), (33, 47, 2), (39, 63, 1), (16, 16, 1)])
def test_one_level_of_one_pixel_makes_an_image_new(place: tuple[int, int, int]) -> None:
    image = textured(50, 40, 64)
    other = image.copy()
    other[place] += 1
    assert is_same(image, image.copy())
    assert not is_same(image, other)
    assert not is_same(image, image[:-1])


@pytest.mark.parametrize("colour", [(0, 0, 0), (0, 0, 255), (255, 255, 255), (17, 200, 90)])
def test_images_of_one_colour_are_blank_with_the_noise_of_compression(colour: tuple[int, ...]) -> None:
    noise = np.random.default_rng(0).integers(0, BLANK_LEVELS + 1, (50, 70, 3))
    assert is_blank(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8))


@pytest.mark.parametrize("place", [(0, 0, 0), (33, 47, 2), (49, 69, 1)])
def test_a_single_speck_is_no_blank(place: tuple[int, int, int]) -> None:
    image = np.zeros((50, 70, 3), np.uint8)
    image[place] = BLANK_LEVELS + 1
    assert not is_blank(image)


def test_light_is_measured_in_the_region_of_interest() -> None:
    image = noisy(8, 3, 0)
    image[:, 64:] = noisy(120, 12, 1, 96, 64)
    assert causes([image]) == [None]
    assert causes([image], StreamPolicy(view=View(roi=read_roi("0,0,64,96")))) == ["dark"]
