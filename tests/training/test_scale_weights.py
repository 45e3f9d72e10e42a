"""Weights of the scales against peaks that are computed by hand, and what a run does with them."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from edgead.errors import CollapseError, RunError
from edgead.training.run import open_run, read_record
from edgead.training.scale_weights import scale_weights, spread_images
from edgead.training.training import train_run
from edgead.types import HeadSpec
from tests.helpers.training_parts import cpu, tiny_config, write_images


class Known(nn.Module):
    """Cosine maps that an image gives: its values, divided by 255 times the factor of a scale, at the first pixel."""

    def __init__(self, factors, fusion="add"):
        super().__init__()
        self.factors = factors
        self.head = HeadSpec(4, 4, fusion)
        self.unused = nn.Parameter(torch.zeros(1))

    def features(self, images):
        teacher, student = [], []
        for factor in self.factors:
            distance = factor * images[:, 0, 0, 0].double() / 255
            # The cosine of the angle between (1, 0) and the student is 1 - distance at one pixel, and 1 elsewhere.
            t, s = torch.zeros(2, len(images), 2, 2, 2, dtype=torch.float64)
            t[:, 0], s[:, 0] = 1.0, 1.0
            s[:, 0, 0, 1] = 1 - distance
            s[:, 1, 0, 1] = (1 - (1 - distance) ** 2).sqrt()
            teacher.append(t)
            student.append(s)
        return teacher, student


def images(*values):
    return np.stack([np.full((4, 4, 3), value, np.uint8) for value in values])


def test_weights_are_inverse_to_the_mean_peak():
    # The peaks of the scales are 1, 1/2 and 1/4 of the images' values; the inverse ones 1, 2 and 4 sum to 7.
    found = scale_weights(Known([1.0, 0.5, 0.25]), images(51, 204))
    np.testing.assert_allclose(found, [3 / 7, 6 / 7, 12 / 7], rtol=1e-6)
    assert [float(np.float32(weight)) for weight in found] == list(found)


def test_a_scale_without_differences_does_not_take_all_weight():
    found = scale_weights(Known([1.0, 0.0]), images(100))
    np.testing.assert_allclose(found, [2 / 1001, 2000 / 1001], rtol=1e-6)


@pytest.mark.parametrize(
    "method",
    [Known([1.0, 0.5], "multiply"), Known([0.5]), Known([0.0, 0.0])],
    ids=["product", "one", "equal"],
)
def test_other_heads_get_no_weights(method):
    assert scale_weights(method, images(100)) == ()


def test_chosen_images_are_spread_over_the_parts():
    parts = [np.arange(n, dtype=np.uint8).reshape(-1, 1, 1, 1) for n in (200, 10)]
    found = spread_images(parts).ravel().tolist()
    assert found[:32] == sorted(found[:32])
    assert (found[0], found[31], len(set(found[:32]))) == (0, 199, 32)
    assert found[32:] == list(range(10))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    data = write_images(tmp_path_factory.mktemp("images"), 12)
    out = tmp_path_factory.mktemp("run")
    # The test needs no student that has learnt, so the collapse of so short a training is no failure here.
    with suppress(CollapseError):
        train_run(tiny_config(data, method="rd", loss="per-position", epochs=1), out, cpu())
    record = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(record | {"state": "finished"}))
    return out


def test_a_run_keeps_the_weights_and_its_threshold_counts_with_them(run):
    record = read_record(run)
    assert record is not None
    weights = record.scale_weights
    assert len(weights) == 3
    assert sum(weights) == pytest.approx(3.0, rel=1e-6)
    opened = open_run(run)
    model = opened.load_model()
    assert model.head == replace(model.head, weights=weights)
    (held_out,) = opened.holdout_images().values()
    # The images that set the threshold have no part in the weights.
    assert scale_weights(model, opened.training_images(100).images) == pytest.approx(weights, rel=1e-5)
    assert scale_weights(model, held_out.images) != pytest.approx(weights, rel=1e-5)
    (part,) = record.parts.values()
    assert part.threshold is not None
    scores = opened.session().infer(held_out.images).anomaly_score
    assert part.threshold.value == pytest.approx(float(scores.max()), rel=1e-5)


@pytest.mark.parametrize("weights", [[1.0, 2.0], [1.0, 1.0, 0.0], [1.0, 1.0, -1.0], [1.0] * 4])
def test_weights_that_do_not_fit_are_refused(run, tmp_path, weights):
    for file in run.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    record = json.loads((run / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(record | {"scale_weights": weights}))
    with pytest.raises(RunError):
        open_run(tmp_path).load_model()
