"""Targets: those that come with edgead make sense, and whatever is no target is refused by file and key."""

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
NAMES = ("cpu", "datacenter", "jetson-orin", "jetson-thor", "rtx-desktop")


def test_the_names_are_those_of_the_files() -> None:
    assert target_names() == NAMES
    assert sorted(file.stem for file in SHIPPED.iterdir()) == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_target_reads_and_makes_sense(name: str) -> None:
    target = read_target(SHIPPED / f"{name}.toml")
    assert target.backend in BACKENDS
    assert target.description
    assert "\n" not in target.description
    # Whatever else is refused, float32 decides as the model: it is the last to be tried.
    assert target.fallback_order[-1] == "fp32"
    assert set(target.fallback_order) <= set(CANDIDATE_PRECISIONS)
    assert list(target.fallback_order) == [
        candidate_precision
        for candidate_precision in CANDIDATE_PRECISIONS
        if candidate_precision in target.fallback_order
    ], "the fastest first"
    assert 1 <= target.batch.min <= target.batch.opt <= target.batch.max
    assert (target.tensorrt is None) == (target.backend == "onnxruntime")


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
def test_what_is_built_on_the_device_is_for_its_gpu(name: str) -> None:
    target = read_target(SHIPPED / f"{name}.toml")
    assert target.backend == "tensorrt"
    assert target.tensorrt is not None
    assert target.tensorrt.compute_capabilities == ()


GOOD = (SHIPPED / "rtx-desktop.toml").read_text()
CPU = (SHIPPED / "cpu.toml").read_text()
INT8 = "[tolerances.int8]"


def with_line(key: str, line: str, after: str = "") -> str:
    """The target with the line of a key, the first after some text, replaced."""
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
        "table that is none",
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
    ("too large", GOOD + "#" * MAX_TARGET_BYTES, f"larger than {MAX_TARGET_BYTES} bytes"),
    ("deep", "a = " + "[" * 30000 + "]" * 30000, ""),
    ("empty", "", "description"),
]


@pytest.mark.parametrize(("text", "said"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_what_is_no_target_is_refused_by_file_and_key(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(InputError) as refusal:
        read_target(file)
    message = str(refusal.value)
    assert "\n" not in message
    assert str(file) in message
    assert said in message
    assert "engines/targets" in message


def test_the_target_that_the_bad_ones_are_made_of_is_a_good_one(tmp_path: Path) -> None:
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
def test_what_is_no_text_is_refused_by_file(make: Callable[[Path], None], said: str, tmp_path: Path) -> None:
    make(tmp_path / "mine.toml")
    with pytest.raises(InputError, match=f"target {tmp_path / 'mine.toml'}.*{said}") as refusal:
        find_target(None, str(tmp_path / "mine.toml"))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("backend", "target", "name"),
    [
        (None, None, "cpu"),
        ("onnxruntime", None, "cpu"),
        ("tensorrt-rtx", None, "rtx-desktop"),
        ("tensorrt", "jetson-thor", "jetson-thor"),
        (None, "datacenter", "datacenter"),
    ],
)
def test_a_target_is_found_by_name_or_by_backend(backend: str | None, target: str | None, name: str) -> None:
    assert find_target(backend, target) == (name, read_target(SHIPPED / f"{name}.toml"))


def test_a_file_of_ones_own_goes_by_its_name_with_its_ending(tmp_path: Path) -> None:
    file = tmp_path / "line-3.toml"
    file.write_text(CPU.replace("max = 64", "max = 5"))
    name, target = find_target("onnxruntime", str(file))
    assert (name, target.batch.max) == ("line-3.toml", 5)


def test_tensorrt_alone_asks_for_the_device() -> None:
    with pytest.raises(InputError, match="--backend tensorrt needs to know the device") as refusal:
        find_target("tensorrt", None)
    assert "datacenter, jetson-orin, jetson-thor or a file" in str(refusal.value)
    assert "rtx-desktop" not in str(refusal.value)


@pytest.mark.parametrize(
    ("backend", "target", "said"),
    [
        ("tensorrt", "cpu", "target 'cpu' is for onnxruntime, not for tensorrt: leave out --backend"),
        ("onnxruntime", "rtx-desktop", "target 'rtx-desktop' is for tensorrt-rtx, not for onnxruntime"),
        ("abacus", None, f"unknown --backend 'abacus': choose one of {', '.join(BACKENDS)}"),
        (None, "jetson", f"unknown --target 'jetson': choose one of {', '.join(NAMES)} or give a .toml file"),
        (None, "", "unknown --target ''"),
    ],
)
def test_contradictions_and_unknown_names_are_refused(backend: str | None, target: str, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        find_target(backend, target)


def test_a_plan_takes_the_fallback_order_of_its_target() -> None:
    def plan(target: str, precision: str, quantize: str | None = None) -> Plan:
        return Plan.parse(target=target, precision=precision, quantize=quantize)

    assert plan("rtx-desktop", "auto").candidate_precisions == CANDIDATE_PRECISIONS
    assert plan("cpu", "auto").candidate_precisions == ("fp32",)
    assert plan("rtx-desktop", "int8").candidate_precisions == ("int8",)
    assert plan("cpu", "int8", "student").candidate_precisions == ("int8-student",)
    with pytest.raises(InputError, match="--quantize student goes with --precision int8, not auto"):
        plan("cpu", "auto", "student")
    # A candidate precision is what `auto` chooses among, not what a user types.
    with pytest.raises(InputError, match="unknown --precision 'fp16-fp32-tail'"):
        plan("cpu", "fp16-fp32-tail")


def test_an_installed_package_reads_its_own_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "edgead" / "engine"
    (package / "targets").mkdir(parents=True)
    (package / "targets" / "cpu.toml").write_text(CPU.replace("max = 64", "max = 7"))
    monkeypatch.setattr(module, "__file__", str(package / "target.py"))
    assert target_names() == ("cpu",)
    assert find_target(None, None)[1].batch.max == 7


def test_the_wheel_takes_the_targets_along() -> None:
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
def test_a_file_whose_name_no_record_can_hold_is_refused(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_text((SHIPPED / "cpu.toml").read_text())
    with pytest.raises(InputError, match="rename it"):
        find_target(None, str(file))
