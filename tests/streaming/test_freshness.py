import numpy as np
import pytest

from edgead.streaming.freshness import BLANK_LEVELS, Signal, SignalWatch, is_blank, is_same
from tests.helpers.stream_parts import frame, textured


def test_a_frozen_image_is_withheld_and_then_no_signal_and_back() -> None:
    watch = SignalWatch(no_signal_after_s=2.0, now_s=100.0)
    image = textured(50)
    assert watch.is_new(frame(image))
    assert watch.change(True, 100.5) is None
    changes = []
    for now_s in (101.0, 102.0, 102.6, 103.0, 104.0):
        assert not watch.is_new(frame(image.copy()))
        changes.append(watch.change(False, now_s))
    lost = Signal(present=False, reason="the image does not change", silent_s=pytest.approx(2.1))
    assert changes == [None, None, lost, None, None]
    assert watch.is_new(frame(textured(51)))
    assert watch.change(True, 105.0) == Signal(present=True, reason="", silent_s=pytest.approx(4.5))
    assert watch.change(True, 106.0) is None


def test_silence_from_the_start_is_no_signal() -> None:
    watch = SignalWatch(3.0, 0.0)
    assert watch.change(False, 2.9) is None
    assert watch.change(False, 3.0) == Signal(False, "no image comes", 3.0)


def test_the_reason_is_the_latest_one() -> None:
    watch = SignalWatch(1.0, 0.0)
    assert not watch.is_new(frame(np.zeros((40, 40, 3), np.uint8)))
    assert watch.change(False, 1.0) == Signal(False, "the image is of one colour", 1.0)
    assert watch.is_new(frame(textured(3)))
    assert watch.change(True, 2.0) is not None
    assert watch.change(False, 3.5) == Signal(False, "no image comes", 1.5)


def test_an_image_seen_before_but_not_just_before_is_new() -> None:
    watch = SignalWatch(1.0, 0.0)
    assert [watch.is_new(frame(textured(level))) for level in (1, 2, 1, 1)] == [True, True, True, False]


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
