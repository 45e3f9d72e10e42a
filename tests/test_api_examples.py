"""The examples of `docs/api.md` and of the docstrings run, in order, on small synthetic data."""

from __future__ import annotations

import doctest
import inspect
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import edgead
from edgead.training import start
from tests.helpers.api_world import smaller, write_world

# Examples build the same run again.
pytestmark = pytest.mark.usefixtures("graphs_exported_once")

DOCUMENT = Path(__file__).parent.parent / "docs" / "api.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)

FRONT_DOOR = """\
import edgead
run = edgead.train("my-parts", "runs/my-parts", method="rd")             # also a list of folders
bundle = edgead.build(run, "engines/my-parts", target="cpu", precision="fp32")
with edgead.load("engines/my-parts") as model:                          # a bundle or a run
    result = model.predict("part.png")                                  # path, HxWx3 uint8 RGB array, or a list of either
    result.anomaly_score, result.threshold, result.is_anomalous, result.anomaly_map, result.regions
edgead.evaluate("engines/my-parts", "my-parts")
edgead.stream("engines/my-parts", source=0, sinks=["status:"])
"""  # noqa: E501 (word for word)


@pytest.fixture(scope="module")
def spaces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[dict[str, Any]]]:
    """Names after each block of the document, which runs in the working directory of the examples."""
    world = write_world(tmp_path_factory.mktemp("api"))
    names: dict[str, Any] = {"__name__": "api"}
    after = []
    logger = logging.getLogger("edgead")
    level, handlers = logger.level, list(logger.handlers)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(world)
        patch.setattr(start, "train_run", smaller(start.train_run))
        for number, block in enumerate(BLOCKS):
            # No camera is plugged into a machine that runs tests, so a folder of images stands for camera 0.
            runnable = block.replace("source=0", 'source="frames"')
            exec(compile(runnable, f"{DOCUMENT} block {number + 1}", "exec"), names)
            after.append(dict(names))
        yield after
    logger.setLevel(level)
    logger.handlers[:] = handlers


def test_the_front_door_is_the_first_example_word_for_word() -> None:
    assert BLOCKS[0] == FRONT_DOOR
    assert sum(block.count("source=0") for block in BLOCKS) == 1


def test_the_front_door_finds_the_defect(spaces: list[dict[str, Any]]) -> None:
    run, bundle, result = (spaces[0][name] for name in ("run", "bundle", "result"))
    assert (run.path, bundle.path) == (Path("runs/my-parts"), Path.cwd() / "engines/my-parts")
    assert isinstance(result, edgead.Result)
    assert result.is_anomalous is (result.anomaly_score > result.threshold)
    assert result.threshold == bundle.manifest.thresholds["my-parts"].value
    assert result.anomaly_map.shape == (64, 64)
    assert result.anomaly_map.max() == pytest.approx(result.anomaly_score)


def test_every_block_runs(spaces: list[dict[str, Any]]) -> None:
    assert len(spaces) == len(BLOCKS) >= 12
    assert isinstance(spaces[-1]["evaluation"], edgead.Evaluation)
    assert isinstance(spaces[-1]["summary"], edgead.Summary)
    assert spaces[-1]["summary"].frames_scored == 4


def test_every_function_is_in_the_document() -> None:
    text = "".join(BLOCKS)
    functions = [name for name in edgead.__all__ if inspect.isfunction(getattr(edgead, name))]
    assert {"train", "stream", "open_bundle"} <= set(functions)
    assert not [name for name in functions if f"edgead.{name}(" not in text]


@pytest.mark.usefixtures("spaces")
@pytest.mark.parametrize("name", sorted(set(edgead.__all__) - {"__version__"}))
def test_the_examples_of_docstrings_run(name: str) -> None:
    public = getattr(edgead, name)
    found = doctest.DocTestFinder().find(public, name, module=sys.modules[public.__module__], globs={})
    examples = [test for test in found if test.examples]
    if inspect.isfunction(public) or name in ("Model", "FakeSession"):
        assert examples, f"{name} has no example"
    for test in examples:
        assert "Example:" in str(test.docstring)
        failed, _ = doctest.DocTestRunner(verbose=False).run(test)
        assert not failed, test.name
