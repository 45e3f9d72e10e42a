from collections.abc import Iterable

import pytest

from edgead.streaming.sources.capture_time import CaptureClock, Timestamps

MS = 1_000_000
PERIOD_MS = 50.0


def ages_ms(clock: CaptureClock, images: Iterable[tuple[float, float]]) -> list[tuple[float, bool]]:
    """Age at its coming, and whether it is in time, of each image: its timestamp and the time at which it comes."""
    found = []
    for stamp_ms, came_ms in images:
        came_ns = round((10_000 + came_ms) * MS)
        captured_ns = clock.captured_at_ns(stamp_ms, came_ns, came_ns)
        found.append((round((came_ns - captured_ns) / MS, 2), clock.in_time))
    return found


def test_an_image_that_was_held_back_longer_than_others_is_as_old() -> None:
    images = [(n * PERIOD_MS, n * PERIOD_MS) for n in range(6)]
    late = [(n * PERIOD_MS, n * PERIOD_MS + 800) for n in range(6, 9)]
    back = [(n * PERIOD_MS, n * PERIOD_MS) for n in range(30, 33)]
    found = ages_ms(CaptureClock("stream"), images + late + back)
    assert [age for age, _ in found[:6]] == [0.0] * 6
    assert [age for age, _ in found[6:9]] == pytest.approx([800] * 3, abs=1)
    assert [age for age, _ in found[9:]] == pytest.approx([0] * 3, abs=1)


def test_a_backlog_after_the_opening_is_not_in_time() -> None:
    # 40 images wait and come at once; the camera makes another one every 50 ms.
    waiting = [(n * PERIOD_MS, n * 2.0) for n in range(40)]
    then = [(n * PERIOD_MS, (n - 39) * PERIOD_MS + 80) for n in range(40, 46)]
    in_time = [each for _, each in ages_ms(CaptureClock("stream"), waiting + then)]
    assert not any(in_time[:41])
    assert all(in_time[-2:])


def test_a_camera_with_one_image_a_second_is_in_time_with_its_second_image() -> None:
    assert [each for _, each in ages_ms(CaptureClock("stream"), [(0, 0), (1000, 1000)])] == [False, True]


def test_a_decoder_that_holds_an_image_back_makes_each_one_period_older() -> None:
    found = ages_ms(CaptureClock("stream", 1), [(n * PERIOD_MS, n * PERIOD_MS) for n in range(5)])
    assert [age for age, _ in found[1:]] == [PERIOD_MS] * 4


def test_clocks_that_drift_apart_make_no_image_old() -> None:
    # 100 parts in a million for an hour.
    images = [(n * 1000.0, n * 1000.1) for n in range(3600)]
    assert max(age for age, _ in ages_ms(CaptureClock("stream"), images)) < 1.0


@pytest.mark.parametrize(
    ("stamp_ms", "age_ms"), [(10_000 - 30, 30), (10_000 + 5, 0), (0.0, 10_000), (-1e9, 0)]
)
def test_the_time_of_a_buffer_is_taken_unless_it_is_of_another_clock(stamp_ms: float, age_ms: float) -> None:
    assert ages_ms(CaptureClock("monotonic"), [(stamp_ms, 0.0)]) == [(age_ms, True)]


def test_a_buffer_from_before_a_stop_of_the_process_is_old() -> None:
    found = ages_ms(CaptureClock("monotonic"), [(10_000 - 30, 0.0), (10_010, 120_000.0)])
    assert [age for age, _ in found] == pytest.approx([30.0, 119_990.0])


def test_an_image_is_as_old_as_its_request() -> None:
    assert CaptureClock("request").captured_at_ns(0.0, 70, 90) == 70


def test_without_timestamps_the_images_after_a_gap_are_a_backlog() -> None:
    steady = [(0.0, n * PERIOD_MS) for n in range(12)]
    # After 3 seconds the buffers of the network give 20 images at once.
    waiting = [(0.0, 3000 + n * 2.0) for n in range(20)]
    then = [(0.0, 3040 + n * PERIOD_MS) for n in range(1, 6)]
    found = ages_ms(CaptureClock("none"), steady + waiting + then)
    assert [each for _, each in found[:12]] == [True] * 12
    assert not any(each for _, each in found[12:32])
    assert all(each for _, each in found[-2:])
    assert {age for age, _ in found} == {0.0}


def test_without_timestamps_a_camera_that_comes_back_faster_is_not_a_backlog_for_ever() -> None:
    clock = CaptureClock("none")
    ages_ms(clock, [(0.0, n * 100.0) for n in range(12)])
    assert not ages_ms(clock, [(0.0, 5000.0)])[0][1]
    assert ages_ms(clock, [(0.0, 5000 + n * 33.0) for n in range(1, 70)])[-1][1]


@pytest.mark.parametrize("timestamps", ["stream", "none", "monotonic", "request"])
def test_no_image_is_newer_than_its_coming(timestamps: Timestamps) -> None:
    clock = CaptureClock(timestamps)
    stamps = [0.0, 50.0, 20.0, 1e7, 100.0, -5.0]
    assert min(age for age, _ in ages_ms(clock, [(stamp, 50.0 * n) for n, stamp in enumerate(stamps)])) >= 0.0
