"""Which head an engine gets: what was asked, what the backend has, and whether the plugin was compiled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgead.engine.plan import HEADS, Plan
from edgead.engine.target import find_recipe
from edgead.errors import InputError
from edgead.plugin.loader import plugin_file


@pytest.fixture(autouse=True)
def no_plugin(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture
def plugin(no_plugin) -> Path:
    plugin_file().parent.mkdir(parents=True)
    plugin_file().write_bytes(b"library")
    return plugin_file()


def parse(recipe: str, head: str = "auto") -> Plan:
    return Plan.parse(
        backend=None,
        target=recipe,
        precision="fp32",
        head=head,
        quantize="all",
        calibrate_on="mixed",
        algorithm="mse",
        cache=None,
        false_alarm_rate=0.01,
        confidence=0.95,
    )


@pytest.mark.parametrize(
    ("recipe", "head", "expected"),
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
def test_with_a_plugin(plugin, recipe, head, expected):
    assert parse(recipe, head).engine_head() == expected


@pytest.mark.parametrize(
    ("recipe", "head", "expected"),
    [
        ("jetson-orin", "auto", "standard"),
        ("jetson-orin", "standard", "standard"),
        # Compiled when the session starts, not before.
        ("rtx-desktop", "plugin", "kernels"),
    ],
)
def test_without_a_plugin(recipe, head, expected):
    assert parse(recipe, head).engine_head() == expected


def test_a_plugin_that_is_compiled_later_is_taken_by_auto_then():
    plan = parse("jetson-orin")
    plugin_file().parent.mkdir(parents=True)
    plugin_file().write_bytes(b"library")
    assert plan.engine_head() == "plugin"


def test_asked_for_and_not_compiled_is_one_line_with_the_command(tmp_path):
    place = tmp_path / "edgead" / "plugin" / "libedgead_plugin.so"
    with pytest.raises(InputError) as caught:
        parse("jetson-orin", "plugin")
    assert str(caught.value) == (
        f"--head plugin needs {place}, which is not there: compile it with 'edgead plugin build'"
    )


def test_onnxruntime_has_no_engine(plugin):
    with pytest.raises(
        InputError, match=r"for engines, and target 'cpu' is for onnxruntime: leave it out, or give"
    ):
        parse("cpu", "plugin")


@pytest.mark.parametrize("recipe", ["cpu", "rtx-desktop", "jetson-orin"])
def test_an_unknown_head_is_refused_with_those_there_are(recipe):
    with pytest.raises(InputError, match=f"unknown --head 'kernels': choose one of {', '.join(HEADS)}"):
        parse(recipe, "kernels")


@pytest.mark.parametrize(
    ("head", "expected"), [("auto", "standard"), ("plugin", "plugin"), ("standard", "standard")]
)
def test_a_version_compatible_engine_carries_the_plugin_when_asked(plugin, head, expected):
    recipe = find_recipe(None, "jetson-orin")[1]
    compatible = replace(recipe, tensorrt=replace(recipe.tensorrt, version_compatible=True))
    assert Plan("mine", compatible, head=head).engine_head() == expected
