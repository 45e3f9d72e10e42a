"""Drift: alarms come where they should, and false ones no more often than promised."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.stats import beta, norm

from edgead.bundle import open_bundle
from edgead.bundle.validation_records import good_values
from edgead.data import LoadedImages, Sample
from edgead.engine.validation_images import ValidationImages
from edgead.errors import BundleError
from edgead.imaging.image_statistics import IMAGE_STATISTICS, image_statistics
from edgead.runtime import FakeSession
from edgead.scoring.threshold import Threshold, threshold_from_normal_scores
from edgead.streaming import StreamPolicy, stream
from edgead.streaming.drift import CONFIDENCE, DriftWatch
from edgead.types import UInt8Array
from tests.helpers.brightness_bundle import write_brightness_bundle
from tests.helpers.stream_page import level_of
from tests.helpers.stream_parts import SIZE, Records, ScriptedSource, textured


def detected(
    watch: DriftWatch, values: Iterator[float], name: str = "score", most: int = 10_000
) -> int | None:
    """Number of values until the alarm; None if none comes."""
    for number in range(1, most + 1):
        watch.add({name: next(values)})
        if watch.problem is not None:
            return number
    return None


def draws(rng: np.random.Generator, mean: float = 0.0) -> Iterator[float]:
    while True:
        yield from rng.normal(mean, 1.0, 1000)


@pytest.mark.parametrize("n", [10, 30, 320])
def test_the_bound_of_a_limit_holds_for_nearly_all_builds(n: int) -> None:
    # Of uniform values, the share above a limit is known exactly.
    rng = np.random.default_rng(n)
    limits = DriftWatch({"score": rng.random(n).tolist()})._limits
    counts = [round(n / 10), round(n / 10), round(n / 2), round(n / 2)]
    exact = [beta.ppf(1.0 - (1.0 - CONFIDENCE) / 4, k, n + 1 - k) for k in counts]
    assert [limit.bound for limit in limits] == pytest.approx(exact, abs=1e-9)
    missed, builds = 0, 2000
    for _ in range(builds):
        values = np.sort(rng.random(n))
        shares = [
            1.0 - values[n - k] if limit.is_upper else values[k - 1]
            for k, limit in zip(counts, limits, strict=True)
        ]
        missed += any(share > limit.bound for share, limit in zip(shares, limits, strict=True))
    assert missed <= 2.0 * (1.0 - CONFIDENCE) * builds


def test_false_alarms_are_no_more_frequent_than_promised() -> None:
    # The worst good line: as many parts as the bound allows lie beyond the upper limit.
    rng = np.random.default_rng(5)
    every = 100
    watch = DriftWatch({"score": np.linspace(0.0, 1.0, 40).tolist()}, false_alarm_every=every)
    upper = watch._limits[0]
    values = np.where(rng.random(20_000) < upper.bound, 2.0, 0.5)
    alarms, was_alarm = 0, False
    for value in values:
        watch.add({"score": value})
        is_alarm = watch.problem is not None
        alarms += is_alarm and not was_alarm
        was_alarm = is_alarm
        if is_alarm:
            # The promise is about the time to the next alarm, from the start of a watch.
            watch._statistics[:] = 0.0
            watch._problem = None
            was_alarm = False
    assert 0 < alarms <= len(values) / every


@pytest.mark.parametrize(("n", "most"), [(10, 120), (30, 40), (320, 20)])
def test_a_shift_is_found_quickly_upwards_and_downwards_and_its_end_too(n: int, most: int) -> None:
    for sign, word in ((1, "higher"), (-1, "lower")):
        rng = np.random.default_rng(n)
        watch = DriftWatch({"score": rng.normal(size=n).tolist()})
        assert detected(watch, draws(rng), most=2000) is None
        found = detected(watch, draws(rng, 5.0 * sign))
        assert found is not None
        assert found <= most
        assert watch.problem is not None
        assert watch.problem.cause == "drift"
        assert word in watch.problem.reason
        for _ in range(1000):
            watch.add({"score": float(rng.normal())})
        assert watch.problem is None


def test_a_slow_drift_is_found_before_many_parts_exceed_the_threshold() -> None:
    rng = np.random.default_rng(8)
    build = rng.normal(size=300)
    watch, threshold = DriftWatch({"score": build.tolist()}), threshold_from_normal_scores(build, 0.01).value
    for number in range(20_000):
        value = float(rng.normal(number / 5000))
        watch.add({"score": value}, rejected=value > threshold)
        if watch.problem is not None:
            break
    assert watch.problem is not None
    assert norm.sf(threshold - number / 5000) < 0.05


@pytest.mark.parametrize("n", [30, 300])
def test_a_threshold_that_rejects_good_parts_is_no_drift_and_neither_are_defects(n: int) -> None:
    rng = np.random.default_rng(n)
    build = rng.normal(size=n)
    reference = {"score": build.tolist(), "brightness": (100.0 - build).tolist()}
    for threshold, defects in ((0.0, 0.0), (3.0, 0.6)):
        watch = DriftWatch(reference)
        for _ in range(2000):
            value = 9.0 if rng.random() < defects else float(rng.normal())
            watch.add({"score": value, "brightness": 100.0 - value}, rejected=value > threshold)
            assert watch.problem is None


def test_few_unknown_and_missing_values_raise_no_alarm() -> None:
    watch = DriftWatch({"score": [1.0] * 9, "sharpness": np.linspace(0, 1, 50).tolist()})
    assert [one["quantity"] for one in watch.numbers()] == ["sharpness"]
    for _ in range(100):
        watch.add({"score": 1e9, "sharpness": None})
    assert watch.problem is None
    assert watch.numbers()[0]["now"] is None
    watch.add({"score": 0.0, "sharpness": 0.25})
    (shown,) = watch.numbers()
    assert (shown["now"], shown["median"]) == (0.25, 0.5)
    assert (shown["low"], shown["high"]) == pytest.approx((0.1, 0.9))
    DriftWatch({}).add({})


def test_statistics_follow_the_image() -> None:
    rng = np.random.default_rng(2)
    image = cv2.resize(
        rng.integers(60, 180, (32, 32, 3), np.uint8), (256, 256), interpolation=cv2.INTER_NEAREST
    )
    plain, dark = image_statistics(image), image_statistics((image * 0.5).astype(np.uint8))
    blurred = image_statistics(cv2.GaussianBlur(image, (0, 0), 2.0))
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    assert plain["brightness"] == pytest.approx(grey.mean())
    assert plain["contrast"] == pytest.approx(grey.std())
    assert plain["sharpness"] is not None
    assert blurred["sharpness"] is not None
    assert dark["sharpness"] == pytest.approx(plain["sharpness"], rel=0.05)
    assert blurred["sharpness"] < plain["sharpness"] / 2
    assert dark["brightness"] == pytest.approx(plain["brightness"] / 2, rel=0.02)
    flat = image_statistics(np.full((64, 64, 3), 9, np.uint8))
    assert flat == {"brightness": 9.0, "contrast": 0.0, "sharpness": None}


def test_a_build_records_the_values_of_its_good_images_and_a_bundle_gives_them_back(tmp_path: Path) -> None:
    images = np.stack([textured(level, SIZE.height_px, SIZE.width_px) for level in range(40, 60)])
    validation = ValidationImages(
        LoadedImages(images, (Sample(tmp_path, 0),) * len(images), ()), None, 0.1, 0.9
    )
    record = validation.record(validation.scores(FakeSession(SIZE, score=level_of)))
    measured = [image_statistics(image)["brightness"] for image in images]
    assert record["validation_brightness"] == pytest.approx(measured, rel=1e-5)
    threshold = Threshold(100.0, None, None, None, 0, None)
    path = write_brightness_bundle(tmp_path / "bundle", SIZE, threshold, record=record)
    found = good_values(open_bundle(path), "washer")
    assert found["score"] == record["validation_scores"]
    assert {name: len(found[name]) for name in IMAGE_STATISTICS if name in found}.items() >= {
        "brightness": 20
    }.items()
    for wrong in ("x", ["x"], {"0": 1.0}, [True]):
        other = {**record, "validation_contrast": wrong}
        path = write_brightness_bundle(tmp_path / "bundle", SIZE, threshold, record=other)
        with pytest.raises(BundleError):
            good_values(open_bundle(path), "washer")


def test_drift_degrades_a_stream_and_its_end_is_reported() -> None:
    rng = np.random.default_rng(4)
    height, width = SIZE.height_px, SIZE.width_px
    good, dark = (
        [textured(int(level), height, width) for level in rng.integers(*levels)]
        for levels in ((60, 80, 40), (20, 40, 60))
    )
    reference = {"brightness": [image_statistics(image)["brightness"] or 0.0 for image in good]}
    records = Records()

    def script() -> Iterator[UInt8Array]:
        yield from (*good, *dark, *good * 6)

    policy = StreamPolicy("washer", drift=DriftWatch(reference))
    source = ScriptedSource(script, live=False)
    stream(FakeSession(SIZE, score=level_of), source, [records], size=SIZE, threshold=200.0, policy=policy)
    assert records.states == [("starting",), ("running",), ("degraded", "drift"), ("running",), ("stopped",)]
    assert "darker" in records.of("state")[2]["reason"]
