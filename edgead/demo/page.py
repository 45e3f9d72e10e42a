"""The page that `edgead demo` ends with: one file, to open in a browser or to mail."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgead import __version__
from edgead.bundle import Bundle
from edgead.evaluation.evaluate import Evaluation, Scores
from edgead.evaluation.gallery import colour_legend, galleries
from edgead.evaluation.html import data_uri, image_uri, page_template
from edgead.evaluation.report import decision_sentence, figure_text, score_charts
from edgead.files.atomic import replace_file
from edgead.streaming import Summary, open_source

FRAMES_SHOWN = 24


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a demo: the command that does it, what it did, how long it took in seconds."""

    name: str
    text: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Streamed:
    """What streaming left: the folder with verdicts.jsonl and annotated.mkv, and, frame by frame, the truth."""

    folder: Path
    is_defect: tuple[bool, ...]
    summary: Summary


@dataclass(frozen=True, slots=True)
class Demo:
    """What a demo made, as its page shows it. folder: where it lies. loss_image: a PNG."""

    folder: Path
    kind: str
    loss_image: Path
    bundle: Bundle
    evaluation: Evaluation
    scores: Scores
    streamed: Streamed
    steps: Sequence[Step]


@dataclass(frozen=True, slots=True)
class _Shown:
    """A streamed frame on the page: its image as a data URI, the truth, and the decision on it."""

    index: int
    image: str
    is_defect: bool
    is_anomalous: bool


def write_demo_page(path: Path, demo: Demo) -> Path:
    """Write the page of a demo, in place of the one that may be there, and return its path.

    Raises MissingExtraError without matplotlib and jinja2, EdgeadError when the place cannot be written.
    """
    truth, decisions = demo.streamed.is_defect, _decisions(demo.streamed.folder / "verdicts.jsonl")
    page = page_template("demo.html").render(
        version=__version__,
        demo=demo,
        report=f"{demo.folder.name}/report/report.html",
        size_mb=sum(entry.bytes for entry in demo.bundle.manifest.files.values()) / 1e6,
        loss=data_uri("image/png", demo.loss_image.read_bytes()),
        charts=score_charts(demo.evaluation, demo.scores),
        galleries=galleries(demo.scores, demo.evaluation.threshold),
        legend=colour_legend(),
        frames=_shown(demo.streamed.folder / "annotated.mkv", truth, decisions),
        found=sum(defect and decision for defect, decision in zip(truth, decisions, strict=True)),
        false_alarms=sum(decision and not defect for defect, decision in zip(truth, decisions, strict=True)),
        decision_sentence=decision_sentence,
        figure_text=figure_text,
    )
    with replace_file(path) as partial:
        partial.write_text(page, encoding="utf-8")
    return path


def _decisions(verdicts: Path) -> list[bool]:
    lines = [json.loads(line) for line in verdicts.read_text(encoding="utf-8").splitlines()]
    return [line["is_anomalous"] for line in lines if line["event"] == "verdict"]


def _shown(video: Path, truth: Sequence[bool], decisions: Sequence[bool]) -> list[_Shown]:
    """The first frames of the annotated video, as they came."""
    shown = []
    with open_source(str(video)) as frames:
        for frame, is_defect, is_anomalous in zip(frames, truth[:FRAMES_SHOWN], decisions, strict=False):
            shown.append(_Shown(frame.index, image_uri(frame.image), is_defect, is_anomalous))
    return shown
