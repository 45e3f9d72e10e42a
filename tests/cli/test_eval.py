"""`edgead eval` through the command line, on a real bundle that scores brightness."""

import html
import json
import shlex
import subprocess
import sys

import cv2
import numpy as np
import pytest
import sklearn.metrics
import typer
from typer.testing import CliRunner

from edgead.cli.eval import eval_
from edgead.data import open_dataset
from edgead.errors import BundleError, CollapseError, DataError, ImageError, InputError, MissingExtraError
from edgead.imaging.decode import read_image
from edgead.imaging.preprocess import ModelSize
from edgead.scoring.threshold import Threshold
from tests.helpers.brightness_bundle import write_brightness_bundle
from tests.helpers.parts_on_disk import SIZE_PX, write_parts

SIZE = ModelSize(SIZE_PX, SIZE_PX)


def make_bundle(path, gain=1.0, n_normal=299):
    threshold = Threshold(0.2, 0.01, 0.95, 0.95 if n_normal >= 299 else 0.2, n_normal, 299)
    return write_brightness_bundle(path, SIZE, threshold, gain)


@pytest.fixture
def bundle(tmp_path):
    return make_bundle(tmp_path / "bundle")


@pytest.fixture
def data(tmp_path):
    return write_parts(tmp_path / "parts")


def invoke(*arguments):
    app = typer.Typer()
    app.command()(eval_)
    return CliRunner().invoke(app, [*map(str, arguments)])


def test_prints_a_table(bundle, data):
    result = invoke(bundle, data)
    assert result.exit_code == 0, result.output
    samples = open_dataset(data).test
    scores = [read_image(s.path).astype(np.float64).mean(axis=2).max() for s in samples]
    expected = sklearn.metrics.roc_auc_score([s.label for s in samples], scores)
    auroc = next(line for line in result.stdout.splitlines() if line.startswith("AUROC"))
    assert auroc.split()[1] == f"{expected:.3f}"
    assert "3 good, 4 defect" in result.stdout
    assert "2 of 4 defects are found" in result.stdout
    assert "fp32" in result.stdout
    assert "warning" not in result.output


def test_json_is_the_only_output(bundle, data, tmp_path):
    result = invoke(bundle, data, "--json", "--out", tmp_path / "page")
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    written = json.loads((tmp_path / "page" / "results.json").read_text())
    assert printed["evaluation"] == written["evaluation"]
    assert printed["images"] == written["images"]
    assert (tmp_path / "page" / "report.html").is_file()


def test_out_writes_the_page_and_prints_its_path(bundle, data, tmp_path):
    result = invoke(bundle, data, "--out", tmp_path / "page", "--layout", "mvtec")
    assert f"report: {tmp_path / 'page' / 'report.html'}" in result.stdout


def test_the_page_names_the_command_that_sets_the_threshold(bundle, data, tmp_path):
    out = tmp_path / "page"
    result = invoke(bundle, data, "--out", out)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert html.unescape(page).count(f"{shlex.join(['edgead', 'threshold', str(bundle)])} --value 0.2") == 1
    size_mb = (out / "report.html").stat().st_size / 1e6
    assert f"({size_mb:.1f} MB)" in result.stdout


def test_too_few_normal_images_cause_a_warning(data, tmp_path):
    result = invoke(make_bundle(tmp_path / "few", n_normal=20), data)
    assert result.exit_code == 0
    (warning,) = (line for line in result.stderr.splitlines() if line.startswith("warning: "))
    assert " 20 " in warning


def test_files_that_are_left_out_are_counted_in_one_warning(bundle, data):
    for name in ("a.heic", "b.HEIC", "c.txt"):
        (data / "test" / "good" / name).write_bytes(b"no image")
    (warning,) = (line for line in invoke(bundle, data).stderr.splitlines() if line.startswith("warning: "))
    assert "2 .heic" in warning
    assert "1 .txt" in warning
    assert str(data) in warning


def test_a_set_of_dark_images_is_a_warning_that_names_the_option(bundle, data):
    for path in (data / "test").rglob("*.png"):
        values = cv2.imread(str(path)).astype(np.uint16)
        # Values of 12 bits in a file of 16 bits.
        assert cv2.imwrite(str(path), np.minimum(values * 16, 4095))
    (warning,) = (line for line in invoke(bundle, data).stderr.splitlines() if line.startswith("warning: "))
    assert "--bit-depth" in warning


def test_a_collapsed_model_fails_after_printing_its_metrics(data, tmp_path):
    result = invoke(make_bundle(tmp_path / "flat", gain=0.0), data, "--out", tmp_path / "page")
    assert isinstance(result.exception, CollapseError)
    assert str(tmp_path / "flat") in result.exception.what
    assert result.stdout.splitlines()[2].startswith("FAILED")
    assert (tmp_path / "page" / "report.html").is_file()


def test_broken_images(bundle, data):
    (data / "test" / "good" / "text.png").write_text("no image")
    result = invoke(bundle, data)
    assert isinstance(result.exception, ImageError)
    assert "text.png" in str(result.exception)
    assert "--skip-broken" in str(result.exception)
    result = invoke(bundle, data, "--skip-broken")
    assert result.exit_code == 0
    assert "broken, left out   1" in result.stdout


def test_bad_arguments_are_errors_with_a_hint(bundle, data, tmp_path):
    missing = invoke(tmp_path / "nothing", data).exception
    assert isinstance(missing, InputError)
    assert "nothing" in str(missing)
    assert "edgead build" in str(missing)
    assert isinstance(invoke(bundle, tmp_path / "nowhere").exception, DataError)
    (bundle / "model.onnx").write_bytes(b"changed")
    assert isinstance(invoke(bundle, data).exception, BundleError)


def test_a_dataset_without_test_images_is_refused(bundle, data, tmp_path):
    images = data / "train" / "good"
    error = invoke(bundle, images).exception
    assert isinstance(error, DataError)
    assert str(images) in str(error)


def test_missing_report_packages_are_an_error_before_the_work(bundle, data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    error = invoke(bundle, data, "--out", tmp_path / "page").exception
    assert isinstance(error, MissingExtraError)
    assert not (tmp_path / "page").exists()


BLOCKED = (
    "import sys\n"
    "for name in ('torch', 'timm', 'onnx', 'matplotlib', 'jinja2', 'scipy', 'sklearn', 'rich'):\n"
    "    sys.modules[name] = None\n"
    "import typer\n"
    "from edgead.cli.eval import eval_\n"
    "typer.run(eval_)\n"
)


def run_blocked(*arguments):
    command = [sys.executable, "-c", BLOCKED, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_bundle_needs_neither_torch_nor_the_report_packages(bundle, data):
    result = run_blocked(bundle, data)
    assert result.returncode == 0, result.stderr
    assert "AUROC" in result.stdout


def test_a_run_without_torch_names_the_extra(data, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    result = run_blocked(tmp_path / "run", data)
    assert result.returncode != 0
    assert "pip install 'edgead[train]'" in result.stderr
