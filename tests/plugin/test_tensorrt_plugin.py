"""The TensorRT plugin with TensorRT's own headers, in a program (driver/) that plays TensorRT.

The program uses only the public interface. The kernels are not under test: a launcher records its arguments instead.
The tests run with every version of the headers on this machine, and expect the same of both generations of the
interface.
"""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from edgead.plugin.version import headers_version
from edgead.types import HeadSpec
from tests.helpers.tensorrt_headers import DRIVER, NO_HEADERS, PLUGIN, compile_cpp, headers, version_name

CHECKED = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
NODE = ["height:i:64", "width:i:48"]
ONES = (1.0, 1.0, 1.0, 1.0)
# Of an engine of TensorRT 8.6: layout, height, width, fusion, sigma, align_corners, weights, scales, number of weights.
BYTES = "=iiiififfffii"


@dataclass(frozen=True)
class Driver:
    program: Path
    library: Path
    major: int

    def __call__(self, *arguments: str, launcher: str = "", complains: bool = False) -> list[str]:
        """Run the program, and return its output without the two lines about loading the library."""
        result = subprocess.run(
            [str(self.program), str(self.library), *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, "LAUNCHER": launcher},
        )
        assert result.returncode == 0, f"{result.stdout}{result.stderr}"
        lines = result.stdout.splitlines()
        assert lines[0].startswith(f"TensorRT {self.major}.")
        assert lines[1] == "registered edgead"
        if complains:
            return result.stderr.splitlines()
        assert result.stderr == ""
        return lines[2:]


@pytest.fixture(scope="module", params=headers() or [None], ids=lambda p: version_name(p) if p else "none")
def driver(request, tmp_path_factory) -> Driver:
    include = request.param
    if include is None:
        pytest.skip(NO_HEADERS)
    folder = tmp_path_factory.mktemp("driver")
    shared = ("-shared", "-fPIC", "-fvisibility=hidden")
    compile_cpp(include, folder / "plugin.so", [PLUGIN / "tensorrt_plugin.cpp"], *CHECKED, *shared)
    program = [DRIVER / name for name in ("driver.cpp", "launcher.cpp", "library_version.cpp")]
    compile_cpp(include, folder / "driver", program, *CHECKED, "-rdynamic")
    return Driver(folder / "driver", folder / "plugin.so", headers_version(include)[0])


def value_of(lines: Sequence[str], name: str) -> str:
    (line,) = [line for line in lines if line.startswith(f"{name} ")]
    return line.removeprefix(f"{name} ")


def state_of(driver: Driver, serialized: str) -> dict[str, object]:
    """Parse the plugin's state in an engine, in the layout of each generation."""
    if driver.major >= 10:
        typed = {"i": int, "f": float, "s": str, "v": lambda text: tuple(map(float, text.split(",")))}
        parts = (field.split(":") for field in serialized.split())
        return {name: typed[kind](value) for name, kind, value in parts}
    layout, height, width, fusion, sigma, align_corners, *weights, scales, _ = struct.unpack(
        BYTES, bytes.fromhex(serialized)
    )
    assert layout == 2
    return {
        "height": height,
        "width": width,
        "fusion": ("add", "multiply")[fusion],
        "sigma": sigma,
        "align_corners": align_corners,
        "weights": tuple(weights),
        "scales": scales,
    }


def test_registers_when_loaded_and_steps_aside_when_asked(driver):
    lines = driver("registry")
    # There is one creator each time. The library withdraws its own registration, TensorRT registers the creator, and
    # it stays registered when TensorRT asks again.
    assert lines[:3] == ["creators 1, registered 0", "accepted 1", "creators 1, registered 1"]


@pytest.mark.parametrize("number", [8600, 8602, 100301, 110101])
def test_another_version_of_the_library_gets_no_registration(driver, number):
    result = subprocess.run(
        [str(driver.program), str(driver.library), "registry"],
        capture_output=True,
        text=True,
        env={**os.environ, "LIBRARY_VERSION": str(number)},
    )
    assert result.returncode == 0, f"{result.stdout}{result.stderr}"
    (complaint,) = result.stderr.splitlines()
    assert str(number) in complaint
    # From TensorRT 10 on it may ask for the creator, as for an engine of another version that has the library inside.
    assert result.stdout.splitlines()[1] == f"creators {int(driver.major >= 10)}, registered 0"


