"""Page of `edgead demo`: one file to open in a browser or to send by mail."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgead import __version__
from edgead.bundle import Bundle
from edgead.evaluation.dataset_scores import Scores
from edgead.evaluation.evaluate import Evaluation
from edgead.evaluation.gallery import colour_legend, galleries
from edgead.evaluation.html import data_uri, image_uri, page_template
from edgead.evaluation.report import decision_sentence, figure_text, score_charts
from edgead.files.atomic import replace_file
from edgead.streaming import Summary, open_source

FRAMES_SHOWN = 24


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a demo.

    Attributes:
        name: Name of the step: "draw", or the command of edgead.
        text: Description of the work.
        seconds: Duration in seconds.
    """

    name: str
    text: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Streamed:
    """Result of the stream.

    Attributes:
        folder: Folder with verdicts.jsonl and annotated.mkv.
        is_defect: Whether the part on each frame is defective.
        summary: Summary of the stream.
    """

    folder: Path
    is_defect: tuple[bool, ...]
    summary: Summary


@dataclass(frozen=True, slots=True)
class Demo:
    """Results of a demo, as its page shows them.

    Attributes:
        folder: Folder of all results.
        kind: Kind of the synthetic parts.
        loss_image: Path of the loss plot, a PNG file.
        bundle: The bundle.
        first: Metrics of the first model on the test images.
        evaluation: Metrics of the bundle on the test images.
        scores: Scores and maps from which the metrics were computed.
        streamed: Result of the stream.
        steps: Steps in the order of their execution.
    """

    folder: Path
    kind: str
    loss_image: Path
    bundle: Bundle
    first: Evaluation
    evaluation: Evaluation
    scores: Scores
    streamed: Streamed
    steps: Sequence[Step]


@dataclass(frozen=True, slots=True)
class _Shown:
    """A streamed frame on the page.

    Attributes:
        index: Number of the frame.
        image: Data URI of the annotated frame.
        is_defect: Whether the part is defective.
        is_anomalous: Decision of the stream.
    """

    index: int
    image: str
    is_defect: bool
    is_anomalous: bool


def write_demo_page(path: Path, demo: Demo) -> Path:
    """Write the page of a demo atomically.

    Args:
        path: Path of the page; an existing page is replaced.
        demo: Results of the demo.

    Returns:
        The same path.

    Raises:
        MissingExtraError: If matplotlib or jinja2 is not installed.
        EdgeadError: If the page cannot be written.
    """
    truth, decisions = demo.streamed.is_defect, _decisions(demo.streamed.folder / "verdicts.jsonl")
    page = page_template("demo.html").render(
        version=__version__,
        demo=demo,
        first_seconds=next(step.seconds for step in demo.steps if step.name == "first"),
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
    """Decision of each verdict in a JSON Lines file."""
    lines = [json.loads(line) for line in verdicts.read_text(encoding="utf-8").splitlines()]
    return [line["is_anomalous"] for line in lines if line["event"] == "verdict"]


def _shown(video: Path, truth: Sequence[bool], decisions: Sequence[bool]) -> list[_Shown]:
    """The first frames of the annotated video, in their order."""
    shown = []
    with open_source(str(video)) as frames:
        for frame, is_defect, is_anomalous in zip(frames, truth[:FRAMES_SHOWN], decisions, strict=False):
            shown.append(_Shown(frame.index, image_uri(frame.image), is_defect, is_anomalous))
    return shown
