"""The golden check at every start: a session that does not give the answers of its bundle is refused."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgead import runtime
from edgead.bundle import Bundle, Manifest, write_bundle
from edgead.bundle.golden import golden_bytes
from edgead.errors import BackendError, BundleError, VerificationError
from edgead.imaging.preprocess import ModelSize
from edgead.runtime import FakeSession, open_session
from edgead.runtime.environment import this_environment
from edgead.runtime.golden_check import check_golden, rebuild_command
from edgead.scoring.threshold import Threshold
from edgead.types import Prediction
from tests.helpers.brightness_bundle import brightness_model
from tests.helpers.golden_answers import LIMITS, golden_of

SIZE = ModelSize(32, 64)
# Grey images of 20, 60, 100, ... of 255, so their scores are known without any session.
GREYS = np.arange(20, 256, 40)
IMAGES = np.broadcast_to(GREYS[:, None, None, None], (len(GREYS), 32, 64, 3)).astype(np.uint8)
EXPECTED = (GREYS / 255).astype(np.float32)
# In the middle between 100 and 140.
THRESHOLD = 120 / 255


class Device(FakeSession):
    """A session with an error in its maps, in its scores, or in one pixel of the first image."""

    def __init__(self, maps: float = 0.0, scores: float = 0.0, pixel: float = 0.0) -> None:
        super().__init__(SIZE)
        self.maps, self.scores, self.pixel, self.is_closed = maps, scores, pixel, False

    def infer(self, batch: np.ndarray) -> Prediction:
        exact = super().infer(batch)
        exact.anomaly_map[0, 0, 3, 4] += np.float32(self.pixel)
        return Prediction(
            exact.anomaly_map + np.float32(self.maps), exact.anomaly_score + np.float32(self.scores)
        )

    def close(self) -> None:
        super().close()
        self.is_closed = True


def bundle_of(
    path: Path,
    limits: Any = LIMITS,
    *,
    verified: bool = False,
    off: float = 0.0,
    threshold: float = THRESHOLD,
    validation_images: int = len(GREYS) + 1,
    int8: Mapping[str, Any] | None = None,
) -> Bundle:
    """int8: errors that the build of an INT8 bundle measured; None for a float32 bundle."""
    golden = golden_of(Device(maps=off, scores=off).infer, IMAGES)
    # The scores of the grey images are known without any session.
    np.testing.assert_allclose(golden.anomaly_score[:-1], EXPECTED + np.float32(off), atol=1e-6)
    manifest = Manifest(
        method="rd",
        teacher="none",
        backend="onnxruntime",
        target="cpu",
        precision="fp32" if int8 is None else "int8",
        size=SIZE,
        thresholds={"washer": Threshold(threshold, 0.01, 0.95, 0.96, 320, 299)},
        training={},
        verification={}
        if limits is None
        else {"parts": {"washer": {"limits": limits, "n": validation_images, **(int8 or {})}}},
        verified=verified,
        verified_on=this_environment().to_json(),
    )
    files = {"model.onnx": brightness_model().SerializeToString(), "golden.npz": golden_bytes(golden)}
    return write_bundle(path, manifest, files)


def figures(error: VerificationError, bundle: Bundle) -> list[float]:
    """Images; error and limit of the maps; error and limit of the scores; flips and their limit."""
    text = error.what.removeprefix(str(bundle.path))
    numbers = re.findall(r"(?<![\w.])(?:inf|\d+(?:\.\d+)?(?:e[-+]\d+)?)(?!\w)", text)
    return [float(number) for number in numbers[:7]]


@pytest.mark.parametrize(
    "device",
    [
        Device(),
        # Just within: 0.02 of the threshold in the maps and 0.01 in the scores are allowed.
        Device(maps=0.0199 * THRESHOLD, scores=0.0099 * THRESHOLD),
        Device(maps=-0.0199 * THRESHOLD, scores=-0.0099 * THRESHOLD),
        Device(pixel=0.0199 * THRESHOLD),
    ],
)
def test_answers_within_the_limits_pass(device: Device, tmp_path: Path) -> None:
    check_golden(device, bundle_of(tmp_path / "x"))
    # The session is still open, because it is used after the check.
    device.infer(IMAGES)


def test_the_check_takes_no_more_memory_than_a_stream(tmp_path: Path) -> None:
    """A larger batch takes memory that ONNX Runtime keeps to the end of the process."""
    sizes = []

    class Counted(Device):
        def infer(self, batch: np.ndarray) -> Prediction:
            sizes.append(len(batch))
            return super().infer(batch)

    check_golden(Counted(), bundle_of(tmp_path / "x"))
    assert sizes == [1] * (len(GREYS) + 1)


@pytest.mark.parametrize(
    ("device", "map_error", "score_error"),
    [
        (Device(maps=0.0201 * THRESHOLD), 0.0201, 0.0),
        (Device(maps=-0.5 * THRESHOLD), 0.5, 0.0),
        (Device(pixel=0.25 * THRESHOLD), 0.25, 0.0),
        (Device(scores=0.0101 * THRESHOLD), 0.0, 0.0101),
        (Device(scores=0.25 * THRESHOLD), 0.0, 0.25),
        (Device(maps=float("nan")), np.inf, 0.0),
        (Device(scores=float("nan")), 0.0, np.inf),
        (Device(scores=float("inf")), 0.0, np.inf),
        (Device(pixel=float("nan")), np.inf, 0.0),
        (Device(pixel=float("inf")), np.inf, 0.0),
        (Device(pixel=float("-inf")), np.inf, 0.0),
    ],
)
def test_other_answers_are_refused(
    device: Device, map_error: float, score_error: float, tmp_path: Path
) -> None:
    bundle = bundle_of(tmp_path / "x")
    with pytest.raises(VerificationError) as refusal:
        check_golden(device, bundle)
    assert refusal.value.exit_code == 3
    assert "\n" not in str(refusal.value)
    assert figures(refusal.value, bundle)[:5] == [len(IMAGES) + 1, map_error, 0.02, score_error, 0.01]
    assert refusal.value.hint == f"edgead build {bundle.path} --target cpu --out {bundle.path}-here"
    assert refusal.value.hint == rebuild_command(bundle)


@pytest.mark.parametrize(("scores", "flips"), [(0.1, 1), (0.25, 2), (-0.1, 1)])
def test_flips_count_where_errors_may_be_large(scores: float, flips: int, tmp_path: Path) -> None:
    # Scores are 0.078, 0.235, 0.392 | 0.549, 0.706, 0.863 with the threshold 0.471 between.
    wide = {**LIMITS, "map_error_max": 1.0, "score_error_max": 1.0}
    bundle = bundle_of(tmp_path / "x", wide)
    with pytest.raises(VerificationError) as refusal:
        check_golden(Device(scores=scores), bundle)
    assert figures(refusal.value, bundle)[5:] == [flips, 0]
    check_golden(Device(scores=scores), bundle_of(tmp_path / "y", {**wide, "decision_flips_max": flips}))


@pytest.mark.parametrize("rounding", [1e-6, -1e-6, 0.0038])
def test_on_the_image_that_set_the_threshold_rounding_decides_nothing(
    rounding: float, tmp_path: Path
) -> None:
    # A build sets the threshold on a good image's own score, and that image may be among the golden ones.
    bundle = bundle_of(tmp_path / "x", threshold=float(EXPECTED[2]))
    check_golden(Device(maps=rounding, scores=rounding), bundle)
    # A score 2.2 % below the threshold is outside the rounding, so a flip there is another answer.
    near = bundle_of(tmp_path / "y", threshold=float(EXPECTED[2]) + 0.0085)
    with pytest.raises(VerificationError) as refusal:
        check_golden(Device(maps=0.009, scores=0.009), near)
    assert figures(refusal.value, near)[5:] == [1, 0]


@pytest.mark.parametrize("name", ["map_error_max", "score_error_max", "decision_flips_max"])
@pytest.mark.parametrize("value", [None, "1", True, -1e-9, 1e10, [0.1], {}, 10**400])
def test_limits_that_are_no_numbers_are_refused(name: str, value: Any, tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path / "x", {**LIMITS, name: value})
    with pytest.raises(BundleError) as refusal:
        check_golden(Device(), bundle)
    assert name in refusal.value.what
    assert "edgead build" in str(refusal.value.hint)
    assert "\n" not in str(refusal.value)


class Scaled(Device):
    """A session with values that are 6 % too large: their roots of degree 3 are 1.96 % too large."""

    def infer(self, batch: np.ndarray) -> Prediction:
        exact = super().infer(batch)
        return Prediction(exact.anomaly_map * np.float32(1.06), exact.anomaly_score * np.float32(1.06))


@pytest.mark.parametrize("name", ["map_error_max", "score_error_max"])
def test_the_errors_of_a_product_are_those_of_its_root(name: str, tmp_path: Path) -> None:
    wide = {**LIMITS, "map_error_max": 1.0, "score_error_max": 1.0}
    check_golden(Scaled(), bundle_of(tmp_path / "x", {**wide, name: 0.0197, "factors": 3}))
    for number, limits in enumerate(({name: 0.0195, "factors": 3}, {name: 0.05, "factors": 1})):
        with pytest.raises(VerificationError):
            check_golden(Scaled(), bundle_of(tmp_path / str(number), {**wide, **limits}))


@pytest.mark.parametrize(
    ("measured", "allowed"),
    # Twice the error of the build, but at least a sixth of its limit and at most the limit.
    [(0.06, 0.12), (0.001, 0.05), (0.29, 0.3)],
)
@pytest.mark.parametrize("what", ["maps", "scores"])
def test_an_int8_session_may_err_twice_as_much_as_rounding(
    what: str, measured: float, allowed: float, tmp_path: Path
) -> None:
    limits = {**LIMITS, "map_error_max": 0.3, "score_error_max": 0.3, "decision_flips_max": len(GREYS)}
    errors = {"map_error_max": 0.3, "score_error_max": 0.3}
    errors["map_error_max" if what == "maps" else "score_error_max"] = measured
    bundle = bundle_of(tmp_path / "x", limits, int8=errors)
    check_golden(Device(**{what: 0.99 * allowed * THRESHOLD}), bundle)
    with pytest.raises(VerificationError):
        check_golden(Device(**{what: 1.01 * allowed * THRESHOLD}), bundle)


@pytest.mark.parametrize("measured", [{}, {"map_error_max": None}, {"map_error_max": "low"}])
def test_an_int8_bundle_without_measured_errors_is_refused(measured: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        check_golden(Device(), bundle_of(tmp_path / "x", int8=measured))


@pytest.mark.parametrize("factors", [None, "3", True, 0, 2.5, -1, float(10**8) + 0.5])
def test_another_number_of_multiplied_scales_than_a_count_is_refused(factors: Any, tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path / "x", {**LIMITS, "factors": factors})
    with pytest.raises(BundleError) as refusal:
        check_golden(Device(), bundle)
    assert "edgead build" in str(refusal.value.hint)


@pytest.mark.parametrize("limits", [None, [], "wide", {}, {"map_error": 1.0}])
def test_a_bundle_without_limits_is_refused(limits: Any, tmp_path: Path) -> None:
    with pytest.raises(BundleError) as refusal:
        check_golden(Device(), bundle_of(tmp_path / "x", limits))
    assert "map_error_max" in refusal.value.what


def test_a_bundle_without_golden_answers_is_refused(tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path / "x")
    bare = write_bundle(tmp_path / "y", bundle.manifest, {"model.onnx": bundle.file("model.onnx")})
    with pytest.raises(BundleError, match=r"golden\.npz"):
        open_session(bare)


@pytest.mark.parametrize("verified", [False, True])
def test_every_session_is_compared_when_it_opens_wherever_it_was_verified(
    tmp_path: Path, verified: bool
) -> None:
    with pytest.raises(VerificationError):
        open_session(bundle_of(tmp_path / "wrong", verified=verified, off=0.3))
    with open_session(bundle_of(tmp_path / "right", verified=verified)) as session:
        np.testing.assert_allclose(session.infer(IMAGES).anomaly_score, EXPECTED, atol=1e-6)


class Unplugged(Device):
    def infer(self, batch: np.ndarray) -> Prediction:
        raise BackendError("the GPU is gone", hint="plug it in")


class Interrupted(Device):
    def infer(self, batch: np.ndarray) -> Prediction:
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: Device(maps=0.5), VerificationError),
        (Unplugged, BackendError),
        (Interrupted, KeyboardInterrupt),
    ],
)
def test_a_session_that_is_refused_is_closed(
    make: Callable[[], Device], error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = make()
    monkeypatch.setattr(runtime, "_opened", lambda bundle, threads: device)
    with pytest.raises(error):
        open_session(bundle_of(tmp_path / "x"))
    assert device.is_closed


def test_a_session_that_passes_stays_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device()
    monkeypatch.setattr(runtime, "_opened", lambda bundle, threads: device)
    assert open_session(bundle_of(tmp_path / "x")) is device
    assert not device.is_closed


def test_flips_are_allowed_as_a_share_of_the_images(tmp_path: Path) -> None:
    # One decision of seven images flips. One of seven is allowed; eight of sixty are 0.93 of seven, rounded down to 0.
    wide = {**LIMITS, "map_error_max": 1.0, "score_error_max": 1.0}
    check_golden(Device(scores=0.1), bundle_of(tmp_path / "x", {**wide, "decision_flips_max": 1}))
    many = bundle_of(tmp_path / "y", {**wide, "decision_flips_max": 8}, validation_images=60)
    with pytest.raises(VerificationError) as refusal:
        check_golden(Device(scores=0.1), many)
    assert figures(refusal.value, many)[5:] == [1, 0]


def test_an_engine_is_proven_at_every_start_wherever_it_was_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = bundle_of(tmp_path / "x", verified=True)
    engine = replace(bundle, manifest=replace(bundle.manifest, backend="tensorrt"))
    off = Device(maps=0.5)
    monkeypatch.setattr("edgead.runtime._opened", lambda *_: off)
    with pytest.raises(VerificationError):
        open_session(engine)
    assert off.is_closed


def test_the_rebuild_command_of_a_hostile_bundle_is_quoted(tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path / "my line")
    hostile = replace(bundle, manifest=replace(bundle.manifest, target="x; touch y"))
    assert shlex.split(rebuild_command(hostile)) == [
        "edgead",
        "build",
        str(tmp_path / "my line"),
        "--target",
        "x; touch y",
        "--out",
        f"{tmp_path / 'my line'}-here",
    ]
