"""The page of int8.py: tables of its cells as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import mean, stdev
from typing import Any

from int8_runs import METHODS, PARTS

MAP_ERROR_GOAL, FLIPS_GOAL, AUROC_GOAL = 0.15, 0, -0.003


def misses(cell: dict[str, Any]) -> list[str]:
    """List the goals that a cell misses.

    Args:
        cell: Figures of one cell.

    Returns:
        Names of the measures.
    """
    found = ["map"] if cell["map_error_max"] is None or cell["map_error_max"] > MAP_ERROR_GOAL else []
    found += ["flips"] if cell["decision_flips"] > FLIPS_GOAL else []
    change = cell["auroc_change"]
    return found + (["AUROC"] if change is not None and change < AUROC_GOAL else [])


def table(part: str, cells: dict[str, dict[str, Any]]) -> list[str]:
    """Return the cells of one part as a Markdown table.

    Args:
        part: Name of the part.
        cells: Cells by "part/method/seed".

    Returns:
        Lines of the table; none if no cell is measured.
    """
    lines = []
    for method in METHODS:
        rows = [cell for name, cell in cells.items() if name.rpartition("/")[0] == f"{part}/{method}"]
        if not rows:
            continue
        missed = sorted({name for row in rows for name in misses(row)})
        number = sum(bool(misses(row)) for row in rows)
        columns = [
            method,
            str(len(rows)),
            _each(f"{row['size']}, {row['training']['epochs']}" for row in rows),
            *(_spread(rows, name, ".3f") for name in ("map_error_max", "score_error_max")),
            f"{min(row['rank_correlation'] for row in rows):.3f}",
            _flips(rows),
            _spread(rows, "reference_auroc", ".3f"),
            _spread(rows, "auroc_change", "+.4f"),
            _pairs(rows),
            f"{rows[0]['fp32_mb']:.1f}, {rows[0]['mb']:.1f}",
            f"**misses {', '.join(missed)}** ({number} of {len(rows)})" if missed else "yes",
        ]
        lines.append(f"| {' | '.join(columns)} |")
    heading = (
        "| method | seeds | pixels, epochs | map error | score error | lowest rank | flips | image AUROC, float32 "
        "| change | pairs lost, won | MB, float32 and INT8 | goal |"
    )
    return [f"## {part}", "", heading, "|" + "---|" * (heading.count("|") - 1), *lines, ""] if lines else []


def _each(values: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(values))


def _flips(rows: Sequence[dict[str, Any]]) -> str:
    distances = [row["flip_distance"] for row in rows if row.get("flip_distance") is not None]
    text = f"{sum(row['decision_flips'] for row in rows)} of {sum(row['n'] for row in rows)}"
    return f"{text} ({max(distances):.1%} from the threshold)" if distances else text


def _spread(rows: Sequence[dict[str, Any]], name: str, style: str) -> str:
    values = [row[name] for row in rows if row[name] is not None]
    if not values:
        return "-"
    text = f"{mean(values):{style}}"
    return text if len(values) == 1 else f"{text} ± {stdev(values):{style.replace('+', '')}}"


def _pairs(rows: Sequence[dict[str, Any]]) -> str:
    counts = [row["pairs"] for row in rows if row["pairs"] is not None]
    if not counts:
        return "-"
    lost, won, total = (sum(count[name] for count in counts) for name in ("lost", "won", "total"))
    return f"{lost}, {won} of {total:,}"


def misses_table(cells: dict[str, dict[str, Any]]) -> list[str]:
    """Return the runs that miss a goal as a Markdown table, with float16 of the same runs beside them.

    Args:
        cells: Cells by "part/method/seed".

    Returns:
        Lines of the table.
    """
    lines = [
        "| run | misses | AUROC change | pairs lost, won | allowed net loss | largest difference of a lost pair "
        "| RMS of the score errors | flips (distance) | float16: change | lost, won | flips |"
    ]
    lines.append("|" + "---|" * (lines[0].count("|") - 1))
    for name, cell in cells.items():
        if not misses(cell):
            continue
        pairs, half = cell["pairs"], cell["fp16"]
        of_pairs = ["-"] * 4
        if pairs is not None:
            of_pairs = [
                f"{pairs['lost']}, {pairs['won']} of {pairs['total']:,}",
                f"{-AUROC_GOAL * pairs['total']:.0f}",
                f"{pairs['lost_difference']:.1%}",
                f"{pairs['score_error_rms']:.1%}",
            ]
        columns = [
            name,
            ", ".join(misses(cell)),
            _spread([cell], "auroc_change", "+.4f"),
            *of_pairs,
            _flips([cell]),
            _spread([half], "auroc_change", "+.4f"),
            _pairs([half]),
            _flips([half]),
        ]
        lines.append(f"| {' | '.join(columns)} |")
    return lines


def half_beside_table(cells: dict[str, dict[str, Any]]) -> list[str]:
    """Return INT8 with float16 instead of float32 beside it as a Markdown table.

    Args:
        cells: Cells by "part/method/seed".

    Returns:
        Lines of the table.
    """
    lines = [
        "| run | map error, float32 beside | float16 beside | score error | | AUROC change | | flips | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, cell in cells.items():
        if "half_beside" in cell:
            both = [cell], [cell["half_beside"]]
            columns = [
                _spread(rows, measure, style)
                for measure, style in (
                    ("map_error_max", ".3f"),
                    ("score_error_max", ".3f"),
                    ("auroc_change", "+.4f"),
                )
                for rows in both
            ]
            lines.append(f"| {' | '.join([name, *columns, *(_flips(rows) for rows in both)])} |")
    return lines


def overview(cells: dict[str, dict[str, Any]]) -> list[str]:
    """Return the largest map error of each method on each part and its number of seeds as a Markdown table.

    Args:
        cells: Cells by "part/method/seed".

    Returns:
        Lines of the table.
    """
    lines = [f"| method | {' | '.join(PARTS)} |", "|---" * (len(PARTS) + 1) + "|"]
    for method in METHODS:
        columns = []
        for part in PARTS:
            rows = [cell for name, cell in cells.items() if name.rpartition("/")[0] == f"{part}/{method}"]
            if not rows:
                columns.append("-")
                continue
            missed = sorted({name for row in rows for name in misses(row)})
            worst = f"{max(row['map_error_max'] for row in rows):.3f}"
            number = sum(bool(misses(row)) for row in rows)
            columns.append(
                f"**{worst}** ({len(rows)}; {', '.join(missed)} of {number})"
                if missed
                else f"{worst} ({len(rows)})"
            )
        lines.append(f"| {method} | {' | '.join(columns)} |")
    return lines


def choices_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the choices of calibration of one run as a Markdown table.

    Args:
        rows: Figures of the choices.

    Returns:
        Lines of the table.
    """
    lines = ["| calibrated on | algorithm | map error | score error | rank | flips | AUROC change |"]
    lines.append("|---|---|---|---|---|---|---|")
    for row in rows:
        change = "-" if row["auroc_change"] is None else f"{row['auroc_change']:+.4f}"
        lines.append(
            f"| {row['calibrate_on']} | {row['algorithm']} | {row['map_error_max']:.3f} | {row['score_error_max']:.3f} "
            f"| {row['rank_correlation']:.3f} | {row['decision_flips']} of {row['n']} | {change} |"
        )
    return lines


