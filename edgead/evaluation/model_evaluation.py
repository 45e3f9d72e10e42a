"""Evaluation of a model on the test images of a dataset, from opening the model to writing the report."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from edgead.bundle.part_names import choose_part
from edgead.data import left_out_text, open_dataset
from edgead.errors import DataError
from edgead.evaluation.dataset_scores import Scores, score_dataset
from edgead.evaluation.evaluate import Evaluation, evaluate
from edgead.evaluation.report import check_report_packages, write_report
from edgead.files.atomic import check_directory
from edgead.files.lock import exclusive
from edgead.runtime.model import Model

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelEvaluation:
    """Result of an evaluation.

    Attributes:
        evaluation: Metrics.
        scores: Scores and maps from which the metrics were computed.
        details: Description of the model, the data and, if the model serves several parts, the part.
        report: Path of the page; None without a report.
    """

    evaluation: Evaluation
    scores: Scores
    details: Mapping[str, str]
    report: Path | None


def evaluate_model(
    open_model: Callable[[], Model],
    model_path: Path,
    data: Path,
    part: str | None,
    layout: str,
    skip_broken: bool,
    out: Path | None,
) -> ModelEvaluation:
    """Evaluate a model on the test images of a dataset.

    Arguments are checked before the model is opened and before images are read.

    Args:
        open_model: Function that opens the model. The model is closed at the end.
        model_path: Directory of the model, for the commands on the page.
        data: Folder of the dataset.
        part: Name of the part on the images, if the model serves several parts; by default the name of the dataset.
        layout: Folder layout of the dataset, or "auto".
        skip_broken: Whether to skip and count image files that cannot be read.
        out: Directory of the report; None for no report.

    Returns:
        Metrics, scores and report.

    Raises:
        MissingExtraError: If a report is asked for and matplotlib or jinja2 is not installed.
        InputError: If the part is unknown, or `out` cannot be written.
        DataError: If the dataset cannot be used, has no test images, or an image cannot be read.
        BackendError: If the model cannot score the images.
    """
    if out is not None:
        check_report_packages()
        check_directory(out)
    with nullcontext() if out is None else exclusive(out):
        dataset = open_dataset(data, layout)
        if not dataset.test:
            raise DataError(
                f"no images to score: {data} ({dataset.layout}) has good images to train on only",
                hint="give a dataset with test images, such as test/good and test/DEFECT",
            )
        if (line := left_out_text(dataset.left_out, data)) is not None:
            _log.warning("%s", line)
        with open_model() as model:
            chosen = choose_part(model.thresholds, part, dataset.name)
            samples = dataset.read_as(model.bit_depth, model.view).test
            scores = score_dataset(model.session, samples, model.size, skip_broken)
        evaluation = evaluate(scores, model.thresholds[chosen])
        details = {"model": model.description, "data": f"{data} ({dataset.layout})"}
        setter = ["edgead", "threshold", str(model_path)]
        if len(model.parts) > 1:
            details["part"] = chosen
            setter += ["--part", chosen]
        if evaluation.threshold is not None and (warning := evaluation.threshold.warning()) is not None:
            _log.warning("%s", warning)
        is_bundle = (model_path / "manifest.json").is_file()
        report = None
        if out is not None:
            report = write_report(out, evaluation, scores, details, setter if is_bundle else None)
        return ModelEvaluation(evaluation, scores, details, report)
