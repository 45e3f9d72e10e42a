"""Builds for the processor of an Intel PC: verified, and timed, on OpenVINO's own answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgead.bundle import open_bundle
from edgead.engine.build import build_bundle
from edgead.engine.plan import Plan
from edgead.engine.rebuild import recompile_bundle
from edgead.errors import BackendError, InputError, VerificationError
from edgead.runtime import open_session
from edgead.runtime.openvino import OpenVinoSession
from tests.helpers.openvino_here import needs_openvino
from tests.helpers.toy_run import ToyRun

pytestmark = needs_openvino


def plan(folder: Path, precision: str) -> Plan:
    cache = {} if precision == "fp32" else {"cache": folder / "calibration.json"}
    return Plan.parse(target="intel", precision=precision, **cache)


def test_auto_times_the_candidates_and_keeps_the_fastest(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    times = iter((3.0, 1.0))
    monkeypatch.setattr(
        "edgead.engine.candidate_precisions.inference_times_ms", lambda *_, **__: [next(times)]
    )
    auto = plan(tmp_path, "auto")
    assert auto.candidate_precisions == ("int8-less-float", "int8", "int8-student", "fp32")
    auto = replace(auto, candidate_precisions=("int8", "fp32"))
    bundle = build_bundle(ToyRun(), tmp_path / "x", auto)
    assert (bundle.manifest.backend, bundle.manifest.target) == ("openvino", "intel")
    assert bundle.manifest.verification["candidate_precision"] == "fp32"
    tried = {one["candidate_precision"]: one for one in bundle.manifest.verification["fallback_order"]}
    assert {name: one["p50_ms"] for name, one in tried.items()} == {"int8": 3.0, "fp32": 1.0}
    assert all(one["holds"] for one in tried.values())
    # The golden answers are OpenVINO's own.
    golden = bundle.golden()
    with open_session(open_bundle(bundle.path), threads=1) as session:
        assert isinstance(session, OpenVinoSession)
        np.testing.assert_allclose(session.infer(golden.images).anomaly_map, golden.anomaly_map, atol=1e-6)
    assert "openvino" in bundle.manifest.verified_on["libraries"]


def test_what_openvino_answers_otherwise_is_not_written(tmp_path: Path, monkeypatch) -> None:
    exact = build_bundle(ToyRun(), tmp_path / "exact")
    assert exact.manifest.backend == "onnxruntime"
    infer = OpenVinoSession.infer

    def off(session: OpenVinoSession, batch: np.ndarray):
        prediction = infer(session, batch)
        prediction.anomaly_map[:] *= 1.5
        return prediction

    monkeypatch.setattr(OpenVinoSession, "infer", off)
    with pytest.raises(VerificationError):
        build_bundle(ToyRun(), tmp_path / "x", plan(tmp_path, "fp32"))
    with pytest.raises(VerificationError):
        recompile_bundle(exact, tmp_path / "x", plan(tmp_path, "fp32"))
    assert not (tmp_path / "x").exists()


def test_a_missing_device_is_found_before_any_work(tmp_path: Path) -> None:
    import openvino

    from edgead.engine.candidate import check_target_here

    if any(name.startswith("NPU") for name in openvino.Core().available_devices):
        pytest.skip("this machine has an NPU")
    with pytest.raises(BackendError, match="NPU"):
        check_target_here(Plan.parse(target="intel-npu", precision="fp16"))
    with pytest.raises(InputError, match="float16"):
        Plan.parse(target="intel-npu", precision="fp32")
