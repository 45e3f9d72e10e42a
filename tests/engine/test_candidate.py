"""Bundles with real engines of TensorRT for RTX, built without a GPU: their content, and where they are rejected."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgead.bundle import Bundle, open_bundle, write_bundle
from edgead.cli.build import _report
from edgead.engine.build import build_bundle
from edgead.engine.plan import Plan
from edgead.engine.precision_converter import Calibrating, CandidatePrecision
from edgead.engine.rebuild import recompile_bundle
from edgead.engine.target import find_target
from edgead.errors import BackendError, BundleError, EdgeadError, InputError, VerificationError
from edgead.runtime import open_session
from edgead.runtime.onnxruntime import OnnxRuntimeSession
from edgead.runtime.tensorrt import session as tensorrt
from edgead.runtime.tensorrt.engine_record import EngineRecord, this_platform
from edgead.runtime.tensorrt.library import load_library
from tests.helpers.no_gpu import gpu_error
from tests.helpers.tensorrt_rtx_here import needs_no_gpu, needs_tensorrt_rtx
from tests.helpers.toy_run import PART, ToyRun

pytestmark = [needs_tensorrt_rtx, needs_no_gpu]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("candidate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield folder


def plan(folder: Path, candidate_precision: CandidatePrecision, target: str = "rtx-desktop") -> Plan:
    return Plan(
        *find_target(None, target), (candidate_precision,), Calibrating(cache=folder / "clipping_limits.json")
    )


@pytest.fixture(scope="module")
def exact(folder: Path) -> Bundle:
    return build_bundle(ToyRun(), folder / "exact")


@pytest.fixture(scope="module")
def bundles(folder: Path, exact: Bundle) -> dict[str, Bundle]:
    """Bundles of each precision for RTX. The run is exported once."""
    with pytest.MonkeyPatch.context() as patch:
        graph = exact.file("model.onnx").read_bytes()
        patch.setattr("edgead.engine.build.onnx_from_run", lambda _: graph)
        candidate_precisions: tuple[CandidatePrecision, ...] = ("fp32", "fp16")
        return {
            candidate_precision: build_bundle(
                ToyRun(), folder / candidate_precision, plan(folder, candidate_precision)
            )
            for candidate_precision in candidate_precisions
        }


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_bundle_holds_an_engine_that_nobody_ran(precision: str, bundles: dict[str, Bundle]) -> None:
    bundle = open_bundle(bundles[precision].path)
    manifest = bundle.manifest
    assert (manifest.backend, manifest.target, manifest.precision) == (
        "tensorrt-rtx",
        "rtx-desktop",
        precision,
    )
    assert manifest.verified is False
    expected = {"model.onnx", "golden.npz", "model.engine", "engine.json", "layers.json"}
    assert set(manifest.files) == expected
    assert json.loads(bundle.file("layers.json").read_text())["Layers"]
    record = EngineRecord.from_json(bundle.file("engine.json").read_text(), "")
    assert (record.backend, record.precision, record.target) == ("tensorrt-rtx", precision, "rtx-desktop")
    assert record.compute_capabilities == ("8.6", "8.9", "12.0")
    assert record.graph_sha256 == manifest.files["model.onnx"].sha256
    assert record.batch == (1, 1, 8)
    assert record.library_version == load_library("tensorrt-rtx").version_text


def test_the_graph_was_verified_instead_of_the_engine(bundles: dict[str, Bundle]) -> None:
    bundle = bundles["fp16"]
    golden = bundle.golden()
    with OnnxRuntimeSession(bundle.file("model.onnx")) as session:
        found = session.infer(golden.images)
    assert abs(found.anomaly_map - golden.anomaly_map).max() <= 1e-6
    assert bundle.manifest.verification["reference"] == "onnxruntime fp32"
    assert bundle.manifest.verification["parts"][PART]["map_error_max"] > 0.0


def test_float32_is_verified_again_for_another_backend(bundles: dict[str, Bundle], exact: Bundle) -> None:
    found = bundles["fp32"].manifest.verification
    assert found["reference"] == "onnxruntime fp32"
    judged = found["parts"][PART]
    assert judged["map_error_max"] == 0.0
    assert judged["limits"]["map_error_max"] == 0.01


def test_the_table_has_a_row_for_an_engine_that_was_not_run(
    bundles: dict[str, Bundle], exact: Bundle
) -> None:
    lines = _report(bundles["fp16"])
    first = lines[0].replace(",", "").split()
    assert first[0] == "graph"
    assert {"fp16", "rtx-desktop", "onnxruntime", "fp32", "24"} <= set(first)
    assert len([line for line in lines if line.split()[0] == "engine"]) == 1
    of_exact = _report(exact)
    assert of_exact[0].split()[0] == "verified"
    assert not [line for line in of_exact if line.split()[0] == "engine"]


def test_the_build_logs_it_too(
    folder: Path, exact: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "edgead")
    bundle = recompile_bundle(exact, tmp_path / "x", plan(folder, "fp32"))
    lines = caplog.messages
    assert len([line for line in lines if gpu_error().what in line]) == 1
    assert [line for line in lines if re.search(r" \d+\.\d MB in \d+ s$", line)]
    assert bundle.manifest.verified is False
    assert bundle.manifest.thresholds[PART] == exact.manifest.thresholds[PART]
    assert (
        bundle.manifest.verification["parts"][PART]["validation_images"]
        == exact.manifest.verification["parts"][PART]["validation_images"]
    )
    assert "golden" in bundle.manifest.verification["reference"]


def refusal(bundle: Bundle, kind: type[EdgeadError] = BackendError) -> str:
    """The message with which a bundle does not open."""
    with pytest.raises(kind) as caught:
        open_session(bundle)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_without_a_gpu_it_does_not_open(precision: str, bundles: dict[str, Bundle]) -> None:
    assert refusal(bundles[precision]) == str(gpu_error())


@pytest.mark.parametrize("name", ["model.engine", "engine.json", "model.onnx"])
def test_a_changed_byte_is_refused(name: str, bundles: dict[str, Bundle], tmp_path: Path) -> None:
    bundle = copy(bundles["fp32"], tmp_path / "x")
    content = bytearray(bundle.file(name).read_bytes())
    content[len(content) // 2] ^= 1
    bundle.file(name).write_bytes(content)
    with pytest.raises(BundleError) as caught:
        open_bundle(bundle.path)
    assert str(bundle.path / name) in caught.value.what


def copy(bundle: Bundle, target: Path, **files: bytes) -> Bundle:
    """Copy the bundle with some files replaced and all hashes right."""
    contents: dict[str, Path | bytes] = {name: bundle.file(name) for name in bundle.manifest.files}
    changed = {name.replace("_", "."): content for name, content in files.items()}
    return write_bundle(target, bundle.manifest, contents | changed)


def with_record(bundle: Bundle, target: Path, **changes: object) -> Bundle:
    record = json.loads(bundle.file("engine.json").read_text())
    return copy(bundle, target, engine_json=json.dumps(record | changes).encode())


@pytest.mark.parametrize(
    ("changes", "here"),
    [
        ({"library_version": "1.0.0.1"}, lambda: load_library("tensorrt-rtx").version_text),
        ({"platform": "linux-riscv64"}, this_platform),
    ],
)
def test_an_engine_of_another_machine_is_refused_by_name(
    changes: dict[str, str], here: Callable[[], str], bundles: dict[str, Bundle], tmp_path: Path
) -> None:
    bundle = with_record(bundles["fp32"], tmp_path / "x", **changes)
    message = refusal(bundle)
    for value in (*changes.values(), here()):
        assert value in message
    assert message.endswith(f"edgead build {bundle.path} --target rtx-desktop --out {bundle.path}-here")


def test_an_engine_for_another_gpu_is_refused_by_name(
    bundles: dict[str, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Only the GPU is not real here; RTX 20 has 7.5.
    monkeypatch.setattr(tensorrt, "Gpu", lambda: SimpleNamespace(compute_capability=(7, 5)))
    message = refusal(bundles["fp32"])
    for compute_capability in ("8.6", "8.9", "12.0", "7.5"):
        assert compute_capability in message
    assert f"edgead build {bundles['fp32'].path} --target rtx-desktop" in message


@pytest.mark.parametrize("text", [b"{}", b"[]", b"\xff", b"{" * 70000])
def test_a_record_that_is_none_is_refused(text: bytes, bundles: dict[str, Bundle], tmp_path: Path) -> None:
    bundle = copy(bundles["fp32"], tmp_path / "x", engine_json=text)
    message = refusal(bundle, BundleError)
    assert "engine.json" in message
    assert "edgead build" in message


def test_an_engine_is_missing_from_the_bundle(exact: Bundle, tmp_path: Path) -> None:
    files: dict[str, Path | bytes] = {name: exact.file(name) for name in exact.manifest.files}
    bundle = write_bundle(tmp_path / "x", replace(exact.manifest, backend="tensorrt-rtx"), files)
    assert "engine.json" in refusal(bundle, BundleError)


COMMAND = """
import sys
for name in ("torch", "timm", "torchvision", "onnxsim", "onnxscript"):
    sys.modules[name] = None
