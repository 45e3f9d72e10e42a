"""The end of a training: thresholds, the check for collapse, and the files of a finished run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from edgead.errors import CollapseError
from edgead.files.atomic import replace_file
from edgead.files.parsing import write_json
from edgead.models.base import DistillationMethod
from edgead.scoring.threshold import threshold_from_normal_scores
from edgead.training.images import PartImages
from edgead.training.loop import Fitted
from edgead.training.loss_plot import draw_loss_curve
from edgead.training.run import (
    CHECKPOINT_FILE,
    LOSS_IMAGE,
    METRICS_FILE,
    WEIGHTS_FILE,
    Run,
    RunRecord,
    read_record,
    write_record,
)
from edgead.training.sanity import Sanity, raised_share
from edgead.training.session import TorchSession


def finish_run(
    fresh: RunRecord,
    out: Path,
    method: DistillationMethod,
    fitted: Fitted,
    parts: Mapping[str, PartImages],
    seconds: float,
) -> None:
    """Write what a finished run holds; the record last, because it is what says that the run is finished."""
    from safetensors.torch import save

    session = TorchSession(method)
    records, raised = {}, {}
    for name, part in parts.items():
        images = part.held_out.images
        scores = np.concatenate([session.infer(image[None]).anomaly_score for image in images])
        records[name] = replace(fresh.parts[name], threshold=threshold_from_normal_scores(scores))
        raised[name] = raised_share(session, images, fresh.config.seed)
    # The last row of a stage is the one that counts.
    after = {row["stage"]: row["holdout_loss"] for row in fitted.metrics}
    losses = list(zip(fitted.losses_before, after.values(), strict=True))
    # A model that is blind to one part is no model of these parts.
    worst = min(raised, key=lambda name: raised[name])
    sanity = Sanity(losses, raised[worst])
    state = {key: value.cpu().contiguous() for key, value in method.state_dict().items()}
    with replace_file(out / WEIGHTS_FILE) as partial:
        # Written here and not by safetensors, whose error does not say that the disk is full.
        partial.write_bytes(save(state))
    write_json(out / METRICS_FILE, fitted.metrics)
    with replace_file(out / LOSS_IMAGE) as partial:
        draw_loss_curve(fitted.metrics, partial)
    collapse = sanity.collapse()
    if collapse is not None and len(parts) > 1 and Sanity(losses, 1.0).collapse() is None:
        collapse = f"{collapse} (on images of {worst})"
    broken = sum(len(part.trained.broken) + len(part.held_out.broken) for part in parts.values())
    summary = {
        "loss": fitted.metrics[-1]["loss"],
        "holdout_loss": losses[-1][1],
        "holdout_loss_before": losses[-1][0],
        "raised_share": sanity.raised_share,
        "broken_images": broken,
        "seconds": round(seconds, 3),
        "trained_on": {name: len(part.trained.samples) for name, part in parts.items()},
        "finished_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "collapse": collapse,
    }
    write_record(
        out,
        replace(
            fresh,
            state="finished" if collapse is None else "collapsed",
            parts=records,
            summary=summary,
        ),
    )
    (out / CHECKPOINT_FILE).unlink(missing_ok=True)


def finished_run(out: Path) -> Run:
    """The run that was just written; CollapseError where the student learnt nothing."""
    record = read_record(out)
    assert record is not None
    if record.state == "collapsed":
        raise CollapseError(
            f"the training in {out} collapsed: {record.summary['collapse']}; try more epochs, another seed or teacher"
        )
    return Run(out, record)
