"""The report of a GPU machine, on a machine without a GPU and on one whose programs are stand-ins."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.tensorrt_headers import PLUGIN
from tests.helpers.tensorrt_rtx_here import needs_no_gpu

ROOT = Path(__file__).parents[1]

NVIDIA_SMI = "echo 'NVIDIA Stand-in, 580.1, 143771 MiB, 9.0'"
# Writes a launcher that answers like the real one; `small` is what the sanitizers run.
NVCC = """
for argument; do
    if [ "$previous" = -o ]; then
        printf '#!/bin/sh\\necho %s\\n' "'{\\"case\\": \\"lite0\\", \\"ok\\": true}'" > "$argument"
        chmod +x "$argument"
    fi
    previous=$argument
done
"""
SANITIZER = """
case $2 in
    memcheck) exec "$5" "$6";;
    racecheck) echo '1 hazard'; exit 9;;
    initcheck) sleep 60;;
    *) echo "$*";;
esac
"""


def report(out: Path, programs: dict[str, str], *python: str) -> tuple[int, dict, str]:
    """Run the report with these programs on PATH: its exit code, report.json and report.md."""
    bin_ = out.parent / "bin"
    bin_.mkdir()
    for name, script in programs.items():
        (bin_ / name).write_text(f"#!/bin/sh\n{script}\n")
        (bin_ / name).chmod(0o755)
    result = subprocess.run(
        [sys.executable, *(python or (str(ROOT / "benchmarks/gpu_report.py"),)), str(out)],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{bin_}{os.pathsep}/usr/bin{os.pathsep}/bin", "PYTHONPATH": ""},
    )
    assert "Traceback" not in result.stderr, result.stderr
    return result.returncode, json.loads((out / "report.json").read_text()), (out / "report.md").read_text()


@needs_no_gpu
def test_without_a_gpu_each_step_says_why_it_was_skipped(tmp_path):
    code, found, page = report(tmp_path / "out", {})
    assert code == 0
    assert len(found["steps"]) == 11
    assert {step["state"] for step in found["steps"]} == {"skipped"}
    assert all(step["detail"] and step["name"] in page for step in found["steps"])
    assert found["machine"]["gpu"] == {}
    assert found["machine"]["packages"].keys() >= {"numpy", "torch", "cuda-core", "tensorrt"}
    assert found["command"]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["report.json", "report.md"]


@needs_no_gpu
def test_a_driver_without_a_gpu_is_no_missing_driver(tmp_path):
    details = []
    for place, programs in {"missing": {}, "no devices": {"nvidia-smi": "exit 6"}}.items():
        (tmp_path / place).mkdir()
        _, found, _ = report(tmp_path / place / "out", programs, "-c", SHORT)
        details.append({step["name"]: step["detail"] for step in found["steps"]})
    assert all(details[0][name] != details[1][name] for name in details[0])
    # A GPU alone would not be enough: the missing package is named too.
    assert all("pytest" in found["kernels"] for found in details)


# Steps with pytest are skipped for want of it, and a limit of seconds stands for those of a minute.
SHORT = f"""
import dataclasses, runpy, sys
sys.modules["pytest"] = None
sys.argv = ["gpu_report.py", sys.argv[1]]
sys.path.insert(0, {str(ROOT / "benchmarks")!r})
import gpu_report
steps = gpu_report.steps
gpu_report.steps = lambda *given: [
    dataclasses.replace(step, limit_s=1 if "initcheck" in step.name else step.limit_s) for step in steps(*given)]
sys.exit(gpu_report.main())
"""


def test_no_step_stops_another(tmp_path):
    programs = {"nvidia-smi": NVIDIA_SMI, "nvcc": NVCC, "compute-sanitizer": SANITIZER}
    code, found, page = report(tmp_path / "out", programs, "-c", SHORT)
    states = {step["name"]: step["state"] for step in found["steps"]}
    assert states == {
        "launcher: compile": "passed",
        "launcher: against float64": "passed",
        "launcher: memcheck": "passed",
        "launcher: racecheck": "failed",
        "launcher: initcheck": "timed out",
        "launcher: synccheck": "passed",
        "kernels": "skipped",
        "driver, streams, graphs, KernelHead": "skipped",
        "anomaly map: speed": "skipped",
        "engines": "skipped",
        "engines: layers and p50": "skipped",
    }
    assert code == 1
    assert "1 hazard" in {step["detail"] for step in found["steps"]}
    assert found["measurements"] == {"launcher.jsonl": [{"case": "lite0", "ok": True}]}
    assert found["machine"]["gpu"]["compute_cap"] == "9.0"
    assert "-arch=sm_90" in found["steps"][0]["command"]
    # What goes into the repository names no folder of this machine.
    assert not any(str(folder) in page + json.dumps(found) for folder in (ROOT, tmp_path))


def test_without_a_launcher_its_steps_are_skipped_and_say_so(tmp_path):
    code, found, _ = report(tmp_path / "out", {"nvidia-smi": NVIDIA_SMI, "nvcc": "exit 2"}, "-c", SHORT)
    states = {step["name"]: (step["state"], step["detail"]) for step in found["steps"]}
    assert states["launcher: compile"][0] == "failed"
    assert states["launcher: against float64"] == ("skipped", "the launcher was not compiled")
    assert "compute-sanitizer" in states["launcher: memcheck"][1]
    assert code == 1


def test_a_folder_with_files_is_not_written_into(tmp_path):
    (tmp_path / "kept").touch()
    command = [sys.executable, ROOT / "benchmarks/gpu_report.py", tmp_path]
    assert subprocess.run(command, capture_output=True).returncode == 2
    assert [file.name for file in tmp_path.iterdir()] == ["kept"]


def test_the_launcher_compiles(tmp_path):
    if shutil.which("nvcc") is None:
        pytest.skip("needs nvcc, CUDA's compiler")
    command = ["nvcc", "-std=c++17", "-arch=sm_90", f"-I{PLUGIN}", ROOT / "tests/gpu/launcher.cu"]
    command += [PLUGIN / "anomaly_map.cu", "-o", tmp_path / "launcher"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
