"""`--head` from the command line to the bundle, on TensorRT for RTX, which builds without a GPU."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from edgead.bundle import open_bundle
from edgead.cli.build import build
from edgead.engine.build import build_bundle
from edgead.errors import InputError
from edgead.runtime.tensorrt.engine_record import EngineRecord
from edgead.types import HeadSpec
from tests.helpers.tensorrt_rtx_here import needs_no_gpu, needs_tensorrt_rtx
from tests.helpers.toy_run import SIZE, ToyRun

app = typer.Typer()
app.command()(build)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def exact(tmp_path_factory) -> Path:
    return build_bundle(ToyRun(), tmp_path_factory.mktemp("exact") / "exact").path


@needs_tensorrt_rtx
@needs_no_gpu
@pytest.mark.parametrize(
    ("asked", "head"),
    [(("--head", "plugin"), "kernels"), (("--head", "standard"), "standard"), ((), "standard")],
)
def test_the_head_that_was_asked_for_is_built_and_logged(exact, tmp_path, caplog, asked, head):
    caplog.set_level(logging.INFO, "edgead")
    out = tmp_path / "rtx"
    arguments = [str(exact), "--out", str(out), "--backend", "tensorrt-rtx", *asked]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert head in next(record for record in caplog.records if record.module == "candidate").args
    bundle = open_bundle(out)
    record = EngineRecord.from_json(bundle.file("engine.json").read_text(), "")
    assert record.head == head
    # The graph stays the one that ONNX Runtime runs, and the bundle contains no library.
    assert bundle.file("model.onnx").read_bytes() == (exact / "model.onnx").read_bytes()
    expected = {"model.onnx", "golden.npz", "model.engine", "engine.json", "layers.json"}
    assert set(bundle.manifest.files) == expected
    if head == "kernels":
        assert record.features is not None
        assert record.features.head == HeadSpec(SIZE.height_px, SIZE.width_px)
    else:
        assert record.features is None


@pytest.mark.parametrize(
    ("arguments", "value", "hint"),
    [
        (("--head", "plugin"), "'cpu'", "--backend"),
        (("--target", "jetson-orin", "--head", "plugin"), "libedgead_plugin.so", "edgead plugin build"),
    ],
)
def test_a_head_that_is_not_available_is_refused_before_any_work(tmp_path, arguments, value, hint):
    # The run does not exist, and the head is checked before it.
    with pytest.raises(InputError) as refusal:
        CliRunner().invoke(
            app, [str(tmp_path / "none"), "--out", str(tmp_path / "x"), *arguments], catch_exceptions=False
        )
    assert value in refusal.value.what
    assert hint in refusal.value.hint
