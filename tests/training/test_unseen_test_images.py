"""A training never looks at test images: other test images change neither weights nor thresholds."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
from safetensors.torch import load_file
from torch import Tensor

from edgead.errors import CollapseError
from edgead.models import METHODS
from edgead.training.records import RunRecord
from edgead.training.run import read_record
from edgead.training.training import train_run
from tests.helpers.tiny_methods import TINY
from tests.helpers.training_parts import SIZE_PX, cpu, same_tensors, tiny_config, write_images


# The images that set a threshold are held out, and cross-fitted by the methods in closed form.
@pytest.mark.parametrize("method", METHODS)
def test_noise_in_the_test_folders_changes_no_weight_and_no_threshold(tmp_path, method):
    part = tmp_path / "plain" / "part"
    write_images(part / "train" / "good", 12)
    for kind in ("good", "scratch"):
        write_images(part / "test" / kind, 4)
    noisy = tmp_path / "noisy" / "part"
    shutil.copytree(part, noisy)
    rng = np.random.default_rng(3)
    for file in noisy.glob("test/*/*.png"):
        assert cv2.imwrite(str(file), rng.integers(0, 256, (SIZE_PX, SIZE_PX, 3), np.uint8))

    plain_weights, plain_record = trained(part, tmp_path / "run", method)
    noisy_weights, noisy_record = trained(noisy, tmp_path / "noisy-run", method)

    assert plain_record.parts["part"].threshold is not None
    assert same_tensors(plain_weights, noisy_weights)
    assert plain_record.parts["part"].threshold == noisy_record.parts["part"].threshold
    assert plain_record.scale_weights == noisy_record.scale_weights


def trained(part: Path, out: Path, method: str) -> tuple[dict[str, Tensor], RunRecord]:
    config = tiny_config(
        part,
        method=method,
        teacher=TINY[method],
        loss=METHODS[method].losses[0],
        epochs=2,
        hold_out="auto" if METHODS[method].closed_form else "0.1",
    )
    # The test needs only the tensors, so the collapse of so short a training is no failure here.
    with suppress(CollapseError):
        train_run(config, out, cpu())
    record = read_record(out)
    assert record is not None
    return load_file(out / "model.safetensors"), record