from edgead.cli.main import main
main()
"""


def test_an_fp16_bundle_is_compiled_as_it_is_without_images_and_torch(
    folder: Path, exact: Bundle, bundles: dict[str, Bundle], tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgead.engine.build.onnx_from_run", lambda _: exact.file("model.onnx").read_bytes())
        fp16 = build_bundle(ToyRun(), tmp_path / "fp16", plan(folder, "fp16", "cpu"))
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "build", str(fp16.path), "--out", str(tmp_path / "rtx"),
         "--target", "rtx-desktop"],
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert {"fp16", "rtx-desktop", "golden"} <= set(rows[0])
    assert [row for row in rows if row[0] == "engine"]
    compiled = open_bundle(tmp_path / "rtx")
    for name in ("model.onnx", "golden.npz"):
        assert compiled.manifest.files[name] == fp16.manifest.files[name]
    assert compiled.file("model.onnx").read_bytes() == fp16.file("model.onnx").read_bytes()
    assert compiled.manifest.thresholds[PART] == fp16.manifest.thresholds[PART]
    assert (compiled.manifest.backend, compiled.manifest.precision) == ("tensorrt-rtx", "fp16")
    assert compiled.manifest.training == fp16.manifest.training
    # The same graph as one built for RTX from the run.
    assert compiled.manifest.files["model.onnx"] == bundles["fp16"].manifest.files["model.onnx"]


def test_an_int8_bundle_is_refused_before_any_work(folder: Path, exact: Bundle, tmp_path: Path) -> None:
    int8 = copy(replace(exact, manifest=replace(exact.manifest, precision="int8")), tmp_path / "int8")
    with pytest.raises(InputError) as refused:
        recompile_bundle(int8, tmp_path / "x", plan(folder, "fp32"))
    assert "\n" not in str(refused.value)
    assert str(int8.path) in refused.value.what
    assert not (tmp_path / "x").exists()


def test_a_graph_that_gives_other_answers_is_not_compiled(
    folder: Path, exact: Bundle, tmp_path: Path
) -> None:
    liar = copy(exact, tmp_path / "liar", golden_npz=wrong_golden(exact))
    with pytest.raises(VerificationError) as refused:
        recompile_bundle(liar, tmp_path / "x", plan(folder, "fp32", "cpu"))
    assert refused.value.exit_code == 3
    assert not (tmp_path / "x").exists()


def wrong_golden(bundle: Bundle) -> bytes:
    from edgead.bundle.golden import golden_bytes

    golden = bundle.golden()
    return golden_bytes(golden._replace(anomaly_map=golden.anomaly_map * 1.1))
