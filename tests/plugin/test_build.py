"""Compiling and loading the plugin: the toolchain, the errors if a part is missing, and no half-written library."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgead.errors import BackendError, InputError
from edgead.plugin import build as plugin_build
from edgead.plugin.build import build_plugin, find_include, find_toolchain
from edgead.plugin.loader import load_plugin, plugin_file, plugin_sha256
from edgead.plugin.version import headers_version
from tests.helpers.tensorrt_headers import (
    DRIVER,
    NO_HEADERS,
    compile_cpp,
    compile_version,
    headers,
    version_name,
)

NVCC = """#!/bin/sh
# Knows three GPUs; writes its arguments where the arguments say to write a library.
if [ "$1" = --list-gpu-arch ]; then printf 'compute_50\\ncompute_87\\ncompute_75\\n'; exit; fi
for argument; do
    if [ "$previous" = -o ]; then printf '%s\\n' "$@" > "$argument"; fi
    previous=$argument
done
"""


def write_headers(place: Path, version: str) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    (place / "NvInfer.h").touch()
    (place / "NvInferVersion.h").write_text(version)
    return place


def numbered(major: int, minor: int, patch: int = 0) -> str:
    return (
        f"#define NV_TENSORRT_MAJOR {major} //!< major\n#define NV_TENSORRT_MINOR {minor}\n"
        f"#define NV_TENSORRT_PATCH {patch} //!< patch\n"
    )


@pytest.fixture
def nvcc(tmp_path, monkeypatch) -> Path:
    """The only nvcc on PATH."""
    program = tmp_path / "bin" / "nvcc"
    program.parent.mkdir()
    program.write_text(NVCC)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return program


def nvinfer(root: Path, major: int, number: int) -> Path:
    """A libnvinfer that knows its version alone, beside the headers of `root`."""
    library = root / "lib" / f"libnvinfer.so.{major}"
    library.parent.mkdir(parents=True)
    return compile_version(library, {"getInferLibVersion": number})


@pytest.fixture
def include(tmp_path) -> Path:
    """An unpacked TensorRT 10.3: headers, and the library beside them."""
    nvinfer(tmp_path / "TensorRT", 10, 100300)
    return write_headers(tmp_path / "TensorRT" / "include", numbered(10, 3))


def test_missing_headers_are_named_with_their_package(tmp_path):
    with pytest.raises(BackendError) as refusal:
        find_include(tmp_path)
    assert "NvInfer.h" in refusal.value.what
    assert str(tmp_path) in refusal.value.what
    assert "libnvinfer-headers-dev" in (refusal.value.hint or "")
    assert "--tensorrt-include" in (refusal.value.hint or "")


@pytest.mark.parametrize("version", [(8, 6, 0), (8, 5, 3), (7, 2, 1), (1, 7, 1)])
def test_a_tensorrt_without_such_plugins_is_refused(tmp_path, version):
    with pytest.raises(BackendError) as refusal:
        find_toolchain(write_headers(tmp_path, numbered(*version)))
    assert ".".join(map(str, version)) in refusal.value.what
    assert "8.6.1" in refusal.value.what
    assert "--tensorrt-include" in (refusal.value.hint or "")


@pytest.mark.parametrize(
    ("headers", "number", "library"),
    [
        ((10, 3, 0), 101303, "10.13.3"),
        ((10, 13, 3), 101302, "10.13.2"),
        ((8, 6, 1), 8600, "8.6.0"),
    ],
)
def test_headers_of_another_version_than_the_library_are_refused(tmp_path, headers, number, library):
    path = nvinfer(tmp_path, headers[0], number)
    with pytest.raises(BackendError) as refusal:
        find_toolchain(write_headers(tmp_path / "include", numbered(*headers)))
    assert str(path) in refusal.value.what
    assert library in refusal.value.what
    assert refusal.value.hint


def test_a_library_without_a_version_is_refused(include):
    library = include.parent / "lib" / "libnvinfer.so.10"
    library.write_bytes(b"text")
    with pytest.raises(BackendError) as refusal:
        find_toolchain(include)
    assert str(library) in refusal.value.what


def test_a_missing_library_is_named(tmp_path):
    with pytest.raises(BackendError) as refusal:
        find_toolchain(write_headers(tmp_path, numbered(99, 0)))
    assert "libnvinfer.so.99" in refusal.value.what
    assert "libnvinfer99" in (refusal.value.hint or "")


def test_a_missing_compiler_is_named(include, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(plugin_build, "_COMPILERS", ())
    with pytest.raises(BackendError) as refusal:
        find_toolchain(include)
    assert "nvcc" in refusal.value.what
    assert "CUDA" in (refusal.value.hint or "")


def test_the_library_is_compiled_for_every_gpu_that_the_compiler_knows(include, nvcc, tmp_path):
    built = build_plugin(tmp_path / "out", include)
    assert built.path == tmp_path / "out" / "libedgead_plugin.so"
    assert built.tensorrt == (10, 3, 0)
    assert built.sha256 == hashlib.sha256(built.path.read_bytes()).hexdigest()
    arguments = built.path.read_text().splitlines()
    codes = [value for option, value in pairwise(arguments) if option == "-gencode"]
    # There is no code for GPUs without constant kernel arguments, and PTX for GPUs newer than the last.
    assert codes == [
        "arch=compute_75,code=sm_75",
        "arch=compute_87,code=sm_87",
        "arch=compute_87,code=compute_87",
    ]
    sources = [Path(argument) for argument in arguments if argument.endswith((".cu", ".cpp"))]
    assert [source.name for source in sources] == ["anomaly_map.cu", "tensorrt_plugin.cpp"]
    assert all(source.is_file() for source in sources)
    assert arguments[arguments.index("-isystem") + 1] == str(include)
    assert arguments[arguments.index("-l:libnvinfer.so.10") - 1] == f"-L{include.parent / 'lib'}"
    assert [file.name for file in built.path.parent.iterdir()] == ["libedgead_plugin.so"]


def test_a_failed_compilation_leaves_the_old_library(include, nvcc, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "libedgead_plugin.so").write_bytes(b"old")
    nvcc.write_text(
        NVCC + "echo 'In file included from here' >&2; echo 'x.h(3): error: no such type' >&2; exit 2\n"
    )
    with pytest.raises(BackendError) as refusal:
        build_plugin(out, include)
    assert str(nvcc) in refusal.value.what
    assert "x.h(3): error: no such type" in refusal.value.what
    assert "In file included" not in refusal.value.what
    assert {file.name: file.read_bytes() for file in out.iterdir()} == {"libedgead_plugin.so": b"old"}


def test_a_compiler_for_old_gpus_alone_is_refused(include, nvcc, tmp_path):
    nvcc.write_text("#!/bin/sh\necho compute_50\necho compute_61\n")
    with pytest.raises(BackendError) as refusal:
        build_plugin(tmp_path / "out", include)
    assert str(nvcc) in refusal.value.what
    assert "CUDA 12" in (refusal.value.hint or "")


def test_a_file_in_the_way_is_refused(include, nvcc, tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(InputError) as refusal:
        build_plugin(tmp_path / "out", include)
    assert str(tmp_path / "out") in refusal.value.what


def test_the_command_prints_path_and_hash(include, nvcc, tmp_path):
    from edgead.cli.plugin import plugin

    out = tmp_path / "out"
    result = CliRunner().invoke(plugin, ["build", "--out", str(out), "--tensorrt-include", str(include)])
    assert result.exit_code == 0, result.output
    library = out / "libedgead_plugin.so"
    digest = hashlib.sha256(library.read_bytes()).hexdigest()
    # Standard output has the result alone; the progress goes to standard error.
    assert result.stdout == f"{library} for TensorRT 10.3.0\nsha256 {digest}\n"


def test_the_default_directory_is_where_builds_and_sessions_look(include, nvcc, tmp_path, monkeypatch):
    from edgead.cli.plugin import plugin

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    result = CliRunner().invoke(plugin, ["build", "--tensorrt-include", str(include)])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(
        f"{plugin_file()} for TensorRT 10.3.0\nsha256 {plugin_sha256(plugin_file())}"
    )
    assert plugin_file().is_relative_to(tmp_path)


LOAD = """
import ctypes, sys
from pathlib import Path
from edgead.plugin.loader import load_plugin

