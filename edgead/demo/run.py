"""Demo of all steps without a network: the work of `edgead demo`, which new users run first.

Each step calls the function of the command with the same name, on synthetic parts. So a successful demo shows that
everything is installed, and its page shows what to expect with real parts.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgead.bundle import Bundle
from edgead.data import open_dataset
from edgead.data.synthetic.conveyor import write_conveyor_video
from edgead.data.synthetic.dataset import KINDS, write_dataset
from edgead.demo.page import Demo, Step, Streamed, write_demo_page
from edgead.engine.build import build_bundle
from edgead.evaluation.dataset_scores import Scores, score_dataset
from edgead.evaluation.evaluate import Evaluation, evaluate
from edgead.evaluation.report import check_report_packages, write_report
from edgead.files.atomic import check_directory, check_empty, replace_directory
from edgead.files.lock import exclusive
from edgead.runtime import open_session
from edgead.streaming import StreamPolicy, stream
from edgead.streaming.sinks import AnnotatedVideo, JsonLines, RejectFolder
from edgead.streaming.sinks.video import VIDEO_FPS
from edgead.streaming.sources.video import open_video

if TYPE_CHECKING:
    from edgead.training.run import Run

_log = logging.getLogger(__name__)


def run_demo(
    out: Path,
    kind: str,
    *,
    n_train: int = 240,
    n_test: int = 30,
    epochs: int = 10,
    n_frames: int = 100,
    size_px: int = 256,
) -> Path:
    """Draw synthetic parts, train, build, evaluate and stream; a first model in closed form comes before.

    Each kind has its own folder, so `out` can hold demos of several kinds. The page shows the latest one.

    Args:
        out: Folder of all demos.
        kind: Kind of the synthetic parts.
        n_train: Number of good parts to train on.
        n_test: Number of good parts, and of defective parts, to test on.
        epochs: Number of training epochs.
        n_frames: Number of frames of the conveyor video.
        size_px: Height and width of the images and of the model, in pixels.

    Returns:
        Path of the page.

    Raises:
        InputError: If the kind is unknown, or `out` holds other files or cannot be written.
        MissingExtraError: If a package of the training or of the report is not installed.
        EdgeadError: If a step fails.
    """
    check_report_packages()
    _check_place(out)
    with exclusive(out):
        folder, steps = out / kind, _Steps()
        with steps.take("draw", f"{n_train} good parts, and {n_test} good and {n_test} defective to test on"):
            write_dataset(folder / "data", kind, n_train, n_test, n_test, size_px=size_px)
        with steps.take("first", "a model in closed form (linear), trained, built and evaluated"):
            first = _first(folder, size_px)
        with steps.take("train", f"Reverse Distillation, {epochs} epochs, on the good parts alone"):
            run = _train(folder / "data", folder / "run", {"size": size_px, "epochs": epochs})
        with steps.take("build", "an ONNX file that decides as the trained model does, and a threshold"):
            bundle = build_bundle(run, folder / "bundle")
        with steps.take("eval", f"the bundle on the {2 * n_test} parts to test on"):
            evaluation, scores = _evaluate(folder, bundle)
            _report(folder, evaluation, scores)
        with steps.take("stream", f"{n_frames} frames of a conveyor"):
            streamed = _stream(folder, kind, bundle, n_frames, size_px)
        loss = run.path / "loss.png"
        demo = Demo(folder, kind, loss, bundle, first, evaluation, scores, streamed, steps.taken)
        return write_demo_page(out / "index.html", demo)


def _check_place(out: Path) -> None:
    """Raise InputError if a directory cannot be written, or holds files that no demo wrote."""
    check_directory(out)
    found = (
        {entry.name for entry in out.iterdir() if not entry.name.startswith(".")} if out.is_dir() else set()
    )
    if found - {*KINDS, "index.html"} or not found & set(KINDS):
        check_empty(out, "demo")


class _Steps:
    """Logs each step and measures its duration.

    Attributes:
        taken: Finished steps.
    """

    def __init__(self) -> None:
        self.taken: list[Step] = []

    @contextmanager
    def take(self, name: str, text: str) -> Iterator[None]:
        """Log a step at its start and keep it at its end."""
        _log.info("%-6s  %s", name, text)
        started_at = time.monotonic()
        yield
        self.taken.append(Step(name, text, time.monotonic() - started_at))


def _train(data: Path, out: Path, options: dict[str, Any]) -> Run:
    """Train on the good parts; an unfinished run continues."""
    from edgead.training.start import start_training

    return start_training([data], out, options)


def _first(folder: Path, size_px: int) -> Evaluation:
    """Train a first model, build it, and evaluate the bundle."""
    own = folder / "linear"
    own.mkdir(exist_ok=True)
    run = _train(folder / "data", own / "run", {"method": "linear", "size": size_px})
    evaluation, _ = _evaluate(folder, build_bundle(run, own / "bundle"))
    return evaluation


def _evaluate(folder: Path, bundle: Bundle) -> tuple[Evaluation, Scores]:
    """Evaluate a bundle on the test parts."""
    with open_session(bundle) as session:
        scores = score_dataset(session, open_dataset(folder / "data").test, bundle.manifest.size)
    (threshold,) = bundle.manifest.thresholds.values()
    return evaluate(scores, threshold), scores


def _report(folder: Path, evaluation: Evaluation, scores: Scores) -> None:
    """Write the report of the bundle."""
    details = {"model": str(folder / "bundle"), "data": f"{folder / 'data'} (drawn)"}
    setter = ("edgead", "threshold", str(folder / "bundle"))
    write_report(folder / "report", evaluation, scores, details, setter)


def _stream(folder: Path, kind: str, bundle: Bundle, n_frames: int, size_px: int) -> Streamed:
    """Draw the conveyor video and stream it."""
    video, manifest = folder / "conveyor.avi", bundle.manifest
    ((part, threshold),) = manifest.thresholds.items()
    is_defect = write_conveyor_video(video, kind, n_frames, size_px=size_px)
    with replace_directory(folder / "stream") as written, ExitStack() as stack:
        # By path, not by address: a name may hold what begins the options of an address.
        source = stack.enter_context(open_video(video))
        session = stack.enter_context(open_session(bundle))
        sinks = [
            stack.enter_context(JsonLines(str(written / "verdicts.jsonl"))),
            stack.enter_context(AnnotatedVideo(written / "annotated.mkv", source.fps or VIDEO_FPS)),
            stack.enter_context(RejectFolder(written / "rejects")),
        ]
        policy = StreamPolicy(part)
        summary = stream(session, source, sinks, size=manifest.size, threshold=threshold.value, policy=policy)
    return Streamed(folder / "stream", is_defect, summary)
