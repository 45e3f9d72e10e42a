"""The registry that has the plugin if an engine contains it, tested with the registries of TensorRT-RTX.

The library and the registries are real, and need no GPU. Opening an engine that contains a library needs a GPU. A copy
of the file therefore stands for the library inside the engine, which TensorRT writes to a file of its own too.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.helpers.tensorrt_headers import plugin_for_rtx, said_by


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    library = plugin_for_rtx(tmp_path_factory.mktemp("plugin"))
    shutil.copy(library, library.with_name("inside.so"))
    shutil.copy(library, library.with_name("inside2.so"))
    return library


@pytest.fixture
def steps(library):
    def steps(*steps: str) -> list[str]:
        lines = said_by(
            "registries.py",
            *(f"{name}={library.with_name(file)}" for name, file in (step.split("=") for step in steps)),
        )
        return [line.rstrip() for line in lines.splitlines()]

    return steps


def test_the_builder_of_an_engine_has_it_to_itself(steps):
    # The runtime that opens the engine for its report gets the library inside the engine.
    assert steps("builder=plugin.so", "runtime=inside.so") == [
        "builder takes it: builder",
        "runtime takes it: builder runtime",
    ]


def test_sessions_of_both_kinds_go_together_in_any_order(steps):
    assert steps("process=plugin.so", "runtime=inside.so", "other=inside2.so") == [
        "process takes it: global",
        "runtime takes it: global runtime",
        "other takes it: global runtime other",
    ]
    assert steps("runtime=inside.so", "process=plugin.so") == [
        "runtime takes it: runtime",
        "process takes it: global runtime",
    ]


@pytest.mark.parametrize("first", ["process", "global"])
def test_no_registry_takes_two(steps, first):
    taken, refused = steps(f"{first}=plugin.so", "global=inside.so")
    assert taken == f"{first} takes it: global"
    assert refused.startswith("global refuses it: global ")
    # edgead recognises this error by TensorRT's text.
    assert "exists already" in refused