def test_its_fields_are_the_attributes_of_the_node(driver):
    # PluginFieldType: kFLOAT32 is 1, kINT32 is 5, kCHAR is 6.
    kinds = {"height": 5, "width": 5, "fusion": 6, "sigma": 1, "align_corners": 5, "weights": 1}
    assert [field.name for field in fields(HeadSpec)] == list(kinds)
    assert driver("registry")[3:] == [f"field {name} {kind}" for name, kind in kinds.items()]


@pytest.mark.parametrize(
    ("given", "changed"),
    [
        ([], {}),
        (["align_corners:i:0", "sigma:f:2.5"], {"sigma": 2.5, "align_corners": 0}),
        (["fusion:s:multiply"], {"fusion": "multiply"}),
        (["fusion:S:multiply"], {"fusion": "multiply"}),
        (["fusion:S:add"], {}),
        (["sigma:f:0"], {"sigma": 0.0}),
        (["sigma:f:32"], {"sigma": 32.0}),
        (["weights:f:0.5"], {"weights": (0.5, 1.0, 1.0, 1.0)}),
        (["weights:v:0.25,0.5,3"], {"weights": (0.25, 0.5, 3.0, 1.0)}),
        (["weights:v:4,3,2,0.5"], {"weights": (4.0, 3.0, 2.0, 0.5)}),
    ],
)
def test_attributes_arrive(driver, given, changed):
    lines = driver("create", *NODE, *given)
    defaults = {
        "height": 64, "width": 48, "fusion": "add", "sigma": 4.0, "align_corners": 1, "weights": ONES, "scales": 0,
    }  # fmt: skip
    assert lines[0] == "created"
    assert state_of(driver, value_of(lines, "serialized")) == {**defaults, **changed}


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (["width:i:48"], "'height' is missing"),
        (["height:i:64"], "'width' is missing"),
        ([], "'height' is missing"),
        (["height:i:0", "width:i:48"], "not 0 and 48"),
        (["height:i:64", "width:i:-1"], "not 64 and -1"),
        (["height:i:16385", "width:i:48"], "not 16385 and 48"),
        (["height:f:64", "width:i:48"], "'height' has type 1"),
        (["height:p:64", "width:i:48"], "'height' has type 5 and length 2"),
        (["height:n:", "width:i:48"], "'height' has type 5"),
        ([*NODE, "width:i:48"], "'width' is given twice"),
        ([*NODE, "depth:i:3"], "unknown field 'depth'"),
        ([*NODE, "scales:i:2"], "unknown field 'scales'"),
        ([*NODE, "fusion:s:sum"], "not 'sum'"),
        ([*NODE, "fusion:s:"], "not ''"),
        ([*NODE, "fusion:S:ad"], "not 'ad'"),
        ([*NODE, "fusion:S:addition"], "not 'addition'"),
        ([*NODE, "fusion:i:1"], "'fusion' has type 5"),
        ([*NODE, "sigma:f:-1"], "not -1"),
        ([*NODE, "sigma:f:nan"], "not nan"),
        ([*NODE, "sigma:f:inf"], "not inf"),
        ([*NODE, "sigma:f:32.5"], "not 32.5"),
        ([*NODE, "sigma:d:4"], "'sigma' has type 2"),
        ([*NODE, "align_corners:i:2"], "not 2"),
        ([*NODE, "weights:v:1,0"], "not 0"),
        ([*NODE, "weights:v:1,-2"], "not -2"),
        ([*NODE, "weights:v:1,inf"], "not inf"),
        ([*NODE, "weights:v:nan"], "not nan"),
        ([*NODE, "weights:v:1,1,1,1,1"], "'weights' has type 1 and length 5"),
        ([*NODE, "weights:v:"], "'weights' has type 1 and length 0"),
        ([*NODE, "weights:i:1"], "'weights' has type 5"),
    ],
)
def test_bad_attributes_are_refused_and_reported(driver, given, complaint):
    log, answer = driver("create", *given)
    assert answer == "refused"
    assert log.startswith("log 1 edgead::AnomalyMap: ")
    assert complaint in log


def test_64_bit_numbers_are_refused(driver):
    if driver.major < 10:
        pytest.skip("TensorRT 8.6 has no such fields")
    log, answer = driver("create", "height:l:64", "width:i:48")
    assert answer == "refused"
    assert "'height' has type 10" in log


def test_reports_to_standard_error_before_there_is_a_logger(driver):
    assert driver("unheard", "width:i:48", complains=True) == [
        "edgead::AnomalyMap: field 'height' is missing"
    ]


