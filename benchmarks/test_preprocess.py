"""Time from a decoded frame to the 256 x 256 input of a model, for each fit, and time of decoding an image file.

The frame shows a wedge on a plain ground with the noise of a sensor, so `turn` finds a part. The framing of its size is
cached, as in a stream; `turn` also finds the part in each frame. Decoding starts from a file in the cache of the system
and includes the checks for damage. A noisier image takes longer to decode. Camera, inference and reading ahead are not
measured. Run on an idle machine: ``pytest benchmarks/test_preprocess.py``.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from edgead.imaging.decode import read_image
from edgead.imaging.frame import cut_image
from edgead.imaging.preprocess import ModelSize
from edgead.imaging.turned_framing import TurnedFraming
from edgead.imaging.view import FITS, Fit, View
from edgead.types import UInt8Array

SIZE = ModelSize(256, 256)
FULL_HD, VGA = (1080, 1920), (480, 640)
GROUND, PART, NOISE = 60.0, 200.0, 2.0


def wedge(height: int, width: int) -> UInt8Array:
    """A frame with a bright wedge, about half as long as the frame is high, at an angle."""
    image = np.full((height, width, 3), GROUND, np.float32)
    corners = np.array([(-0.3, -0.08), (0.3, -0.02), (0.3, 0.02), (-0.3, 0.08)]) * height
    turn = np.array([(0.8, 0.6), (-0.6, 0.8)])
    outline = np.rint(corners @ turn + (width / 2, height / 2)).astype(np.int32)
    cv2.fillPoly(image, [outline], (PART, PART, PART))
    noise = np.random.default_rng(0).normal(0.0, NOISE, image.shape)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("frame_px", [FULL_HD, VGA], ids=["1920x1080", "640x480"])
@pytest.mark.parametrize("fit", FITS)
def test_fit(benchmark: BenchmarkFixture, fit: Fit, frame_px: tuple[int, int]) -> None:
    image, view = wedge(*frame_px), View(fit=fit)
    framing, batch = benchmark.pedantic(cut_image, (image, view, SIZE), rounds=50, warmup_rounds=3)
    assert (batch.shape, batch.dtype) == ((1, 256, 256, 3), np.uint8)
    assert batch.flags.c_contiguous
    # The part is in the middle, whatever the fit.
    assert np.abs(batch[0, 127:129, 127:129] - PART).max() < 5 * NOISE
    # An image without a part would take less time.
    assert isinstance(framing, TurnedFraming) == (fit == "turn")
    assert not isinstance(framing, TurnedFraming) or framing.part is not None


@pytest.mark.parametrize(
    ("suffix", "largest_error"), [(".jpg", 5 * NOISE), (".png", 0.0)], ids=["jpeg", "png"]
)
def test_decode(benchmark: BenchmarkFixture, tmp_path: Path, suffix: str, largest_error: float) -> None:
    image, file = wedge(*FULL_HD), tmp_path / f"frame{suffix}"
    assert cv2.imwrite(str(file), image[..., ::-1])
    decoded = benchmark.pedantic(read_image, (file,), rounds=20, warmup_rounds=2)
    benchmark.extra_info["file_bytes"] = file.stat().st_size
    assert (decoded.shape, decoded.dtype) == ((1080, 1920, 3), np.uint8)
    # JPEG is lossy, most of all at the edges of the part.
    error = np.abs(decoded.astype(np.int16) - image)
    assert np.quantile(error, 1.0 if suffix == ".png" else 0.99) <= largest_error
