"""The launches that Python plans equal those of the compiled launcher, number for number."""

from __future__ import annotations

import ctypes
import shutil

import pytest

from edgead.errors import BackendError
from edgead.plugin.launches import Arguments, Buffers, launches, workspace_bytes
from edgead.types import HeadSpec
from tests.helpers.host_kernels import FORMATS, HostKernels, compile_host
from tests.helpers.kernel_cases import CASES, features

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++: apt-get install g++")


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    return HostKernels(compile_host(tmp_path_factory.mktemp("launches")))


@needs_compiler
@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("case", CASES[::3], ids=lambda case: case.name)
def test_plan_is_the_launchers(kernels, case, layout):
    library = ctypes.CDLL(str(kernels.library))
    library.launch_arguments.restype = ctypes.POINTER(Arguments)
    library.launch_shared_bytes.restype = library.arguments_size.restype = ctypes.c_size_t
    assert library.arguments_size() == ctypes.sizeof(Arguments)
    teacher, student = features(case)
    for multiprocessors in (1, 16, 132):
        for shift in (0, 1) if layout != "half8" else (0,):
            kernels(
                *(layout, teacher, student, *case.attributes),
                multiprocessors=multiprocessors,
                shift=shift,
            )
            done = [library.launch_arguments(i).contents for i in range(2)]
            scales = done[0].scale[: len(case.shapes)]
            buffers = Buffers(
                [scale.teacher for scale in scales],
                [scale.student for scale in scales],
                *(done[0].maps, done[0].anomaly_map, done[0].anomaly_score),
            )
            spec = HeadSpec(*case.attributes)
            shapes = [feature.shape for feature in teacher]
            planned = launches(layout, shapes, spec, buffers, multiprocessors)
            for i, launch in enumerate(planned):
                assert bytes(launch.arguments) == bytes(done[i])
                assert launch.blocks == library.launch_blocks(i)
                assert launch.shared_bytes == library.launch_shared_bytes(i)


SHAPES = [(1, 8, 4, 4), (1, 16, 2, 2)]


def buffers_of(count: int, address: int = 16) -> Buffers:
    return Buffers([address] * count, [address] * count, 16, 16, 16)


def test_workspace_holds_the_cosine_maps():
    assert workspace_bytes([(3, 8, 4, 5), (3, 16, 2, 2)]) == 4 * 3 * (20 + 4)


@pytest.mark.parametrize(
    ("layout", "shapes", "spec", "buffers", "values"),
    [
        ("float", [], HeadSpec(8, 8), buffers_of(0), ("4", "0")),
        ("float", SHAPES * 3, HeadSpec(8, 8), buffers_of(6), ("4", "6")),
        ("float", SHAPES, HeadSpec(8, 8, sigma=33.0), buffers_of(2), ("32", "33")),
        ("float", SHAPES, HeadSpec(16385, 8), buffers_of(2), ("16384", "16385")),
        (
            "float",
            [(1, 8, 4, 4), (2, 8, 2, 2)],
            HeadSpec(8, 8),
            buffers_of(2),
            ("(1, 8, 4, 4)", "(2, 8, 2, 2)"),
        ),
        ("float", [(1, 0, 4, 4)], HeadSpec(8, 8), buffers_of(1), ("(1, 0, 4, 4)",)),
        ("float", [(8, 8, 16384, 16384)], HeadSpec(8, 8), buffers_of(1), ("(8, 8, 16384, 16384)",)),
        ("half", [(2**14, 8, 2, 2)], HeadSpec(16384, 16384), buffers_of(1), ("16384",)),
        ("float", SHAPES, HeadSpec(8, 8), buffers_of(1), ("1 and 1", "2")),
        ("float", SHAPES, HeadSpec(8, 8), buffers_of(2, 0), ("null",)),
        ("half8", SHAPES, HeadSpec(8, 8), buffers_of(2, 8), ("16",)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_unsupported_arguments_are_refused(layout, shapes, spec, buffers, values):
    with pytest.raises(BackendError) as refusal:
        launches(layout, shapes, spec, buffers, 16)
    assert all(value in refusal.value.what for value in values)
