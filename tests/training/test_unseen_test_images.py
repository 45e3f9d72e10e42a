"""A training never looks at test images: other test images change neither weights nor thresholds."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
from safetensors.torch import load_file

from edgead.errors import CollapseError
from edgead.models import METHODS
from edgead.training.run import read_record
from edgead.training.training import train_run
from tests.helpers.training_parts import SIZE_PX, cpu, same_tensors, tiny_config, write_images


# The images that set a threshold are held out from `rd`, and cross-fitted by `linear`.
@pytest.mark.parametrize(("method", "hold_out"), [("rd", "0.1"), ("linear", "auto")])
def test_noise_in_the_test_folders_changes_no_weight_and_no_threshold(tmp_path, method, hold_out):
    part = tmp_path / "plain" / "part"
    write_images(part / "train" / "good", 12)
    for kind in ("good", "scratch"):
        write_images(part / "test" / kind, 4)
    noisy = tmp_path / "noisy" / "part"
    shutil.copytree(part, noisy)
    rng = np.random.default_rng(3)
    for file in noisy.glob("test/*/*.png"):
        assert cv2.imwrite(str(file), rng.integers(0, 256, (SIZE_PX, SIZE_PX, 3), np.uint8))

    plain_weights, plain_threshold = trained(part, tmp_path / "run", method, hold_out)
    noisy_weights, noisy_threshold = trained(noisy, tmp_path / "noisy-run", method, hold_out)

    assert plain_threshold is not None
    assert same_tensors(plain_weights, noisy_weights)
    assert plain_threshold == noisy_threshold


def trained(part: Path, out: Path, method: str, hold_out: str):
    # The test needs only the tensors, so the collapse of so short a training is no failure here.
    with suppress(CollapseError):
        config = tiny_config(part, method=method, loss=METHODS[method].losses[0], epochs=2, hold_out=hold_out)
        train_run(config, out, cpu())
    record = read_record(out)
    assert record is not None
    return load_file(out / "model.safetensors"), record.parts["part"].threshold
