"""``edgead stream``: a bundle and a camera in, verdicts out, until the source ends or somebody stops it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def stream(
    bundle: Annotated[Path, typer.Argument(help="The bundle that edgead build wrote.")],
    source: Annotated[
        str,
        typer.Option(
            help="A camera number, a video file, a folder of pictures, rtsp://..., http://..., "
            "or synthetic:KIND?fps=10.",
            metavar="URI",
        ),
    ],
    sink: Annotated[
        list[str],
        typer.Option(
            help="Where verdicts go; may be repeated. jsonl:FILE (- for the terminal), video:FILE.mkv, "
            "rejects:FOLDER?keep=1000, status:, window:.",
            metavar="URI",
        ),
    ] = ["status:"],  # noqa: B006 (typer copies it)
    watch: Annotated[
        bool, typer.Option("--watch", help="Wait for new pictures in the source folder.")
    ] = False,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads of one inference; all cores by default.")
    ] = None,
    max_frames: Annotated[int | None, typer.Option(help="End after so many scored frames.")] = None,
    part: Annotated[
        str | None,
        typer.Option(help="Which part is seen, where the bundle knows several.", show_default=False),
    ] = None,
) -> None:
    """Score a camera, a video or a folder.

    Ctrl-C ends it cleanly, with a summary.
    """
    from contextlib import ExitStack

    from edgead.bundle import open_bundle
    from edgead.part import choose_part
    from edgead.runtime import open_session
    from edgead.stream import open_sink, open_source, stop_on_signals
    from edgead.stream import stream as run_stream

    opened = open_bundle(bundle)
    thresholds = opened.manifest.thresholds
    chosen = choose_part(thresholds, part)
    with stop_on_signals() as stop, ExitStack() as stack:
        frames = stack.enter_context(open_source(source, watch=watch))
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
