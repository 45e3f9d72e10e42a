from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from edgead.errors import BackendError
from edgead.runtime.tensorrt.library import TENSORRT_BACKENDS, Library, check_engine, load_library
from tests.helpers.tensorrt_rtx_here import needs_tensorrt_rtx

REBUILD = "edgead build runs/washer --target rtx"


def refusal(code: str, path: Path | None = None) -> str:
    """The one line that code prints in a new process, with modules of `path` first."""
    environment = os.environ | ({"PYTHONPATH": f"{path}:{os.environ.get('PYTHONPATH', '')}"} if path else {})
    code = f"from edgead.runtime.tensorrt.library import load_library\nfrom edgead.errors import BackendError\n{code}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("\n") == 1, result.stdout
    return result.stdout


LOAD = "try: load_library({!r})\nexcept BackendError as error: print(error)"


@pytest.mark.parametrize(
    ("backend", "module", "fix"),
    [
        ("tensorrt", "tensorrt", "--system-site-packages"),
        ("tensorrt-rtx", "tensorrt_rtx", "pip install 'edgead[tensorrt-rtx]'"),
    ],
)
def test_a_missing_package_is_named_with_the_hint(backend, module, fix):
    said = refusal(f"import sys; sys.modules[{module!r}] = None\n{LOAD.format(backend)}")
    assert said.startswith("TensorRT")
    assert module in said
    assert fix in said


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("raise OSError('libnvinfer.so.10: cannot open shared object file')", "libnvinfer.so.10"),
        ("raise RuntimeError('no libraries\\nhere')", "no libraries here"),
        ("", "__version__"),
    ],
)
def test_a_package_that_does_not_load_is_no_traceback(tmp_path, content, word):
    (tmp_path / "tensorrt.py").write_text(content)
    assert word in refusal(LOAD.format("tensorrt"), tmp_path)


def test_a_tensorrt_that_is_too_old_is_refused(tmp_path):
    (tmp_path / "tensorrt.py").write_text("__version__ = '8.5.3'\nclass ILogger: pass")
    said = refusal(LOAD.format("tensorrt"), tmp_path)
    assert "8.5.3" in said
    assert "8.6" in said


def of_version(text: str, backend: str = "tensorrt") -> Library:
    numbers = tuple(map(int, text.split(".")))
    return Library(backend, None, numbers, text, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("library", "strongly_typed", "same_compute_capability"),
    [
        (of_version("8.6.1"), False, False),
        (of_version("10.0.1"), True, False),
        (of_version("10.3.0"), True, False),
        (of_version("10.9.0"), True, True),
        (of_version("11.1.0"), True, True),
        (of_version("1.7.1", "tensorrt-rtx"), True, False),
    ],
)
def test_features_of_a_version(library, strongly_typed, same_compute_capability):
    assert library.strongly_typed == strongly_typed
    assert library.reports_progress == strongly_typed
    assert library.names_nodes == strongly_typed
    assert library.same_compute_capability == same_compute_capability


@needs_tensorrt_rtx
class TestTensorRTForRTX:
    def test_it_is_loaded_once_and_has_its_version(self):
        library = load_library("tensorrt-rtx")
        assert load_library("tensorrt-rtx") is library
        assert library.version_text == version("tensorrt-rtx")
        assert library.version == tuple(int(number) for number in library.version_text.split(".")[:3])
        assert library.name == f"TensorRT for RTX {library.version_text}"
        assert library.backend in TENSORRT_BACKENDS

    def test_compute_capabilities_come_from_the_library(self):
        library = load_library("tensorrt-rtx")
        # NVIDIA's support matrix of TensorRT for RTX.
        assert {"7.5", "8.6", "8.9", "12.0"} <= set(library.targets())
        assert library.target("8.6") == library.module.ComputeCapability.SM86
        assert library.target("12.0") == library.module.ComputeCapability.SM120

    def test_an_unknown_compute_capability_is_refused_with_the_known(self):
        library = load_library("tensorrt-rtx")
        with pytest.raises(BackendError, match=r"8\.7") as caught:
            library.target("8.7")
        assert ", ".join(library.targets()) in caught.value.hint

    def test_complaints_are_kept_and_the_terminal_is_left_alone(self, capfd):
        library = load_library("tensorrt-rtx")
        library.said()
        builder = library.module.Builder(library.logger)
        network = builder.create_network(0)
        parser = library.module.OnnxParser(network, library.logger)
        assert not parser.parse(b"\x08\x0a\x12")
        complaint = library.said()
        assert "Failed to parse the ONNX model" in complaint
        assert "\n" not in complaint
        assert complaint not in library.said()
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("content", [b"", b"vtrt", os.urandom(5000), b"ftrt" + bytes(5000)])
    def test_a_file_that_is_no_engine_is_refused_by_name(self, content):
        with pytest.raises(BackendError) as caught:
            check_engine(load_library("tensorrt-rtx"), content, "rtx/model.engine", REBUILD)
        assert "rtx/model.engine" in caught.value.what
        # Without a reason from the library there is no hint.
        assert REBUILD in str(caught.value.hint)


def said_of(complaint: str) -> str:
    """The line that a library gives for a complaint."""

    class Logger:
        def take(self) -> str:
            return complaint

    return Library("tensorrt", None, (8, 6, 1), "8.6.1", Logger()).said()


def test_trouble_with_driver_and_gpu_is_named():
    driver = {
        said_of("(cudaError 35: CUDA driver version is insufficient for CUDA runtime version)"),
        said_of("CUDA initialization failure with error: 35. Please check your CUDA installation"),
    }
    gpu = {
        said_of("(cudaError 100: no CUDA-capable device is detected)"),
        said_of("CUDA initialization failure with error: 100. Please check"),
    }
    assert len(driver) == len(gpu) == 1
    assert driver != gpu
    # The library's own words are replaced.
    assert "CUDA" not in "".join(driver | gpu)


def test_an_unknown_complaint_is_kept_as_it_is():
    complaint = "Error Code 9: Internal Error (workspace 135 MiB)"
    assert said_of(complaint) == complaint
