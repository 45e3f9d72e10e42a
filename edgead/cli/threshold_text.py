"""Text of `edgead threshold`: the origin of a threshold, and the table of operating points."""

from __future__ import annotations

from collections.abc import Iterator

from edgead.bundle.manifest import Manifest
from edgead.bundle.threshold_changes import ThresholdChange
from edgead.bundle.validation_records import is_cross_fitted
from edgead.scoring.operating_points import Interval, LabelledScores
from edgead.scoring.threshold import Threshold


def origin_lines(manifest: Manifest, part: str) -> Iterator[str]:
    """Describe the threshold of a part: value, origin, images, promise, earlier values.

    Args:
        manifest: Manifest of the bundle.
        part: Name of the part.

    Yields:
        Lines for a terminal.
    """
    threshold, changes = manifest.thresholds[part], manifest.changes.get(part, ())
    yield f"part         {part}"
    yield f"threshold    {threshold.value:.6g}"
    if changes:
        last = changes[-1]
        yield f"set by       {last.set_by}, edgead threshold {last.option}, {last.set_at}"
        yield f"images       {_images(last, is_cross_fitted(manifest, part))}"
    else:
        yield f"set by       edgead build, {manifest.created_at}"
        kind = "cross-fitted" if is_cross_fitted(manifest, part) else "held-out"
        yield f"images       {threshold.n_normal} {kind} images of good parts"
    crossed = is_cross_fitted(manifest, part) and (not changes or changes[-1].n_held_out > 0)
    yield f"promise      {_promise(threshold, crossed)}"
    for number in range(len(changes) - 1, -1, -1):
        source = changes[number - 1].option if number else "edgead build"
        yield f"earlier      {changes[number].previous.value:.6g} ({source}), until {changes[number].set_at}"


def table_lines(labelled: LabelledScores, current: float) -> Iterator[str]:
    """Format the operating points that a person compares, with 95 % intervals.

    Args:
        labelled: Scores of labelled images.
        current: Current threshold.

    Yields:
        Lines for a terminal.
    """
    yield (
        f"{len(labelled.good)} images of good parts, {len(labelled.defects)} of defects; in brackets the 95 % interval"
    )
    yield (
        f"{'threshold':>10}  {'found':>9} {'recall':>20}  {'false alarms':>12} {'rate':>20}  {'precision':>20}  "
        f"{'F1':>20}  rule"
    )
    for name, point in labelled.table(current):
        yield (
            f"{point.threshold:>10.5g}  {f'{point.found}/{point.n_defects}':>9} "
            f"{_share(point.recall, point.recall_interval()):>20}  "
            f"{f'{point.false_alarms}/{point.n_good}':>12} "
            f"{_share(point.false_alarm_rate, point.false_alarm_interval()):>20}  "
            f"{_share(point.precision, point.precision_interval()):>20}  "
            f"{_share(point.f1, point.f1_interval()):>20}  {name}"
        )


def _share(value: float | None, interval: Interval) -> str:
    low, high = interval
    return "-" if value is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _images(change: ThresholdChange, cross_fitted: bool) -> str:
    """Return how many images stand behind a change, and whether those of the build are cross-fitted."""
    if not change.n_good and not change.n_defects:
        return "none: the value was typed"
    kind = "cross-fitted" if cross_fitted else "held-out"
    held_out = (
        f" ({change.n_held_out} {kind}, {change.n_good - change.n_held_out} new)" if change.n_held_out else ""
    )
    defects = f", {change.n_defects} of defects" if change.n_defects else ""
    return f"{change.n_good} of good parts{held_out}{defects}"


def _promise(threshold: Threshold, cross_fitted: bool) -> str:
    """Return what a threshold promises about false alarms."""
    if threshold.false_alarm_rate is None or threshold.confidence is None:
        return "none: the threshold was not set for a false-alarm rate"
    rate, confidence = threshold.false_alarm_rate, threshold.confidence
    promise = f"at most {rate:g} of good parts are false alarms, at confidence {confidence:g}"
    warning = threshold.warning()
    if warning is not None:
        return f"not kept: {warning}"
    return f"{promise} (measured for cross-fitted images, not proven)" if cross_fitted else promise
