"""Options of a build: the head of an engine, options that contradict each other, and the defaults."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import get_type_hints

import pytest

from edgead.engine.plan import HEADS, Plan
from edgead.engine.precision_converter import Calibrating
from edgead.engine.target import find_target
from edgead.errors import InputError
from edgead.files.arguments import PlanOptions
from edgead.plugin.loader import plugin_file


@pytest.fixture(autouse=True)
def no_plugin(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture
def plugin(no_plugin) -> Path:
    plugin_file().parent.mkdir(parents=True)
    plugin_file().write_bytes(b"library")
    return plugin_file()


def parse(target: str, head: str = "auto") -> Plan:
    return Plan.parse(target=target, head=head)


@pytest.mark.parametrize(
    ("target", "head", "expected"),
    [
        ("cpu", "auto", "standard"),
        ("cpu", "standard", "standard"),
        ("rtx-desktop", "auto", "standard"),
        ("rtx-desktop", "standard", "standard"),
        ("rtx-desktop", "plugin", "kernels"),
        ("jetson-orin", "auto", "plugin"),
        ("jetson-orin", "plugin", "plugin"),
        ("jetson-orin", "standard", "standard"),
    ],
)
def test_with_a_plugin(plugin, target, head, expected):
    assert parse(target, head).engine_head() == expected


@pytest.mark.parametrize(
    ("target", "head", "expected"),
    [
        ("jetson-orin", "auto", "standard"),
        ("jetson-orin", "standard", "standard"),
        # The kernels are compiled when the session starts.
        ("rtx-desktop", "plugin", "kernels"),
    ],
)
def test_without_a_plugin(target, head, expected):
    assert parse(target, head).engine_head() == expected


def test_auto_uses_a_plugin_that_is_compiled_later():
    plan = parse("jetson-orin")
    plugin_file().parent.mkdir(parents=True)
    plugin_file().write_bytes(b"library")
    assert plan.engine_head() == "plugin"


def test_a_plugin_that_is_not_compiled_is_refused_with_the_command(tmp_path):
    place = tmp_path / "edgead" / "plugin" / "libedgead_plugin.so"
    with pytest.raises(InputError) as caught:
        parse("jetson-orin", "plugin")
    assert "\n" not in str(caught.value)
    assert "--head plugin" in caught.value.what
    assert str(place) in caught.value.what
    assert "'edgead plugin build'" in caught.value.hint


def test_onnxruntime_has_no_engine(plugin):
    with pytest.raises(InputError) as caught:
        parse("cpu", "plugin")
    for value in ("--head plugin", "'cpu'", "onnxruntime"):
        assert value in caught.value.what
    assert "--backend" in caught.value.hint


@pytest.mark.parametrize("target", ["cpu", "rtx-desktop", "jetson-orin"])
def test_an_unknown_head_is_refused_with_the_choices(target):
    with pytest.raises(InputError) as caught:
        parse(target, "kernels")
    assert "--head 'kernels'" in caught.value.what
    assert ", ".join(HEADS) in caught.value.hint


@pytest.mark.parametrize(
    ("head", "expected"), [("auto", "standard"), ("plugin", "plugin"), ("standard", "standard")]
)
def test_a_version_compatible_engine_carries_the_plugin_when_asked(plugin, head, expected):
    target = find_target(None, "jetson-orin")[1]
    compatible = replace(target, tensorrt=replace(target.tensorrt, version_compatible=True))
    assert Plan("mine", compatible, head=head).engine_head() == expected


OF_INT8 = {"calibrate_on": "noise", "algorithm": "minmax", "quantize": "all", "cache": "clipping_limits.json"}


@pytest.mark.parametrize("option", OF_INT8)
@pytest.mark.parametrize(
    ("target", "precision"),
    # The fallback order of a CPU has only float32.
    [("cpu", "fp32"), ("rtx-desktop", "fp16"), ("rtx-desktop", None), ("cpu", "auto")],
)
def test_an_option_of_int8_is_refused_by_name_where_no_int8_is_tried(option, target, precision):
    with pytest.raises(InputError) as caught:
        Plan.parse(target=target, precision=precision, **{option: OF_INT8[option]})
    assert f"--{option.replace('_', '-')}" in caught.value.what
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("target", "precision"), [("cpu", "int8"), ("jetson-orin", "auto")])
def test_options_of_int8_reach_the_calibration(target, precision):
    plan = Plan.parse(target=target, precision=precision, **OF_INT8)
    assert plan.calibrating == Calibrating("noise", "minmax", Path("clipping_limits.json"))


@pytest.mark.parametrize("quantize", [None, "student"])
def test_int8_is_refused_for_tensorrt_for_rtx_in_one_line(quantize):
    with pytest.raises(InputError) as caught:
        Plan.parse(target="rtx-desktop", precision="int8", quantize=quantize)
    assert "\n" not in str(caught.value)
    assert "int8" in caught.value.what
    assert "'rtx-desktop'" in caught.value.what
    assert "fp16" in caught.value.hint


def test_without_options_it_is_the_default_plan():
    options = dict.fromkeys(name for name in get_type_hints(PlanOptions) if name != "head")
    assert Plan.parse() == Plan.parse(**options) == Plan()


@pytest.mark.parametrize("options", [{"precison": "int8"}, {"confidence": "high"}])
def test_an_unknown_option_or_a_wrong_type_is_refused(options):
    with pytest.raises(InputError):
        Plan.parse(**options)


def test_auto_reports_that_a_target_has_one_candidate(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "edgead")
    plan = Plan.parse(precision="auto", target="cpu")
    assert plan.candidate_precisions == ("fp32",)
    (record,) = caplog.records
    assert {"cpu", "fp32"} <= set(re.findall(r"\w+", record.getMessage()))
    caplog.clear()
    Plan.parse(precision="fp32", target="cpu")
    assert len(Plan.parse(precision="auto", target="jetson-orin").candidate_precisions) > 1
    assert caplog.records == []
