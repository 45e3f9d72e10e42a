from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgead.streaming import open_source
from edgead.streaming.standstill import STILL_AFTER_S, StandstillWatch
from edgead.types import UInt8Array
from tests.helpers.h264_file import write_h264
from tests.helpers.rtsp_camera import needs_rtsp

FPS = 10
SHAPE = (120, 160)
ENCODERS = {
    "good": "bitrate=800 key-int-max=30 speed-preset=veryfast",
    "camera": "tune=zerolatency bitrate=600 key-int-max=15 speed-preset=ultrafast",
    "low": "tune=zerolatency bitrate=40 key-int-max=20 speed-preset=ultrafast",
}


def scene(part_px: int) -> np.ndarray:
    """A textured background with a bright part at a place."""
    rng = np.random.default_rng(5)
    image = 110 + 90 * cv2.GaussianBlur(rng.normal(0, 1, SHAPE), (0, 0), 4)
    image[40:80, part_px : part_px + 30] = 200
    return np.asarray(image)


def camera(kind: str, seconds: float, noise: float = 1.5) -> Iterator[UInt8Array]:
    """Images of a camera with noise: a part that "moves" or is "still", or one image again and again: "frozen"."""
    rng = np.random.default_rng(6)
    for number in range(round(seconds * FPS)):
        if kind != "frozen" or number == 0:
            clean = scene(4 * number % 120 if kind == "moves" else 60)
            image = np.clip(clean + rng.normal(0, noise, SHAPE), 0, 255).astype(np.uint8)
        yield image


def states(
    images: Iterator[UInt8Array], watch: StandstillWatch | None = None, start_s: float = 0.0
) -> list[str]:
    watch = watch or StandstillWatch()
    return [watch.state(image, start_s + number / FPS) for number, image in enumerate(images)]


def decoded(path: Path) -> Iterator[UInt8Array]:
    with open_source(str(path)) as source:
        for frame in source:
            yield frame.image


@needs_rtsp
@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize(
    ("kind", "expected"), [("moves", "moving"), ("still", "still"), ("frozen", "frozen")]
)
def test_a_frozen_camera_behind_an_encoder_is_told_from_a_still_line(
    kind: str, expected: str, encoder: str, tmp_path: Path
) -> None:
    path = write_h264(tmp_path / "a.mkv", camera(kind, 5.0), FPS, ENCODERS[encoder])
    images = list(decoded(path))
    found = states(iter(images))
    if encoder == "low" and kind == "still":
        # The encoder has removed the noise, so nothing shows that the camera lives.
        expected = "frozen"
    first = round(STILL_AFTER_S * FPS) + 2
    assert set(found[: first - 3]) == {"moving"}
    assert set(found[first:]) == {expected}
    # A camera that has frozen is in doubt before.
    doubtful = round(0.8 * FPS)
    found = states(iter(images), StandstillWatch(doubt_after_s=0.8))
    assert set(found[: doubtful - 1]) == {"moving"}
    assert set(found[doubtful + 2 : first - 3]) == {"doubtful" if expected == "frozen" else "moving"}
    assert set(found[first:]) == {expected}


@needs_rtsp
@pytest.mark.parametrize("end", ["still", "frozen"])
def test_the_noise_is_learnt_while_parts_move(end: str, tmp_path: Path) -> None:
    parts = write_h264(tmp_path / "a.mkv", camera("moves", 4.0, 4.0), FPS, ENCODERS["camera"])
    after = write_h264(tmp_path / "b.mkv", camera(end, 5.0, 4.0), FPS, ENCODERS["camera"])
    watch = StandstillWatch()
    assert set(states(decoded(parts), watch)) == {"moving"}
    assert states(decoded(after), watch, 4.0)[-1] == end
    # The first image with a part that has moved is judged again.
    assert states(iter([np.repeat(scene(0).astype(np.uint8)[..., None], 3, 2)]), watch, 9.0) == ["moving"]


def test_slow_movement_is_no_standstill() -> None:
    """Each image is a fifth of a level brighter in one place than the image before, without noise."""
    images = []
    for number in range(100):
        image = np.full((64, 64, 3), 100, np.uint8)
        image[:16, :16] += number // 2
        images.append(image)
    assert states(iter(images))[-1] == "moving"


def test_a_camera_with_another_size_starts_anew() -> None:
    watch = StandstillWatch()
    small, large = np.full((32, 32, 3), 9, np.uint8), np.full((64, 64, 3), 9, np.uint8)
    assert states(iter([small] * 60), watch)[-1] == "frozen"
    assert states(iter([large]), watch, 6.0) == ["moving"]