@pytest.mark.parametrize("inputs", [2, 4, 8])
def test_output_shapes(driver, inputs):
    assert driver("outputs", str(inputs), *NODE) == ["shape N 1 64 48", "shape N", "types 0 0"]


@pytest.mark.parametrize("inputs", [0, 3, 7, 10, 18])
def test_inputs_that_are_not_pairs_have_no_outputs(driver, inputs):
    log, answer = driver("outputs", str(inputs), *NODE)
    assert answer == "refused"
    assert f"not {inputs} inputs" in log


@pytest.mark.parametrize("inputs", [2, 4])
def test_features_are_all_of_one_format_and_outputs_are_float(driver, inputs):
    # DataType: kFLOAT is 0, kHALF is 1. TensorFormat: kLINEAR is 0, kHWC8 is 2.
    expected = [f"supported {' '.join([features] * inputs)} 0/0 0/0" for features in ("0/0", "1/0", "1/2")]
    assert driver("formats", str(inputs), *NODE) == expected


@pytest.mark.parametrize(("features", "number"), [("float", 0), ("half", 1), ("half8", 2)])
@pytest.mark.parametrize("shapes", [["24x16x16"], ["24x16x12", "40x8x6", "112x4x3"], ["8x9x9"] * 4])
def test_a_life_from_node_to_launch(driver, features, number, shapes):
    count = len(shapes)
    dims = [f"3x{shape}" for shape in shapes] * 2
    weights = (0.5, 2.0, 0.25, 4.0)[:count]
    given = [*NODE, "fusion:s:multiply", "sigma:f:2.5", "align_corners:i:0"]
    given.append(f"weights:v:{','.join(map(str, weights))}")
    lines = driver("life", features, *dims, "--", *given)
    asked = (
        f"height=64 width=48 scales={count} fusion=1 sigma=2.5 align_corners=0 "
        f"weights={','.join(f'{weight:g}' for weight in weights)} {' '.join(shapes)}"
    )

    assert value_of(lines, "plugin") == "edgead::AnomalyMap 1 outputs 2"
    assert value_of(lines, "configure") == "1"
    # The workspace is for the largest batch of the profile, which is twice the batch that runs.
    assert value_of(lines, "workspace_bytes") == f"batch=6 {asked}"
    assert value_of(lines, "workspace") == str(6000 + count)
    state = state_of(driver, value_of(lines, "serialized"))
    assert state == {
        "height": 64, "width": 48, "fusion": "multiply", "sigma": 2.5, "align_corners": 0,
        "weights": (*weights, *ONES[count:]), "scales": count,
    }  # fmt: skip
    assert value_of(lines, "again") == value_of(lines, "serialized")
    assert value_of(lines, "prepare") == "1"
    teacher = [f"teacher={0x100 * (k + 1):x}" for k in range(count)]
    student = [f"student={0x100 * (count + k + 1):x}" for k in range(count)]
    addresses = [*teacher, *student, "workspace=c00", "map=a00", "score=b00", "stream=d00"]
    assert value_of(lines, "launch") == f"batch=3 {asked} format={number} {' '.join(addresses)}"
    assert value_of(lines, "enqueue") == "0"


@pytest.mark.parametrize(
    ("dims", "complaint"),
    [
        (["2x24x16x16", "2x24x16x15"], "dimension 3 of input 1 is 15, of its pair 16"),
        (["2x24x16x16", "2x25x16x16"], "dimension 1 of input 1 is 25, of its pair 24"),
        (["2x8x8x8", "2x8x8x8", "2x8x8x8", "2x8x9x8"], "dimension 2 of input 3 is 9, of its pair 8"),
        (["2x8x8x8", "3x4x4x4", "2x8x8x8", "2x4x4x4"], "dimension 0 of input 1"),
        (["2x24x16", "2x24x16"], "input 0 has 3 dimensions"),
        (["2x24x16385x16", "2x24x16385x16"], "dimension 2 of input 0 is 16385"),
        (["2x0x16x16", "2x0x16x16"], "dimension 1 of input 0 is 0"),
        (["2x8x8x8"] * 3, "not 3 inputs"),
        (["2x8x8x8"] * 18, "not 18 inputs"),
    ],
)
def test_features_that_are_not_pairs_are_never_run(driver, dims, complaint):
    lines = driver("life", "float", *dims, "--", *NODE)
    assert any(line.startswith("log 1 ") and complaint in line for line in lines)
    # In TensorRT 8.6 a plugin cannot refuse its configuration. It asks for more memory than any device has instead.
    assert value_of(lines, "configure") == ("0" if driver.major >= 10 else "1")
    assert value_of(lines, "workspace") == str(2**62)
    assert value_of(lines, "enqueue") == "1"
    assert not any(line.startswith("launch ") for line in lines)


