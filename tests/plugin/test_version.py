"""The versions of TensorRT's headers and of its library, and a plugin in a process with another version."""

from __future__ import annotations

import hashlib
import subprocess

import pytest

from edgead.errors import BackendError
from edgead.plugin.loader import load_plugin
from edgead.plugin.version import headers_version, version_from_number
from tests.helpers.tensorrt_headers import NO_HEADERS, compile_cpp, compile_version, headers, version_name

PLAIN = "#define NV_TENSORRT_MAJOR 8 //!< x\n#define NV_TENSORRT_MINOR 6 //!< x\n#define NV_TENSORRT_PATCH 1 //!< x\n"
NAMED = "".join(
    f"#define TRT_{part}_ENTERPRISE {number}\n#define NV_TENSORRT_{part} TRT_{part}_ENTERPRISE //!< x\n"
    for part, number in (("MAJOR", 11), ("MINOR", 1), ("PATCH", 0))
)
PRINT = """#include <NvInfer.h>
#include <cstdio>
int main() {
    std::printf("%d.%d.%d %d", NV_TENSORRT_MAJOR, NV_TENSORRT_MINOR, NV_TENSORRT_PATCH, int(NV_TENSORRT_VERSION));
}
"""


@pytest.mark.parametrize(("text", "version"), [(PLAIN, (8, 6, 1)), (NAMED, (11, 1, 0))])
def test_the_version_is_read_from_the_headers(tmp_path, text, version):
    (tmp_path / "NvInferVersion.h").write_text(text)
    assert headers_version(tmp_path) == version


def test_headers_without_a_version_are_refused(tmp_path):
    (tmp_path / "NvInferVersion.h").write_text(PLAIN.replace("PATCH 1", "PATCH OTHER"))
    with pytest.raises(BackendError) as refusal:
        headers_version(tmp_path)
    assert str(tmp_path / "NvInferVersion.h") in refusal.value.what
    assert "--tensorrt-include" in (refusal.value.hint or "")


# NV_TENSORRT_VERSION counts in thousands up to 9 and in ten thousands from 10 on.
@pytest.mark.parametrize(
    ("number", "version"),
    [(8600, (8, 6, 0)), (8601, (8, 6, 1)), (100001, (10, 0, 1)), (101303, (10, 13, 3)), (110100, (11, 1, 0))],
)
def test_the_number_of_the_library_is_split(number, version):
    assert version_from_number(number) == version


@pytest.mark.parametrize("include", headers() or [None], ids=lambda p: version_name(p) if p else "none")
def test_the_compiler_reads_the_same_version_from_real_headers(include, tmp_path):
    if include is None:
        pytest.skip(NO_HEADERS)
    (tmp_path / "print.cpp").write_text(PRINT)
    compile_cpp(include, tmp_path / "print", [tmp_path / "print.cpp"])
    result = subprocess.run([tmp_path / "print"], capture_output=True, text=True, check=True)
    text, number = result.stdout.split()
    assert ".".join(map(str, headers_version(include))) == text
    assert headers_version(include) == version_from_number(int(number))


def test_a_plugin_of_another_version_is_refused_by_name(tmp_path):
    answers = {"edgead_tensorrt_of_headers": 8601, "edgead_tensorrt_of_library": 8600}
    library = compile_version(tmp_path / "plugin.so", answers)
    with pytest.raises(BackendError) as refusal:
        load_plugin(library, hashlib.sha256(library.read_bytes()).hexdigest())
    assert all(value in refusal.value.what for value in (str(library), "8.6.1", "8.6.0"))
    assert "edgead plugin build" in (refusal.value.hint or "")


def test_a_library_without_versions_is_refused(tmp_path):
    library = compile_version(tmp_path / "plugin.so", {"other": 1})
    with pytest.raises(BackendError) as refusal:
        load_plugin(library, hashlib.sha256(library.read_bytes()).hexdigest())
    assert isinstance(refusal.value.__cause__, AttributeError)
    assert "edgead plugin build" in (refusal.value.hint or "")
