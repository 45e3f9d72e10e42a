from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

import edgead
from edgead.errors import InputError
from edgead.imaging.sharpness import sharpness
from edgead.imaging.view import WHOLE
from edgead.scoring.threshold import Threshold
from edgead.streaming import StreamPolicy
from edgead.streaming.exposure import BRIGHT_LEVEL, DARK_LEVEL, ExposureLimits
from edgead.streaming.plan import CameraPlan
from edgead.streaming.start import _policy
from tests.helpers.brightness_bundle import write_brightness_bundle
from tests.helpers.stream_parts import SIZE


@pytest.mark.parametrize(("fps", "max_age_s"), [(None, 1.0), (25.0, 1.0), (3.0, 1.0), (0.5, 6.0)])
def test_the_default_age_is_a_second_or_three_images_of_a_slower_camera(
    fps: float | None, max_age_s: float
) -> None:
    assert StreamPolicy().max_age_of(fps) == max_age_s
    assert StreamPolicy(max_age_s=0.2).max_age_of(fps) == 0.2


@pytest.mark.parametrize(
    "options", [{"max_age": 0.0}, {"max_age": float("inf")}, {"max_age": float("nan")}, {"withhold_still": "yes"}]
)  # fmt: skip
def test_options_out_of_range_are_refused(options: dict[str, object], tmp_path: Path) -> None:
    bundle = write_brightness_bundle(tmp_path / "bundle", SIZE, Threshold(0.5, 0.01, 0.95, 0.96, 320, 299))
    with pytest.raises(InputError) as caught:
        edgead.stream(bundle, "synthetic:washer", [], **options)  # type: ignore[arg-type]
    assert str(next(iter(options.values()))) in caught.value.what


def test_the_limits_of_exposure_come_from_the_images_of_the_part(tmp_path: Path) -> None:
    threshold = Threshold(0.5, 0.01, 0.95, 0.96, 320, 299)
    parts = {"nut": threshold, "washer": threshold}
    bundle = edgead.open_bundle(write_brightness_bundle(tmp_path / "bundle", SIZE, parts))
    golden = bundle.golden()
    with edgead.load(bundle) as model:
        for number, part in enumerate(parts):
            images = model.golden_images(part)
            # Without the chart, which is the last.
            np.testing.assert_array_equal(images, golden.images[:-1][golden.part[:-1] == number])
            assert len(images) > 0


def test_the_edges_of_synthetic_defects_set_no_limit_for_blur() -> None:
    good = np.full((1, 64, 64, 3), 90, np.uint8)
    defect = good.copy()
    defect[:, 20:30, 20:30] = 255
    assert sharpness(defect[0]) is not None
    both = np.concatenate([good, defect])
    model = SimpleNamespace(golden_images=lambda part: both, bundle=None, view=WHOLE)
    assert _policy(cast("Any", model), CameraPlan("frames"), "washer").sharpness is None


def test_limits_without_images_are_the_general_ones_and_images_only_widen_them() -> None:
    assert ExposureLimits.from_images([]) == ExposureLimits(DARK_LEVEL, BRIGHT_LEVEL)
    ordinary = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    assert ExposureLimits.from_images([ordinary]) == ExposureLimits(DARK_LEVEL, BRIGHT_LEVEL)
    dark = ExposureLimits.from_images([np.full((64, 64, 3), 10, np.uint8)])
    assert (dark.dark, dark.bright) == (5.0, BRIGHT_LEVEL)