def test_weights_of_another_number_of_scales_are_not_configured(driver):
    lines = driver("life", "float", *["2x8x8x8", "2x4x4x4"] * 2, "--", *NODE, "weights:v:1,2,3")
    assert any(line.startswith("log 1 ") and "3 weights do not fit 2 scales" in line for line in lines)
    assert value_of(lines, "configure") == ("0" if driver.major >= 10 else "1")
    assert value_of(lines, "workspace") == str(2**62)


def test_an_error_of_cuda_is_a_status_and_a_report(driver):
    lines = driver("life", "half", *["1x8x4x4"] * 2, "--", *NODE, launcher="error")
    assert value_of(lines, "enqueue") == "1"
    assert "log 1 edgead::AnomalyMap: invalid argument" in lines


def test_no_exception_leaves_it(driver):
    lines = driver("life", "half", *["1x8x4x4"] * 2, "--", *NODE, launcher="throw")
    assert value_of(lines, "workspace") == str(2**62)
    assert value_of(lines, "enqueue") == "1"
    assert "log 1 edgead::AnomalyMap: the launcher threw an exception" in lines


def test_does_not_run_before_it_knows_its_inputs(driver):
    log, status = driver("unconfigured", *NODE)
    assert status == "enqueue 1"
    assert "before it was run" in log


ENGINE = [*NODE, "fusion:s:add", "sigma:f:4", "align_corners:i:1", "weights:v:1,2,1,1", "scales:i:2"]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (ENGINE[:-1], "'scales' is missing"),
        (ENGINE[1:], "'height' is missing"),
        ([*ENGINE[:2], *ENGINE[3:]], "'fusion' is missing"),
        ([*ENGINE[:-2], *ENGINE[-1:]], "'weights' is missing"),
        ([*ENGINE[:-2], "weights:v:1,2", *ENGINE[-1:]], "'weights' has type 1 and length 2"),
        ([*ENGINE[:-1], "scales:i:5"], "not 5"),
        ([*ENGINE[:-1], "scales:i:-1"], "not -1"),
        ([*ENGINE, "depth:i:3"], "unknown field 'depth'"),
    ],
)
def test_what_an_engine_holds_is_checked_in_fields(driver, given, complaint):
    if driver.major < 10:
        pytest.skip("an engine of TensorRT 8.6 holds bytes")
    assert driver("reopen", *ENGINE) == ["created"]
    log, answer = driver("reopen", *given)
    assert answer == "refused"
    assert complaint in log


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ((1, 64, 48, 0, 4.0, 1, *ONES, 2, 2), "layout 1"),
        ((2, 0, 48, 0, 4.0, 1, *ONES, 2, 2), "not 0 and 48"),
        ((2, 64, 48, 2, 4.0, 1, *ONES, 2, 2), "fusion is 0 or 1, not 2"),
        ((2, 64, 48, 0, float("nan"), 1, *ONES, 2, 2), "not nan"),
        ((2, 64, 48, 0, 4.0, -1, *ONES, 2, 2), "not -1"),
        ((2, 64, 48, 0, 4.0, 1, *ONES[1:], -3.0, 2, 2), "not -3"),
        ((2, 64, 48, 0, 4.0, 1, *ONES, 5, 0), "not 5"),
        ((2, 64, 48, 0, 4.0, 1, *ONES, 2, 5), "not 5"),
    ],
)
def test_what_an_engine_holds_is_checked_in_bytes(driver, values, complaint):
    if driver.major >= 10:
        pytest.skip("an engine of TensorRT 10 holds fields")
    good = struct.pack(BYTES, 2, 64, 48, 0, 4.0, 1, *ONES, 2, 0)
    assert driver("reopen", good.hex()) == ["created"]
    for data, expected in (
        (struct.pack(BYTES, *values), complaint),
        (good[:-1], "47 bytes"),
        (good + b"\0", "49"),
    ):
        log, answer = driver("reopen", data.hex())
        assert answer == "refused"
        assert expected in log
