"""The end of a training: thresholds, the check for a collapse, and the files of a finished run."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgead.data import LoadedImages
from edgead.errors import CollapseError, InputError, TrainingError
from edgead.files.atomic import replace_file
from edgead.files.parsing import write_json
from edgead.files.records import utc_now
from edgead.models import method_class
from edgead.models.base import DistillationMethod
from edgead.runtime.base import Session
from edgead.runtime.framed import infer_rows
from edgead.scoring.cross_fitting import score_ratios
from edgead.scoring.outstanding import log_outstanding
from edgead.scoring.threshold import threshold_from_normal_scores
from edgead.training.images import PartImages
from edgead.training.loop import Fitted
from edgead.training.loss_plot import draw_loss_curve
from edgead.training.records import PartRecord, RunRecord, State
from edgead.training.run import (
    CHECKPOINT_FILE,
    LOSS_IMAGE,
    METRICS_FILE,
    METRICS_TABLE,
    WEIGHTS_FILE,
    Run,
    read_record,
    write_record,
)
from edgead.training.sanity import DRAWN_DEFECTS, Sanity, raised_share
from edgead.training.scale_weights import scale_weights, spread_images
from edgead.training.session import TorchSession
from edgead.types import Float64Array


def finish_run(
    fresh: RunRecord,
    out: Path,
    method: DistillationMethod,
    fitted: Fitted,
    parts: Mapping[str, PartImages],
    seconds: float,
) -> None:
    """Set the weights of the scales and the thresholds, and write the files of a finished run.

    The record is written last, because it marks the run as finished.

    Args:
        fresh: Record of the training as it began.
        out: Run directory.
        method: The trained method. Its head gets the weights.
        fitted: Losses and metrics of the training.
        parts: Good images, by name of the part.
        seconds: Duration of the training.

    Raises:
        EdgeadError: The disk is full.
        TrainingError: Cross-fitted scores have nothing in common with the scores of the final model.
    """
    from safetensors.torch import save

    trained = [part.trained.images for part in parts.values()]
    # The publications have plain sums.
    weights = () if fresh.config.preset == "paper" else scale_weights(method, spread_images(trained))
    method.head = replace(method.head, weights=weights)
    session = TorchSession(method)
    records, raised, begin = {}, {}, 0
    for name, part in parts.items():
        images = part.held_out.images
        records[name] = _record(fresh, name, part, session, fitted, begin)
        raised[name] = raised_share(session, images[:DRAWN_DEFECTS], fresh.config.seed)
        begin += len(images)
    # Later rows of a stage replace earlier ones, so the loss of its last epoch remains.
    after = {row["stage"]: row["holdout_loss"] for row in fitted.metrics}
    losses = list(zip(fitted.losses_before, after.values(), strict=True))
    # A model that sees no defects on one of its parts has collapsed, whatever it sees on the others.
    worst = min(raised, key=lambda name: raised[name])
    sanity = Sanity(losses, raised[worst])
    state = {key: value.cpu().contiguous() for key, value in method.state_dict().items()}
    with replace_file(out / WEIGHTS_FILE) as partial:
        # Not by safetensors' save_file, which does not report a full disk as an OSError.
        partial.write_bytes(save(state))
    write_json(out / METRICS_FILE, fitted.metrics)
    _write_table(out / METRICS_TABLE, fitted.metrics)
    with replace_file(out / LOSS_IMAGE) as partial:
        draw_loss_curve(fitted.metrics, partial)
    collapse = sanity.collapse()
    if collapse is not None and len(parts) > 1 and Sanity(losses, 1.0).collapse() is None:
        collapse = f"{collapse} (on images of {worst})"
    summary = _summary(fitted, sanity, parts, seconds) | {"collapse": collapse}
    outcome: State = "finished" if collapse is None else "collapsed"
    write_record(out, replace(fresh, state=outcome, parts=records, scale_weights=weights, summary=summary))
    (out / CHECKPOINT_FILE).unlink(missing_ok=True)


def _write_table(file: Path, metrics: Sequence[Mapping[str, float]]) -> None:
    """Write the figures of each epoch as CSV, so that each number is read back as it is in JSON."""
    with replace_file(file) as partial, partial.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(metrics[0]))
        writer.writeheader()
        writer.writerows(metrics)


def image_scores(session: Session, loaded: LoadedImages) -> Float64Array:
    """Score images one by one, through their view.

    Args:
        session: Session of the model.
        loaded: N images.

    Returns:
        Scores, (N,) float64.
    """
    scores = np.empty(len(loaded.samples))
    for number in range(len(scores)):
        prediction, framing = infer_rows(session, loaded.rows(number)), loaded.framing(number)
        scores[number] = prediction.anomaly_score[0] if framing is None else framing.join(prediction)[0]
    return scores


def _record(
    fresh: RunRecord, name: str, part: PartImages, session: TorchSession, fitted: Fitted, begin: int
) -> PartRecord:
    """Return the record of a trained part; its images that set the threshold begin at a number of `fitted.scores`."""
    scores = image_scores(session, part.held_out)
    ratios = np.empty(0)
    if part.folds is not None:
        assert fitted.scores is not None
        try:
            ratios = score_ratios(fitted.scores[begin : begin + len(scores)], scores)
        except InputError as error:
            raise TrainingError(
                error.what, hint="give more images, or hold some out with --hold-out 0.3"
            ) from error
        scores *= ratios
    threshold = threshold_from_normal_scores(scores, fresh.config.false_alarm_rate)
    files = (str(sample.path) for sample in part.held_out.samples)
    log_outstanding(threshold, dict(zip(files, scores.tolist(), strict=True)), name, "train again")
    return replace(fresh.parts[name], threshold=threshold, ratios=tuple(ratios.tolist()))


def finished_run(out: Path) -> Run:
    """Open the run that `finish_run` has just written.

    Args:
        out: Run directory.

    Returns:
        The finished run.

    Raises:
        CollapseError: The student learnt nothing, or the score sees no defects.
    """
    record = read_record(out)
    assert record is not None
    if record.state == "collapsed":
        epochs = "" if method_class(record.config.method).closed_form else "more --epochs, "
        raise CollapseError(
            f"the training in {out} collapsed ({record.summary['collapse']})",
            hint=f"try {epochs}another --seed or another --teacher",
        )
    return Run(out, record)


def _summary(
    fitted: Fitted, sanity: Sanity, parts: Mapping[str, PartImages], seconds: float
) -> dict[str, Any]:
    """Return the figures of a training for its record."""
    before, after = sanity.losses[-1]
    return {
        "epochs": len(fitted.metrics),
        "loss": fitted.metrics[-1]["loss"],
        "holdout_loss": after,
        "holdout_loss_before": before,
        "raised_share": sanity.raised_share,
        "broken_images": sum(len(part.trained.broken) + len(part.held_out.broken) for part in parts.values()),
        "seconds": round(seconds, 3),
        "trained_on": {name: len(part.trained.samples) for name, part in parts.items()},
        "finished_at": utc_now(),
    }
