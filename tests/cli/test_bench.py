"""`edgead bench` in this process."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest
from typer.testing import CliRunner

from edgead.cli.main import app
from edgead.errors import InputError, SlowerError
from edgead.imaging.preprocess import ModelSize
from edgead.scoring.threshold import Threshold
from tests.helpers.brightness_bundle import write_brightness_bundle

SHORT = ["--seconds", "0.5", "--warm-up", "0", "--clocks", "device,e2e", "--threads", "1"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    threshold = Threshold(0.5, 0.01, 0.95, 1 - 0.99**9, 9, 299)
    return write_brightness_bundle(tmp_path_factory.mktemp("bench") / "bundle", ModelSize(32, 32), threshold)


def test_a_report_and_a_chart_are_written_and_a_slower_model_has_a_code(bundle: Path, tmp_path: Path):
    out, chart = tmp_path / "bench.json", tmp_path / "bench.png"
    command = ["bench", str(bundle), *SHORT, "--image", "40x64"]
    done = CliRunner().invoke(app, [*command, "--out", str(out), "--chart", str(chart)])
    assert done.exit_code == 0, done.output
    record = json.loads(out.read_text())
    assert set(record["clocks"]) == {"device", "e2e"}
    chosen = record["conditions"]
    assert (chosen["height_px"], chosen["width_px"], chosen["threads"]) == (40, 64, 1)
    assert cv2.imread(str(chart)).ndim == 3
    # An older report that no machine can reach.
    for clock in record["clocks"].values():
        clock["round_p50_ms"] = [1e-6] * len(clock["round_p50_ms"])
    out.write_text(json.dumps(record))
    newer = tmp_path / "newer.json"
    slower = CliRunner().invoke(app, [*command, "--compare", str(out), "--out", str(newer)])
    assert isinstance(slower.exception, SlowerError)
    assert slower.exception.exit_code == 6
    # The measurement is kept.
    assert json.loads(newer.read_text())["conditions"] == chosen


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--clocks", "wall"], 1),
        (["--image", "0x0"], 1),
        (["--image", "big"], 2),
        (["--fps", "0"], 1),
        (["--out", "absent/bench.json"], 1),
        (["--compare", "absent.json"], 1),
    ],
)
def test_bad_input_is_refused_before_the_model_is_opened(
    options: list[str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["bench", "no-model", *options])
    if code == 2:
        assert done.exit_code == 2
    else:
        assert isinstance(done.exception, InputError)
        assert "no-model" not in str(done.exception)
