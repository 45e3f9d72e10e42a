"""Rejects a graph or an engine that decides differently from its reference, with a table of what was measured.

`edgead build` prints the same table for a bundle that it wrote. In the table of a refusal an asterisk marks each
measure that is outside the tolerance.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict
from types import MappingProxyType

from edgead.engine.fidelity import FidelityReport, ToleranceLimits, exact_limits
from edgead.engine.reference import Compared
from edgead.errors import VerificationError
from edgead.runtime.agreement import compare_sessions
from edgead.runtime.base import Session
from edgead.types import UInt8Array

_ROWS = (
    ("map_error_max", "map error"),
    ("score_error_max", "score error"),
    ("rank_correlation", "rank correlation"),
    ("decision_flips", "decision flips"),
    ("auroc_change", "AUROC change"),
)


def verify(
    reference: Session,
    built: Session,
    images: UInt8Array,
    threshold: float,
    limits: ToleranceLimits | None = None,
    part: str | None = None,
) -> FidelityReport:
    """Compare a built graph or engine with its reference, and reject it if a difference is over its limit.

    Args:
        reference: Session of the reference.
        built: Session of the built graph or engine.
        images: Images at the model's size, (N, H, W, 3) uint8 RGB, N >= 1.
        threshold: Threshold between good and defect, for both sessions.
        limits: Limits of the comparison; `exact_limits` by default.
        part: Name of the part for the message, if the model has several.

    Returns:
        The differences.

    Raises:
        VerificationError: If a difference is over its limit.
        EdgeadError: Any error that `Session.infer` raises.
    """
    comparison = FidelityReport(compare_sessions(reference, built, images, threshold))
    limits = exact_limits(threshold) if limits is None else limits
    require_each(
        {"": (comparison, limits)},
        "the graph" if part is None else f"the graph for {part}",
        "try other versions of torch and onnxruntime, which 'edgead doctor' shows",
    )
    return comparison


def require_each(compared: Compared, subject: str, hint: str) -> None:
    """Reject a model if the comparison of one of its parts is over a limit.

    Args:
        compared: Differences and limits by part.
        subject: Description of the graph or engine, at the beginning of the message.
        hint: Hint of the error.

    Raises:
        VerificationError: If a difference is over its limit, see `refusal`.
    """
    if any(comparison.over(limits) for comparison, limits in compared.values()):
        raise refusal(compared, subject, hint)


def refusal(
    compared: Compared,
    subject: str,
    hint: str,
    halves: Mapping[str, Compared] = MappingProxyType({}),
) -> VerificationError:
    """Make the error for a graph or engine that is outside its tolerance.

    Args:
        compared: Differences and limits by part.
        subject: Description of the graph or engine, such as "int8".
        hint: Hint of the error.
        halves: Differences of graphs in which one half alone is quantised, by the name of the half.

    Returns:
        The error, with the table of each part that is outside the tolerance.
    """
    outside = {part: over for part, measured in compared.items() if (over := measured[0].over(measured[1]))}
    several = len(compared) > 1
    named = "; ".join(
        f"{f'on {part}: ' if several else ''}{', '.join(title for name, title in _ROWS if name in over)}"
        for part, over in outside.items()
    )
    lines = [line for part in outside for line in _of_part(part, compared, subject, halves)]
    notes = ["* outside the tolerance"]
    notes += [f"{' and '.join(halves)}: this half alone in INT8, without an engine"] if halves else []
    return VerificationError(
        f"{subject} does not decide as the model, so nothing was written (outside the tolerance: {named})",
        hint=hint,
        table=[*lines, *(f"  {note}" for note in notes)],
    )


def _of_part(part: str, compared: Compared, subject: str, halves: Mapping[str, Compared]) -> list[str]:
    """Return the lines of a part: what was compared, and the table."""
    columns = {"measured": compared[part][0], **{name: half[part][0] for name, half in halves.items()}}
    limits = compared[part][1]
    of_part = f" of {part}" if len(compared) > 1 else ""
    lines = table(
        {name: comparison.measures() for name, comparison in columns.items()},
        asdict(limits),
        {name: comparison.over(limits) for name, comparison in columns.items()},
    )
    return [
        f"{subject} on {columns['measured'].fidelity.n} images{of_part}",
        *(f"  {line}" for line in lines),
    ]


def table(
    columns: Mapping[str, Mapping[str, float | None]],
    limits: Mapping[str, float],
    over: Mapping[str, Collection[str]] = MappingProxyType({}),
) -> list[str]:
    """Format measures and limits as the lines of a table.

    Args:
        columns: Measures of each column by its heading, from `FidelityReport.measures`.
        limits: Limits, from `asdict(ToleranceLimits)`.
        over: Names of the measures that are marked, by the heading of the column.

    Returns:
        A heading, one line for each measure, and a note if the maps multiply several scales.
    """
    space = " " if over else ""
    lines = [f"{'':18}{''.join(f'{heading:>10}{space}' for heading in columns)}{'allowed':>12}"]
    for name, title in _ROWS:
        cells = ""
        for heading, measures in columns.items():
            value, marked = measures[name], name in over.get(heading, ())
            cells += f"{_measured(value, marked):>10}{'*' if marked else space}"
        lines.append(f"{title:18}{cells}{_allowed(name, limits):>12}")
    if limits["factors"] > 1:
        lines.append(f"errors of one scale: the maps multiply {limits['factors']:g}")
    return lines


def described(comparison: FidelityReport, limits: ToleranceLimits) -> str:
    """Describe measures and their limits in one line, for a log.

    Args:
        comparison: Differences from the reference.
        limits: Limits of the comparison.
    """
    measures, bounds, over = comparison.measures(), asdict(limits), comparison.over(limits)
    found = [
        f"{title} {_measured(measures[name], name in over)} (allowed {_allowed(name, bounds)})"
        for name, title in _ROWS
    ]
    return f"{', '.join(found)} on {comparison.fidelity.n} images"


def described_measure(comparison: FidelityReport, name: str) -> str:
    """Describe one measure that is compared with a limit, such as "map error 0.178".

    Args:
        comparison: Differences from the reference.
        name: Name of the measure, as in `FidelityReport.over`.
    """
    return f"{dict(_ROWS)[name]} {_measured(comparison.measures()[name], is_over=True)}"


def _measured(value: float | None, is_over: bool) -> str:
    """Return a measure as text. An infinite error is None in the measures, as an undefined value is."""
    if value is None:
        return "inf" if is_over else "-"
    return f"{value:.3g}"


def _allowed(name: str, limits: Mapping[str, float]) -> str:
    """Return the limit of a measure with its sign."""
    if name == "auroc_change":
        return f">= {-limits['auroc_loss_max']:.3g}"
    if name == "rank_correlation":
        return f">= {limits['rank_correlation_min']:.3g}"
    return f"<= {limits[name if name.endswith('_max') else f'{name}_max']:.3g}"
