"""``edgead stream``: a bundle and a camera in, verdicts out, until the source ends or somebody stops it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgead.cli.choices import Kind, listed


def stream(
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="The bundle that edgead build wrote.", show_default=False)
    ],
    source: Annotated[
        list[str],
        typer.Option(
            help="One of: a camera number, a video file, a folder of images, rtsp://..., http://..., or "
            f"synthetic:KIND?fps=10&size=256&defect_rate=0.1&frames=100&seed=0 with KIND {listed(tuple(Kind))}.",
            metavar="URI",
        ),
    ],
    sink: Annotated[
        list[str],
        typer.Option(
            help="Where verdicts go; may be repeated. jsonl:FILE (- for the terminal), video:FILE.mkv?fps=25, "
            "rejects:DIR?keep=1000, status:, window:.",
            metavar="URI",
        ),
    ] = ["status:"],  # noqa: B006 (typer copies it)
    watch: Annotated[bool, typer.Option("--watch", help="Wait for new images in the source folder.")] = False,
    threads: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="CPU threads of one inference.", show_default="one for each core"
        ),
    ] = None,
    max_frames: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="End after so many scored frames.", show_default="no limit"),
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Which part is seen, where the bundle knows several.",
            show_default="the only one",
        ),
    ] = None,
) -> None:
    """Score a camera, a video or a folder.

    Ctrl-C ends it cleanly, with a summary.
    """
    from contextlib import ExitStack

    from edgead.errors import InputError

    if len(source) != 1:
        raise InputError(
            f"{len(source)} sources, {' and '.join(source)}: give --source once, and a stream for each"
        )
    from edgead.bundle import open_bundle
    from edgead.bundle.part_names import choose_part
    from edgead.runtime import open_session
    from edgead.streaming import open_sink, open_source, stop_on_signals
    from edgead.streaming import stream as run_stream

    opened = open_bundle(bundle)
    thresholds = opened.manifest.thresholds
    chosen = choose_part(thresholds, part)
    with stop_on_signals() as stop, ExitStack() as stack:
        frames = stack.enter_context(open_source(source[0], watch=watch))
        session = stack.enter_context(open_session(opened, threads=threads))
        sinks = [stack.enter_context(open_sink(uri, fps=frames.fps)) for uri in sink]
        summary = run_stream(
            session,
            frames,
            sinks,
            size=opened.manifest.size,
            threshold=thresholds[chosen].value,
            part=chosen,
            max_frames=max_frames,
            stop=stop,
        )
    # Standard output belongs to the verdicts where they go there.
    typer.echo(summary.text(), err="jsonl:-" in sink)
