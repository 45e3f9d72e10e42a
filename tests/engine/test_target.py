"""Targets: the ones in edgead make sense, and an invalid target is rejected with its file and key."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgead.engine import target as module
from edgead.engine.fidelity import PRECISIONS
from edgead.engine.plan import Plan
from edgead.engine.precision_converter import CANDIDATE_PRECISIONS
from edgead.engine.target import MAX_TARGET_BYTES, find_target, read_target, target_names
from edgead.errors import InputError
from edgead.types import BACKENDS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOSITORY = Path(__file__).resolve().parents[2]
SHIPPED = REPOSITORY / "engines" / "targets"
# tests/cli/test_choices.py compares these names with the list of the command line.
NAMES = tuple(sorted(file.stem for file in SHIPPED.iterdir()))


def test_the_names_are_the_names_of_the_files() -> None:
    assert target_names() == NAMES
    assert all(file.suffix == ".toml" for file in SHIPPED.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_target_reads_and_makes_sense(name: str) -> None:
    target = read_target(SHIPPED / f"{name}.toml")
    assert target.backend in BACKENDS
    assert target.description
    assert "\n" not in target.description
    # Float32 always decides as the model, so it is the last to try. An NPU has none.
    assert target.fallback_order[-1] == ("fp16" if target.backend == "openvino-npu" else "fp32")
    assert set(target.fallback_order) <= set(CANDIDATE_PRECISIONS)
    assert list(target.fallback_order) == [
        candidate_precision
        for candidate_precision in CANDIDATE_PRECISIONS
        if candidate_precision in target.fallback_order
    ], "the fastest first"
    assert 1 <= target.batch.min <= target.batch.opt <= target.batch.max
    assert (target.tensorrt is None) == (not target.backend.startswith("tensorrt"))


@pytest.mark.parametrize("name", NAMES)
def test_a_lower_precision_may_be_further_from_the_model(name: str) -> None:
    tolerances = read_target(SHIPPED / f"{name}.toml").tolerances
    for higher, lower in ((tolerances.fp32, tolerances.fp16), (tolerances.fp16, tolerances.int8)):
        assert higher.map_error < lower.map_error < 1.0
        assert higher.score_error < lower.score_error < 1.0
        assert higher.decision_flips <= lower.decision_flips < 0.1
        assert higher.auroc_loss < lower.auroc_loss < 0.1
        assert higher.rank_correlation_min >= lower.rank_correlation_min > 0.9
    assert [tolerances.of(precision) for precision in PRECISIONS] == [
        tolerances.fp32,
        tolerances.fp16,
        tolerances.int8,
    ]


def test_a_target_holds_what_its_file_says() -> None:
    text = tomllib.loads((SHIPPED / "rtx-desktop.toml").read_text())
    target = read_target(SHIPPED / "rtx-desktop.toml")
    assert target.tensorrt is not None
    assert target.tensorrt.compute_capabilities == ("8.6", "8.9", "12.0")
    assert list(target.tensorrt.compute_capabilities) == text["tensorrt"]["compute_capabilities"]
    assert target.tensorrt.workspace_mib == text["tensorrt"]["workspace_mib"]
    assert target.batch.max == text["batch"]["max"]
    assert target.tolerances.int8.map_error == text["tolerances"]["int8"]["map_error"]
    assert target.tolerances.fp16.auroc_loss == text["tolerances"]["fp16"]["auroc_loss"]
    assert list(target.fallback_order) == text["fallback_order"]


@pytest.mark.parametrize("name", ["jetson-orin", "jetson-thor", "datacenter"])
def test_an_engine_that_a_device_builds_is_for_its_gpu(name: str) -> None:
    target = read_target(SHIPPED / f"{name}.toml")
    assert target.backend == "tensorrt"
    assert target.tensorrt is not None
    assert target.tensorrt.compute_capabilities == ()


GOOD = (SHIPPED / "rtx-desktop.toml").read_text()
CPU = (SHIPPED / "cpu.toml").read_text()
INT8 = "[tolerances.int8]"


def with_line(key: str, line: str, after: str = "") -> str:
    """Replace the line of a key in the target, the first one after some text."""
    start = GOOD.index(after)
    changed, count = re.subn(rf"^{key} = .*$", line, GOOD[start:], count=1, flags=re.MULTILINE)
    assert count == 1
    return GOOD[:start] + changed


BAD: list[tuple[str, str, str]] = [
    ("unknown key", with_line("backend", 'backend = "tensorrt-rtx"\nspeed = 3'), "speed"),
    (
        "unknown in a table",
        GOOD.replace("[batch]", "[batch]\nmost = 3"),
        "most",
    ),
    ("unknown in a tolerance", GOOD + "flips = 1\n", "flips"),
    ("missing key", with_line("backend", ""), "backend"),
    ("missing in a tolerance", with_line("map_error", "", INT8), "map_error"),
    ("missing table", GOOD[: GOOD.index(INT8)], "int8"),
    ("missing batch", re.sub(r"\[batch\]\n(.+\n)+", "", GOOD), "batch"),
    (
        "no table",
        re.sub(r"\[batch\]\n(.+\n)+", "", "batch = 3\n" + GOOD),
        "batch",
    ),
    ("bool for int", with_line("max", "max = true"), "max"),
    ("float for int", with_line("max", "max = 8.0"), "max"),
    (
        "text for int",
        with_line("workspace_mib", 'workspace_mib = "1"'),
        "workspace_mib",
    ),
    (
        "int for bool",
        with_line("version_compatible", "version_compatible = 1"),
        "version_compatible",
    ),
    (
        "bool for float",
        with_line("map_error", "map_error = true", INT8),
        "map_error",
    ),
    ("number for text", with_line("description", "description = 3"), "description"),
    (
        "int8 for RTX",
        with_line("fallback_order", 'fallback_order = ["int8-student", "fp16"]'),
        "int8-student",
    ),
    ("no list", with_line("fallback_order", 'fallback_order = "int8"'), "fallback_order"),
    (
        "unknown candidate precision",
        with_line("fallback_order", 'fallback_order = ["int4"]'),
        "fallback_order",
    ),
    (
        "candidate precision in a list",
        with_line("fallback_order", 'fallback_order = [["int8"]]'),
        "fallback_order",
    ),
    (
        "fp32 for an NPU",
        CPU.replace('"onnxruntime"', '"openvino-npu"'),
        "fp32",
    ),
    ("empty fallback_order", with_line("fallback_order", "fallback_order = []"), "fallback_order"),
    (
        "doubled fallback_order",
        with_line("fallback_order", 'fallback_order = ["fp16", "int8", "fp16"]'),
        "fallback_order",
    ),
    ("unknown backend", with_line("backend", 'backend = "abacus"'), "backend"),
    ("NaN tolerance", with_line("score_error", "score_error = nan", INT8), "score_error"),
    ("infinite tolerance", with_line("map_error", "map_error = inf", INT8), "map_error"),
    ("negative tolerance", with_line("auroc_loss", "auroc_loss = -0.1", INT8), "auroc_loss"),
    (
        "rank above 1",
        with_line("rank_correlation_min", "rank_correlation_min = 2"),
        "rank_correlation_min",
    ),
    ("batch upside down", with_line("min", "min = 9"), "batch"),
    (
        "bad capability",
        with_line("compute_capabilities", 'compute_capabilities = ["sm_86"]'),
        "compute_capabilities",
    ),
    ("TensorRT without table", re.sub(r"\[tensorrt\]\n(.+\n)+", "", GOOD), "tensorrt"),
    ("table without TensorRT", CPU + "[tensorrt]\n", "tensorrt"),
    ("no TOML", "backend: onnxruntime\n", "line 1"),
    ("key twice", CPU + "[batch]\nmin = 2\n", "batch"),
    ("too large", GOOD + "#" * MAX_TARGET_BYTES, str(MAX_TARGET_BYTES)),
    ("deep", "a = " + "[" * 30000 + "]" * 30000, ""),
    ("empty", "", "description"),
]


@pytest.mark.parametrize(("text", "key"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_an_invalid_target_is_refused_by_file_and_key(text: str, key: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(InputError) as refusal:
        read_target(file)
    message = str(refusal.value)
    assert "\n" not in message
    assert str(file) in message
    assert key in message
    assert "engines/targets" in message


def test_the_target_that_the_invalid_ones_are_made_from_is_valid(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(GOOD)
    assert read_target(file) == read_target(SHIPPED / "rtx-desktop.toml")
    # A whole number is a number: 1 for 1.0.
    file.write_text(with_line("rank_correlation_min", "rank_correlation_min = 1", INT8))
    value = read_target(file).tolerances.int8.rank_correlation_min
    assert (value, type(value)) == (1.0, float)


def not_utf8(file: Path) -> None:
    file.write_bytes(b'description = "\xff"\n')


@pytest.mark.parametrize(
    ("make", "said"),
    [(not_utf8, "utf-8"), (Path.mkdir, "Is a directory"), (lambda _: None, "No such file or directory")],
)
def test_an_unreadable_file_is_refused_with_the_reason(
    make: Callable[[Path], None], said: str, tmp_path: Path
) -> None:
    make(tmp_path / "mine.toml")
    with pytest.raises(InputError) as refusal:
        find_target(None, str(tmp_path / "mine.toml"))
    assert str(tmp_path / "mine.toml") in str(refusal.value)
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("backend", "target", "name"),
    [
        (None, None, "cpu"),
        ("onnxruntime", None, "cpu"),
        ("openvino", None, "intel"),
        ("openvino-gpu", None, "intel-gpu"),
        (None, "intel-npu", "intel-npu"),
        ("tensorrt-rtx", None, "rtx-desktop"),
        ("tensorrt", "jetson-thor", "jetson-thor"),
        (None, "datacenter", "datacenter"),
    ],
)
def test_a_target_is_found_by_name_or_by_backend(backend: str | None, target: str | None, name: str) -> None:
    assert find_target(backend, target) == (name, read_target(SHIPPED / f"{name}.toml"))


def test_the_name_of_a_target_file_includes_the_suffix(tmp_path: Path) -> None:
    file = tmp_path / "line-3.toml"
    file.write_text(CPU.replace("max = 64", "max = 5"))
    name, target = find_target("onnxruntime", str(file))
    assert (name, target.batch.max) == ("line-3.toml", 5)


def test_tensorrt_alone_asks_for_the_device() -> None:
    with pytest.raises(InputError) as refusal:
        find_target("tensorrt", None)
    assert "--backend tensorrt" in refusal.value.what
    assert refusal.value.hint is not None
    for value in ("--target", "datacenter, jetson-orin, jetson-thor", ".toml"):
        assert value in refusal.value.hint
    assert "rtx-desktop" not in str(refusal.value)


@pytest.mark.parametrize(
    ("backend", "target", "values", "hint"),
    [
        ("tensorrt", "cpu", ("'cpu'", "onnxruntime", "tensorrt"), "--backend"),
        ("onnxruntime", "rtx-desktop", ("'rtx-desktop'", "tensorrt-rtx", "onnxruntime"), "--backend"),
        ("abacus", None, ("--backend 'abacus'",), ", ".join(BACKENDS)),
        (None, "jetson", ("--target 'jetson'",), ", ".join(NAMES)),
        (None, "", ("--target ''",), ", ".join(NAMES)),
    ],
)
def test_contradictions_and_unknown_names_are_refused(
    backend: str | None, target: str, values: tuple[str, ...], hint: str
) -> None:
    with pytest.raises(InputError) as refusal:
        find_target(backend, target)
    for value in values:
        assert value in refusal.value.what
    assert refusal.value.hint is not None
    assert hint in refusal.value.hint


def test_a_plan_takes_the_fallback_order_of_its_target() -> None:
    def plan(target: str, precision: str, quantize: str | None = None) -> Plan:
        return Plan.parse(target=target, precision=precision, quantize=quantize)

    # The faster INT8 is for OpenVINO.
    assert CANDIDATE_PRECISIONS[0] == "int8-less-float"
    assert plan("jetson-orin", "auto").candidate_precisions == CANDIDATE_PRECISIONS[1:]
    # TensorRT for RTX supports INT8 for weights only.
    assert plan("rtx-desktop", "auto").candidate_precisions == ("fp16", "fp16-fp32-tail", "fp32")
    assert plan("cpu", "auto").candidate_precisions == ("fp32",)
    # A CPU computes float16 in float32, and an NPU float32 in float16.
    assert "fp16" not in plan("intel", "auto").candidate_precisions
    assert "fp32" not in plan("intel-npu", "auto").candidate_precisions
    assert plan("jetson-orin", "int8").candidate_precisions == ("int8",)
    assert plan("cpu", "int8", "student").candidate_precisions == ("int8-student",)
    with pytest.raises(InputError) as refusal:
        plan("cpu", "auto", "student")
    for value in ("--quantize student", "--precision auto"):
        assert value in refusal.value.what
    # Only `auto` chooses among all candidate precisions; a user cannot name each of them.
    with pytest.raises(InputError) as unknown:
        plan("cpu", "fp16-fp32-tail")
    assert "--precision 'fp16-fp32-tail'" in unknown.value.what


def test_an_installed_package_reads_its_own_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "edgead" / "engine"
    (package / "targets").mkdir(parents=True)
    (package / "targets" / "cpu.toml").write_text(CPU.replace("max = 64", "max = 7"))
    monkeypatch.setattr(module, "__file__", str(package / "target.py"))
    assert target_names() == ("cpu",)
    assert find_target(None, None)[1].batch.max == 7


def test_the_wheel_includes_the_targets() -> None:
    wheel = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"][
        "wheel"
    ]
    # Where `_folder` looks for them once edgead is installed.
    (source,) = (here for here, there in wheel["force-include"].items() if there == "edgead/engine/targets")
    assert REPOSITORY / source == SHIPPED
    assert SHIPPED.is_dir()


def test_a_wheel_that_is_built_holds_them(tmp_path: Path) -> None:
    from zipfile import ZipFile

    wheel = pytest.importorskip(
        "hatchling.builders.wheel", reason="hatchling is not installed: pip install hatchling"
    )
    (built,) = wheel.WheelBuilder(str(REPOSITORY)).build(directory=str(tmp_path), versions=["standard"])
    with ZipFile(built) as archive:
        held = {name: archive.read(name) for name in archive.namelist() if name.endswith(".toml")}
    assert held == {
        f"edgead/engine/targets/{name}.toml": (SHIPPED / f"{name}.toml").read_bytes() for name in NAMES
    }


@pytest.mark.parametrize("name", ["my line.toml", "x;y.toml", "-" * 130 + ".toml"])
def test_a_file_name_that_no_record_can_hold_is_refused(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_text((SHIPPED / "cpu.toml").read_text())
    with pytest.raises(InputError) as refusal:
        find_target(None, str(file))
    assert repr(name) in refusal.value.what
