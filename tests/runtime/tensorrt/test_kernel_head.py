"""The cache of the compiled kernels, and the launches planned from a record."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import pytest

from edgead.plugin.compile import CompiledKernels, source_digest
from edgead.runtime.tensorrt import kernel_head, rtx_cache
from edgead.runtime.tensorrt.feature_record import FeatureRecord
from edgead.runtime.tensorrt.kernel_head import KernelHead, kept_cubin
from edgead.types import HeadSpec


@pytest.fixture
def compiler(monkeypatch, tmp_path):
    """A compiler that takes no time; `calls` are the architectures that it was asked for."""
    calls: list[str] = []

    def compile_kernels(architecture: str) -> CompiledKernels:
        calls.append(architecture)
        return CompiledKernels(architecture, f"code for {architecture}".encode(), "")

    monkeypatch.setattr(kernel_head, "compile_kernels", compile_kernels)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return calls


def kept(tmp_path):
    return sorted((tmp_path / "edgead" / "kernels").iterdir())


def test_kernels_are_compiled_once_for_each_architecture(compiler, tmp_path):
    for architecture in ("sm_86", "sm_120", "sm_86", "sm_120"):
        assert kept_cubin(architecture) == f"code for {architecture}".encode()
    assert compiler == ["sm_86", "sm_120"]
    assert [file.name for file in kept(tmp_path)] == [
        f"{source_digest()}-{architecture}.cubin" for architecture in ("sm_120", "sm_86")
    ]
    assert kept(tmp_path)[0].stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"",
        lambda content: content[:20],
        lambda content: content[:-1],
        lambda content: content[:40] + b"X" + content[41:],
        lambda content: content[:32],
    ],
    ids=["empty", "cut in the hash", "cut", "changed", "hash alone"],
)
def test_damaged_machine_code_is_compiled_again(compiler, tmp_path, change):
    kept_cubin("sm_86")
    (file,) = kept(tmp_path)
    whole = file.read_bytes()
    file.write_bytes(change(whole))
    assert kept_cubin("sm_86") == b"code for sm_86"
    assert compiler == ["sm_86"] * 2
    assert file.read_bytes() == whole


def test_a_file_that_is_too_large_is_not_read(compiler, tmp_path, monkeypatch):
    kept_cubin("sm_86")
    monkeypatch.setattr(rtx_cache, "MAX_BYTES", 8)
    assert kept_cubin("sm_86") == b"code for sm_86"
    assert compiler == ["sm_86"] * 2


def test_a_place_that_cannot_be_written_costs_time_alone(compiler, tmp_path):
    (tmp_path / "edgead").write_text("in the way")
    assert kept_cubin("sm_86") == b"code for sm_86"
    assert kept_cubin("sm_86") == b"code for sm_86"
    assert compiler == ["sm_86"] * 2


def test_other_kernels_have_another_name(monkeypatch, tmp_path):
    before = source_digest()
    for name in ("anomaly_map.h", "a.cuh", "b.cuh"):
        (tmp_path / name).write_text(name)
    monkeypatch.setattr("edgead.plugin.compile.SOURCES", tmp_path)
    named = {before, source_digest()}
    (tmp_path / "a.cuh").write_text("a.cuh b.cuh")
    named.add(source_digest())
    (tmp_path / "anomaly_map.h").write_text("other")
    named.add(source_digest())
    assert len(named) == 4


def test_the_digest_is_of_all_that_is_compiled():
    from edgead.plugin.compile import SOURCES

    # Follow the include lines from the first file on, as the compiler does.
    wanted, waiting = set(), ["anomaly_map.cuh"]
    while waiting:
        name = waiting.pop()
        wanted.add(name)
        lines = (SOURCES / name).read_text().splitlines()
        included = [line.split('"')[1] for line in lines if line.startswith('#include "')]
        waiting.extend(set(included) - wanted)
    assert {name for name in wanted if not name.endswith(".cuh")} == {"anomaly_map.h"}


def test_real_kernels_are_kept(monkeypatch, tmp_path):
    pytest.importorskip("cuda.core", reason="no cuda-core: pip install 'edgead[tensorrt]'")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = kept_cubin("sm_86")
    assert first.startswith(b"\x7fELF")
    monkeypatch.setattr(kernel_head, "compile_kernels", lambda _: pytest.fail("compiled again"))
    assert kept_cubin("sm_86") == first


@pytest.mark.parametrize(("dtype", "kernel", "size"), [("float32", "float", 4), ("float16", "half", 2)])
def test_a_record_becomes_launches_on_its_buffers(monkeypatch, dtype, kernel, size):
    from edgead.plugin.launches import launches

    planned, queued = [], []

    class Kernels:
        def __init__(self, cubin_for):
            assert cubin_for is kept_cubin

        def plan(self, *arguments):
            planned.append(arguments)
            return launches(*arguments, 16)

        def enqueue(self, launches, stream):
            queued.append((launches, stream))

    monkeypatch.setattr(kernel_head, "AnomalyMapKernels", Kernels)
    record = FeatureRecord(
        dtype, ((24, 16, 12), (40, 8, 6)), HeadSpec(64, 48, "multiply", 2.5, False, (0.5, 2.0))
    )
    head = KernelHead(record)
    needed = head.bytes_of_image()
    assert needed == {
        "teacher_features_1": 24 * 16 * 12 * size,
        "teacher_features_2": 40 * 8 * 6 * size,
        "student_features_1": 24 * 16 * 12 * size,
        "student_features_2": 40 * 8 * 6 * size,
        "workspace": (16 * 12 + 8 * 6) * 4,
    }
    names = [*needed, "anomaly_map", "anomaly_score"]
    addresses = {name: 256 * (index + 1) for index, name in enumerate(names)}
    cosine, fuse = head.plan(3, addresses)
    assert (cosine.kernel, fuse.kernel) == (f"edgead_cosine_{kernel}", "edgead_fuse_and_smooth")
    arguments = cosine.arguments
    for k, scale in enumerate(arguments.scale[:2], start=1):
        assert scale.teacher == addresses[f"teacher_features_{k}"]
        assert scale.student == addresses[f"student_features_{k}"]
        assert (scale.channels, scale.height, scale.width) == record.shapes[k - 1]
    assert (arguments.maps, arguments.anomaly_map, arguments.anomaly_score) == tuple(
        addresses[name] for name in ("workspace", "anomaly_map", "anomaly_score")
    )
    assert (arguments.batch, arguments.height, arguments.width, arguments.scales) == (3, 64, 48, 2)
    assert (arguments.multiply, arguments.align_corners) == (1, 0)
    assert [scale.weight for scale in arguments.scale[:2]] == [0.5, 2.0]
    # exp(-d^2 / (2 sigma^2))
    assert arguments.exponent == ctypes.c_float(-0.5 / 2.5**2).value
    head.enqueue((cosine, fuse), SimpleNamespace(handle=0x5EED))
    assert queued == [((cosine, fuse), 0x5EED)]
