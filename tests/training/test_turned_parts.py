"""Runs with `--fit turn`: parts at any angle train one model, and its verdict does not depend on the angle."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest

import edgead
from edgead.engine.build import build_bundle
from edgead.errors import DataError
from edgead.imaging.view import View
from edgead.training.training import train_run
from tests.helpers.training_parts import cpu, tiny_config, write_images

SIDE_PX = 96
TURN = View("turn")


def wedge(degrees: float, half_width: float = 11.0) -> np.ndarray:
    """Draw a part of 78 pixels along an angle, (96, 96, 3) uint8 RGB."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = np.array([(-39, -half_width), (39, -4), (39, 4), (-39, half_width)])
    image = np.full((SIDE_PX, SIDE_PX, 3), 60, np.uint8)
    points = corners @ [[c, s], [-s, c]] + (SIDE_PX - 1) / 2
    cv2.fillPoly(image, [np.rint(points * 16).astype(np.int32)], (170, 170, 170), cv2.LINE_AA, 4)
    return image


def write_wedges(root: Path, half_width: float = 11.0) -> Path:
    root.mkdir(parents=True)
    for number in range(10):
        cv2.imwrite(str(root / f"{number:03d}.png"), wedge(37 * number, half_width))
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> edgead.Run:
    folder = tmp_path_factory.mktemp("turned")
    data = write_wedges(folder / "wedges")
    config = tiny_config(data, method="linear", loss="squared-error", hold_out="3", size="32x96", view=TURN)
    return train_run(config, folder / "run", cpu())


def test_the_verdict_does_not_depend_on_the_angle(run, tmp_path):
    built = build_bundle(run, tmp_path / "bundle")
    assert built.manifest.view == run.view == TURN
    with edgead.load(run.path) as trained, edgead.load(built) as model:
        good = [model.predict(wedge(degrees)).anomaly_score for degrees in (11, 100, 250)]
        expected = [trained.predict(wedge(degrees)).anomaly_score for degrees in (11, 100, 250)]
        empty = model.predict(np.full((SIDE_PX, SIDE_PX, 3), 60, np.uint8)).anomaly_score
        broken = []
        for degrees in (11, 100, 250):
            image = wedge(degrees)
            angle = math.radians(degrees)
            x, y = (47.5 + 20 * f(angle) for f in (math.cos, math.sin))
            cv2.circle(image, (round(x), round(y)), 3, (250, 30, 30), -1)
            result = model.predict(image, full_size=True)
            broken.append(result.anomaly_score)
            row, column = np.unravel_index(result.anomaly_map.argmax(), result.anomaly_map.shape)
            assert math.hypot(column - x, row - y) < 12
    assert good == pytest.approx(expected, rel=1e-3)
    assert min(broken) > 1.5 * max(good)
    # A part that is not there is a defect.
    assert empty > 1.5 * max(good)


def test_turned_parts_get_a_student_for_any_position(run, tmp_path):
    data = write_wedges(tmp_path / "wedges")
    config = tiny_config(data, epochs=1, size="32x96", view=TURN)
    assert train_run(config, tmp_path / "run", cpu()).record.alignment == "unaligned"


def test_parts_without_an_axis_are_refused(tmp_path):
    data = write_images(tmp_path / "discs", 8)
    with pytest.raises(DataError) as caught:
        edgead.train(data, tmp_path / "run", method="linear", teacher_weights="random", fit="turn")
    assert "\n" not in str(caught.value)
    assert "8" in caught.value.what
    assert not (tmp_path / "run/run.json").exists()
    with pytest.raises(DataError) as within:
        edgead.train(
            data, tmp_path / "run", method="linear", teacher_weights="random", fit="turn", roi="0,0,64,64"
        )
    # Who gave a region of interest has no use for the advice to give one.
    assert "--roi x,y,width,height" in caught.value.hint
    assert "--roi x,y,width,height" not in within.value.hint


def test_parts_that_the_model_would_cut_are_refused_with_the_size(tmp_path):
    data = write_wedges(tmp_path / "wedges", half_width=20.0)
    config = tiny_config(data, method="linear", loss="squared-error", hold_out="3", size="32x96", view=TURN)
    with pytest.raises(DataError) as caught:
        train_run(config, tmp_path / "run", cpu())
    assert "64x96" in str(caught.value.hint)


def test_a_training_without_a_view_names_the_turn_and_one_with_it_does_not(run, tmp_path, caplog):
    caplog.set_level("INFO")
    data = Path(run.record.config.data[0])
    for view, advised in ((View(), 1), (TURN, 0)):
        caplog.clear()
        size = "96x96" if advised else "32x96"
        config = tiny_config(data, method="linear", loss="squared-error", hold_out="3", size=size, view=view)
        train_run(config, tmp_path / size, cpu())
        assert sum("--fit turn" in line for line in caplog.messages) == advised
