"""Every command and example of README and the documentation is run, or its page says why not.

A block of shell commands or Python runs here, in the order of its page, with one small model for all pages. A comment
before a block says otherwise: `<!-- not run: REASON -->`, or `<!-- run by: tests/FILE.py -->`.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import typer

from edgead.cli.main import app
from edgead.streaming.config import read_stream_file
from edgead.training import start
from tests.helpers.api_world import smaller, write_world
from tests.helpers.documents import PAGES, ROOT, Block, blocks_from_text, blocks_of
from tests.helpers.shell import can_run, commands_of, run_command

pytestmark = pytest.mark.usefixtures("graphs_exported_once")

# Code, of which each block is run or marked; and languages of what is shown only.
CODE, SHOWN = ("bash", "python", "toml"), ("json", "text")
# All blocks of this page run there, one after another.
RUN_ELSEWHERE = {"docs/api.md": "tests/test_api_examples.py"}

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
RUN_HERE = [
    block
    for block in BLOCKS
    if block.language in CODE and not block.reason and not block.test and block.page not in RUN_ELSEWHERE
]


def is_covered(block: Block) -> bool:
    """Whether a block is shown only, run by a test, or marked with a reason."""
    if block.language not in CODE:
        return block.language in SHOWN
    if block.reason is not None or block.test is not None:
        return block.reason != ""
    if block.language == "bash":
        return all(map(can_run, commands_of(block.text)))
    return block.language == "python"


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_run_or_marked(page: str) -> None:
    assert [str(block) for block in blocks_of(page) if not is_covered(block)] == []


def test_the_tests_that_run_blocks_are_there() -> None:
    named = {block.test for block in BLOCKS if block.test} | set(RUN_ELSEWHERE.values())
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []


def test_a_block_that_is_neither_run_nor_marked_is_found() -> None:
    text = (
        "```bash\nmake test\n```\n\n<!-- not run: takes minutes -->\n```bash\nmake test\n```\n\n"
        "```bash\nedgead info runs/a | less\n```\n\n- x\n\n  ```\n  edgead doctor\n  ```\n\n"
        "<!-- not run: is another block -->\n\ntext\n\n```toml\na = 1\n```\n\n    edgead doctor\n"
    )
    found = [block.line for block in blocks_from_text(text, "page.md") if not is_covered(block)]
    assert found == [1, 10, 16, 24, 28]


def test_every_command_of_edgead_takes_the_options_that_it_is_shown_with() -> None:
    group: Any = typer.main.get_command(app)
    shown = [
        (block, words[1:])
        for block in BLOCKS
        if block.language == "bash"
        for words in commands_of(block.text)
        if Path(words[0]).name == "edgead"
    ]
    assert len(shown) > 60
    for place, words in shown:
        # Behind a pipe is another program.
        arguments = list(itertools.takewhile("|".__ne__, words))
        context = typer.Context(group, info_name="edgead")
        name, command, rest = group.resolve_command(context, arguments)
        if name == "plugin":
            _, command, rest = command.resolve_command(context, rest)
        assert command.make_parser(context).parse_args(rest), str(place)


def test_the_file_of_several_cameras_is_one(tmp_path: Path) -> None:
    (block,) = (block for block in BLOCKS if block.language == "toml")
    (tmp_path / "password").write_text("secret\n")
    file = tmp_path / "line.toml"
    file.write_text(block.text.replace("/etc/edgead/password", str(tmp_path / "password")))
    assert [camera.name for camera in read_stream_file(file).plan().cameras] == ["left", "right"]


def write_line(root: Path) -> None:
    """Write what the examples find in their working directory: parts, images, a video."""
    write_world(root)
    test = root / "other-parts/test"
    bad = next(folder for folder in sorted(test.iterdir()) if folder.name != "good")
    for source, name in (
        (test / "good", "inbox/day1"),
        (root / "other-parts/train/good", "new-good"),
        (bad, "bad"),
        (test / "good", "feedback/washer/good"),
        (bad, "feedback/washer/defect"),
    ):
        shutil.copytree(source, root / name)
    for source, name in (
        (test / "good/000.png", "inbox/001.png"),
        (test / "good/001.png", "inbox/day1/top-1.png"),
        # A rule for the threshold needs two defects, and these differ from one another enough.
        (test / "good/002.png", "bad/other.png"),
        (test / "good/002.png", "feedback/washer/defect/other.png"),
    ):
        shutil.copy(source, root / name)
    video = cv2.VideoWriter(str(root / "line.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (64, 64))
    for image in sorted((root / "frames").iterdir()):
        video.write(np.asarray(cv2.imread(str(image))))
    video.release()


@pytest.fixture(scope="module")
def restored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], None]]:
    """Function that brings the working directory back to its beginning: it has a run and its bundle."""
    here, kept = (tmp_path_factory.mktemp(name) for name in ("line", "kept"))
    write_line(here)

    def restore() -> None:
        shutil.rmtree(here)
        shutil.copytree(kept, here)
        os.chdir(here)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        patch.setattr(start, "train_run", smaller(start.train_run))
        run_command(["edgead", "train", "my-parts", "--out", "runs/my-parts"])
        run_command(["edgead", "build", "runs/my-parts", "--out", "engines/my-parts"])
        shutil.copytree(here, kept, dirs_exist_ok=True)
        yield restore


@pytest.mark.parametrize("page", sorted({block.page for block in RUN_HERE}))
def test_the_examples_of_a_page_run(page: str, restored: Callable[[], None]) -> None:
    restored()
    # Bundles describe how other runtimes take a batch of images of the model's size.
    names: dict[str, object] = {"__name__": "example", "batch": np.zeros((1, 64, 64, 3), np.uint8)}
    for block in (block for block in RUN_HERE if block.page == page):
        if block.language == "bash":
            for words in commands_of(block.text):
                run_command(words)
        else:
            exec(compile(block.text, str(block), "exec"), names)