registry = ctypes.CDLL(sys.argv[1])
print(registry.registered_in_edgead())
for _ in range(2):
    load_plugin(Path(sys.argv[2]), sys.argv[3])
    print(registry.registered_in_edgead())
"""


@pytest.mark.parametrize("real", headers()[:1] or [None], ids=lambda p: version_name(p) if p else "none")
def test_the_real_compiler_makes_a_library_that_registers_itself(real, tmp_path):
    if real is None:
        pytest.skip(NO_HEADERS)
    if shutil.which("nvcc") is None:
        pytest.skip("needs nvcc, CUDA's compiler")
    name = f"libnvinfer.so.{headers_version(real)[0]}"
    (tmp_path / "lib").mkdir()
    (tmp_path / "include").symlink_to(real)
    library = tmp_path / "lib" / name
    sources = [DRIVER / "nvinfer.cpp", DRIVER / "library_version.cpp"]
    compile_cpp(real, library, sources, "-shared", "-fPIC", f"-Wl,-soname,{name}")
    built = build_plugin(tmp_path / "out", tmp_path / "include")
    command = [sys.executable, "-c", LOAD, str(library), str(built.path), built.sha256]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.stdout.split() == ["0", "1", "1"], result.stderr


def test_a_changed_library_is_not_loaded(tmp_path):
    library = tmp_path / "libedgead_plugin.so"
    library.write_bytes(b"changed")
    expected, found = (hashlib.sha256(content).hexdigest() for content in (b"compiled", b"changed"))
    with pytest.raises(BackendError) as refusal:
        load_plugin(library, expected)
    assert all(value in refusal.value.what for value in (str(library), expected, found))
    assert "edgead plugin build" in (refusal.value.hint or "")


def test_a_missing_library_is_not_loaded(tmp_path):
    with pytest.raises(BackendError) as refusal:
        load_plugin(tmp_path / "libedgead_plugin.so", "0" * 64)
    assert str(tmp_path / "libedgead_plugin.so") in refusal.value.what
    assert "edgead plugin build" in (refusal.value.hint or "")


def test_another_file_than_a_library_is_not_loaded(tmp_path):
    library = tmp_path / "libedgead_plugin.so"
    library.write_bytes(b"text")
    with pytest.raises(BackendError) as refusal:
        load_plugin(library, hashlib.sha256(b"text").hexdigest())
    assert str(library) in refusal.value.what
    assert isinstance(refusal.value.__cause__, OSError)
    assert "edgead plugin build" in (refusal.value.hint or "")
