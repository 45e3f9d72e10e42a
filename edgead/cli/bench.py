"""`edgead bench`: times a model on this machine, and finds out whether it has become slower."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from edgead.cli.choices import RunOrBundle


def _height_and_width(text: str | None) -> str | None:
    """Check the text of `--image`."""
    if text is not None and re.fullmatch(r"[0-9]{1,5}x[0-9]{1,5}", text) is None:
        raise typer.BadParameter(f"{text!r} is no size: give HEIGHTxWIDTH, such as 1080x1920")
    return text


def bench(
    model: RunOrBundle,
    clocks: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="What to time, with commas between: device (inference alone), e2e (image in hand to verdict), paced "
            "(the same at the rate of a camera, with ages).",
        ),
    ] = "device,e2e,paced",
    batch: Annotated[int, typer.Option(metavar="N", help="Images of one inference of the clock device.")] = 1,
    threads: Annotated[
        int | None,
        typer.Option(metavar="N", help="CPU threads of one inference.", show_default="one for each core"),
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(
            metavar="HxW",
            help="Size of the camera's images in pixels.",
            show_default="the model's",
            callback=_height_and_width,
        ),
    ] = None,
    fps: Annotated[float, typer.Option(metavar="F", help="Images a second of the clock paced.")] = 15.0,
    part: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Name of the part, if the model has several parts.",
            show_default="the only one",
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(metavar="S", help="Time of each clock.")] = 5.0,
    warm_up: Annotated[
        float, typer.Option(metavar="S", help="Time of inferences that are not counted.")
    ] = 1.0,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Report to write.", show_default="none")
    ] = None,
    chart: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Chart to write.", show_default="none")
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(
            metavar="OLD.json",
            help="Earlier report; exit code 6 if a clock is slower now.",
            show_default="none",
        ),
    ] = None,
) -> None:
    """Time a model on this machine.

    Prints percentiles of three clocks, with the machine and the versions. Close other programs first.
    """
    from edgead.cli.progress import echo, first_line, report

    first_line(f"timing {model}")
    from edgead.api import load
    from edgead.benchmark.capacity import capacity_of
    from edgead.benchmark.chart import draw_chart
    from edgead.benchmark.comparison import compare as compare_reports
    from edgead.benchmark.report import ROUNDS, Conditions, read_report
    from edgead.benchmark.run import run_benchmark
    from edgead.errors import InputError, SlowerError
    from edgead.files.parsing import write_json

    older = None if compare is None else read_report(compare)
    height, width = map(int, image.split("x")) if image else (None, None)
    conditions = Conditions(tuple(clocks.split(",")), batch, threads, fps, width, height, seconds, warm_up)
    for file in (out, chart):
        if file is not None and not file.absolute().parent.is_dir():
            raise InputError(f"{file.parent} is no directory", hint="make it, or choose another file")
    measured = run_benchmark(
        lambda: load(model, threads=threads),
        conditions,
        part,
        older,
        lambda number: report(f"round {number} of {ROUNDS}"),
    )
    changes = [] if older is None else compare_reports(older, measured)
    if out is not None:
        write_json(out, measured.to_json())
    if chart is not None:
        draw_chart({"before": older, "now": measured} if older else {"now": measured}, chart)
    echo(measured.text())
    if "e2e" in measured.clocks:
        echo(capacity_of(measured.clocks["e2e"], fps).text())
    if changes:
        echo("\n".join(["", f"compared with {compare}", *(change.text() for change in changes)]))
    slower = [change for change in changes if change.is_slower]
    if slower:
        raise SlowerError(
            f"slower than {compare}: {', '.join(change.clock for change in slower)}",
            hint="close other programs and measure again, or find what has changed",
        )
