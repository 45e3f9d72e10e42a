"""The demo on few and small parts; all of its steps are real."""

import base64
import html.parser
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from edgead.bundle import open_bundle
from edgead.cli.demo import demo as demo_command
from edgead.data.synthetic.conveyor import Conveyor
from edgead.demo.run import run_demo
from edgead.errors import MissingExtraError
from tests.helpers.stream_parts import verdicts_of

pytestmark = pytest.mark.usefixtures("graphs_exported_once")

FEW = {"n_train": 60, "n_test": 5, "epochs": 6, "n_frames": 30, "size_px": 96}


class Page(html.parser.HTMLParser):
    """Text, images and addresses of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.images: list[bytes] = []
        self.addresses: list[str] = []
        self.words: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name == "src" and value is not None and value.startswith("data:image/"):
                self.images.append(base64.b64decode(value.split(",", 1)[1], validate=True))
            elif name in ("src", "href", "xlink:href") and not str(value).startswith("#"):
                self.addresses.append(str(value))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@contextmanager
def logged() -> Iterator[list[str]]:
    """Log lines at level INFO and above, for a fixture of the module, which cannot use pytest's caplog."""
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger, handler = logging.getLogger("edgead"), Lines(logging.INFO)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield lines
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("demo")
    # FFmpeg, addresses of sinks, patterns and pages give each of these characters a meaning.
    out = Path("a:b? %03d #*'\"&[x].")
    with pytest.MonkeyPatch.context() as patch, logged() as said:
        patch.chdir(folder)
        assert run_demo(out, "washer", **FEW) == out / "index.html"
    assert [entry.name for entry in folder.iterdir()] == [out.name]
    return folder / out, said


def test_every_step_left_what_the_page_names(made: tuple[Path, list[str]]) -> None:
    out, said = made
    assert [line.split()[0] for line in said if line[:1].islower() and "  " in line] == [
        "draw", "first", "train", "build", "eval", "stream",
    ]  # fmt: skip
    folder = out / "washer"
    names = {"data", "linear", "run", "bundle", "report", "conveyor.avi", "stream"}
    assert {path.name for path in folder.iterdir()} == names
    assert {path.name for path in (folder / "stream").iterdir()} >= {"verdicts.jsonl", "annotated.mkv"}
    assert str(open_bundle(folder / "bundle").manifest.size) == "96x96"
    assert open_bundle(folder / "linear/bundle").manifest.method == "linear"
    page = Page(out / "index.html")
    assert all(name in page.text for name in names)
    assert page.addresses == ["washer/report/report.html"]
    assert (out / page.addresses[0]).is_file()


def test_the_page_counts_the_verdicts_of_the_stream(made: tuple[Path, list[str]]) -> None:
    out, _ = made
    lines = (out / "washer/stream/verdicts.jsonl").read_text()
    decisions = [verdict["is_anomalous"] for verdict in verdicts_of(lines)]
    truth = [is_defect for _, is_defect in Conveyor("washer", 0, 96, 0.1, 30)]
    assert len(decisions) == 30
    found = sum(a and b for a, b in zip(decisions, truth, strict=True))
    text = Page(out / "index.html").text
    counts = (sum(decisions), found, sum(truth), sum(decisions) - found, 30 - sum(truth))
    assert re.search(r"\b30 of 30\b.* s, " + r"\b\D+\b".join(map(str, counts)) + r"\b", text)


def test_the_page_shows_frames_and_heat_maps_and_the_commands(made: tuple[Path, list[str]]) -> None:
    page = Page(made[0] / "index.html")
    # 24 frames, the loss curve, the colours' legend, and 5 defects and 5 good parts with a heat map each.
    assert len(page.images) == 24 + 1 + 1 + 2 * 10
    for command in ("train", "build", "stream"):
        assert re.search(rf"edgead {command} \S*my-parts", page.text)


def test_again_it_trains_no_second_time_and_makes_the_page_anew(made: tuple[Path, list[str]]) -> None:
    out, _ = made
    weights = out / "washer/run/model.safetensors"
    trained_at = weights.stat().st_mtime_ns
    (out / "index.html").unlink()
    with logged() as said:
        page = run_demo(out, "washer", **FEW)
    assert page.is_file()
    assert any(str(out / "washer/run") in line and "6 epochs" in line for line in said)
    assert weights.stat().st_mtime_ns == trained_at
    # A verdict file that was appended to would hold 60.
    assert len(verdicts_of((out / "washer/stream/verdicts.jsonl").read_text())) == 30


def test_an_unknown_kind_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(demo_command)
    refused = CliRunner().invoke(app, ["--out", str(tmp_path / "demo"), "--kind", "gizmo"])
    assert refused.exit_code == 2
    assert not list(tmp_path.iterdir())


def test_without_the_training_packages_it_names_the_extra_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with pytest.raises(MissingExtraError) as caught:
        demo_command(tmp_path / "demo")
    assert "edgead demo" in caught.value.what
    assert "lightning_fabric" in caught.value.what
    assert "edgead[train]" in caught.value.hint
    assert not list(tmp_path.iterdir())