def page(results: dict[str, Any]) -> str:
    """Return the report as Markdown.

    Args:
        results: Content of int8.json.

    Returns:
        Text of several lines.
    """
    cells = results["cells"]
    good = sum(not misses(cell) for cell in cells.values())
    lines = [
        "# INT8 of every method",
        "",
        "`python benchmarks/int8.py --data ../shared/data --work WORK` and the same with `--choices` and `--labels`. "
        f"{results['machine']}.",
        "",
        "Defaults of `edgead build --precision int8` (`mixed`, `mse`), EfficientNet-Lite0. Short trainings, see "
        "`benchmarks/int8_runs.py`, and some longer ones that were at hand; the columns say size and epochs. Mean ± "
        "standard deviation over the seeds. Errors, rank and flips: validation images of each run, on ONNX Runtime.",
        "",
        f"Goal: map error at most {MAP_ERROR_GOAL}, no flips, change of image AUROC at least {AUROC_GOAL}. "
        f"{good} of {len(cells)} runs meet it. A row with seeds that miss it says which measure and how many seeds.",
        "",
        *_versions(cells),
    ]
    if results["collapsed"]:
        lines += [f"Trainings that collapsed, which are in no table: {', '.join(results['collapsed'])}.", ""]
    lines += ["## Largest map error", "", *overview(cells), ""]
    for part in PARTS:
        lines += table(part, cells)
    if results.get("runs"):
        lines += ["# Trainings with the default settings", "", *_versions(results["runs"])]
        for part in PARTS:
            lines += table(part, results["runs"])
    for heading, content in (
        ("Runs that miss a goal", misses_table),
        ("Float16 beside INT8", half_beside_table),
    ):
        lines += [f"# {heading}", "", *content(cells), ""]
        if len(content(of_runs := results.get("runs", {}))) > 2:
            lines += ["Default settings:", "", *content(of_runs), ""]
    if results["choices"]:
        lines += ["# Calibration images and algorithms", ""]
        for name, rows in results["choices"].items():
            lines += [f"## {name}", "", f"Converter `{rows[0]['converter']}`.", "", *choices_table(rows), ""]
    return "\n".join(lines)


def _versions(cells: dict[str, dict[str, Any]]) -> list[str]:
    counts = Counter(cell["converter"] for cell in cells.values())
    listed = ", ".join(f"`{name}` ({count} runs)" for name, count in counts.items())
    return [f"Versions of the converter: {listed}.", ""]
