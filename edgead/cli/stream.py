"""`edgead stream`: scores the frames of a source with a bundle, until the source ends or the user stops it."""

from __future__ import annotations

import atexit
import gc
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from edgead.cli.choices import Kind, WithholdStill, listed
from edgead.cli.command import named_options
from edgead.errors import InputError, SinkError


def stream(
    context: typer.Context,
    bundle: Annotated[
        Path | None,
        typer.Argument(
            metavar="BUNDLE", help="Bundle that edgead build wrote.", show_default="the one of --config"
        ),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(
            help="Source of frames; repeat it for several cameras. A camera number, a video file, a folder of images, "
            "rtsp://..., http://... "
            "(#fps=2 at the end of a snapshot address, #transport=udp of an RTSP address), "
            "v4l2:///dev/video0?width=1280&height=720, genicam://SERIAL?exposure_us=5000&trigger=Line1, gst:PIPELINE, "
            "csi://0?width=1280&height=720&fps=30, or "
            f"synthetic:KIND?fps=10&size=256&defect_rate=0.1&frames=100&seed=0 with KIND {listed(tuple(Kind))}.",
            metavar="URI",
            show_default="those of --config",
        ),
    ] = None,
    sink: Annotated[
        list[str],
        typer.Option(
            help="Sink of verdicts; may be repeated. Several cameras share it. jsonl:FILE (- for the terminal), "
            "video:FILE.mkv?fps=25, "
            "rejects:DIR?keep=1000, mqtt://HOST/TOPIC?spool=FILE, webhook:https://HOST#spool=FILE, "
            "modbus://HOST/?registers=100, opcua:PORT, prometheus:PORT, status:, window:.",
            metavar="URI",
        ),
    ] = ["status:"],  # noqa: B006 (typer copies it)
    watch: Annotated[bool, typer.Option("--watch", help="Wait for new images in the source folder.")] = False,
    wait: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=0.0,
            help="Time to wait for a source that is absent at the start, such as a camera; inf for no limit.",
        ),
    ] = 0.0,
    max_age: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Largest age of a camera's image at its verdict; an older one gets no verdict.",
            show_default="1, or three images of a slower camera",
        ),
    ] = None,
    withhold_still: Annotated[
        WithholdStill,
        typer.Option(
            help="Images of a camera that stand still for 2.5 seconds and get no verdict: those of a frozen camera, "
            "always (a line that stands still, too), or never.",
        ),
    ] = WithholdStill.FROZEN,
    trigger: Annotated[
        str | None,
        typer.Option(
            help="One verdict for each part that a trigger announces: exec:COMMAND (a line for each part), http:PORT, "
            "mqtt://HOST/TOPIC, modbus://HOST/?coil=1, file:FOLDER or motion:.",
            metavar="URI",
            show_default="a verdict on each frame",
        ),
    ] = None,
    trigger_delay: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=0.0,
            max=60.0,
            help="Time from a trigger to the moment at which its part is in front of the camera.",
        ),
    ] = 0.0,
    part_frames: Annotated[
        int, typer.Option(metavar="N", min=1, max=32, help="Number of frames of a part.")
    ] = 1,
    part_rejects: Annotated[
        int,
        typer.Option(
            metavar="M", min=1, max=32, help="A part is rejected if at least M of its frames are rejected."
        ),
    ] = 1,
    serve: Annotated[
        str | None,
        typer.Option(
            help="Address of a page with state, images and controls: 127.0.0.1:8000, or for other machines "
            "0.0.0.0:8000?token=FILE, with cert=FILE&key=FILE for HTTPS.",
            metavar="HOST:PORT",
            show_default="no page",
        ),
    ] = None,
    feedback: Annotated[
        str | None,
        typer.Option(
            help="Folder for images that viewers of the page mark as good or as a defect; FOLDER?max_mb=1000.",
            metavar="DIR",
            show_default="none",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="TOML file with all options, for several cameras; no other option comes with it.",
            show_default="none",
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Number of CPU threads of one inference.",
            show_default="one for each core",
        ),
    ] = None,
    max_frames: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Number of judged frames after which a camera ends, those without a verdict included.",
            show_default="no limit",
        ),
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Name of the part that the source shows, if the bundle has several parts.",
            show_default="the only one",
        ),
    ] = None,
    roi: Annotated[
        str | None,
        typer.Option(
            metavar="X,Y,WIDTH,HEIGHT",
            help="Part of the camera's image that the stream sees, in pixels, cut out before the view of the bundle.",
            show_default="the whole image",
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Decision threshold of this stream; edgead threshold sets the one of the bundle.",
            show_default="the bundle's",
        ),
    ] = None,
) -> None:
    """Score cameras, a video or a folder.

    Ctrl-C ends the stream cleanly, with a summary.
    """
    from edgead.cli.progress import ProgressDisplay, echo
    from edgead.cli.standard_streams import print_if_read

    # The interpreter would search all objects for garbage at its end, which takes a second with an OPC UA server. Other
    # commands let it: without the search, libraries that build uses report leaks.
    atexit.register(gc.freeze)
    with _signals_of_a_pause_ignored():
        from edgead.api import load
        from edgead.bundle import open_bundle
        from edgead.streaming.config import StreamFile, numbered, read_stream_file
        from edgead.streaming.plan import CameraPlan
        from edgead.streaming.start import start_stream

        if config is not None:
            _check_alone(context)
            file = read_stream_file(config)
        else:
            if bundle is None or not source:
                missing = "BUNDLE" if bundle is None else "--source"
                raise InputError(f"{missing} is missing", hint="give BUNDLE and --source, or --config FILE")
            # Of a single camera, so that each sink may be one.
            sinks, shared = ((), tuple(sink)) if len(source) > 1 else (tuple(sink), ())
            cameras = numbered(
                CameraPlan(
                    one,
                    sink=sinks,
                    part=part,
                    threshold=threshold,
                    roi=roi,
                    watch=watch,
                    wait=wait,
                    max_frames=max_frames,
                    max_age=max_age,
                    withhold_still=withhold_still.value,
                    trigger=trigger,
                    trigger_delay=trigger_delay,
                    part_frames=part_frames,
                    part_rejects=part_rejects,
                )
                for one in source
            )
            if trigger is not None and len(cameras) > 1:
                raise InputError(
                    "--trigger comes with several cameras", hint="give each its own in a file for --config"
                )
            file = StreamFile(bundle, cameras, shared, threads, serve, feedback)
        plan = file.plan()
        # Only a bundle is accepted here, because a build has verified it; a run is rejected.
        opened = open_bundle(file.bundle)
        with ProgressDisplay():
            summary = start_stream(lambda: load(opened, threads=file.threads), plan)
    # If verdicts go to standard output, the summary goes to standard error.
    if plan.writes_to_standard_output:
        echo(summary.text(), err=True)
    else:
        print_if_read(summary.text())
    if summary.has_problem:
        raise typer.Exit(SinkError.exit_code)


def _check_alone(context: typer.Context) -> None:
    """Refuse other options beside --config, because one of two values would be ignored."""
    given = [option for name, option in named_options(context).items() if name != "config"]
    if given:
        raise InputError(f"{given[0]} comes with --config", hint="write it into the file")


@contextmanager
def _signals_of_a_pause_ignored() -> Iterator[None]:
    """Ignore SIGUSR1 and SIGUSR2, which would end the process until the stream handles them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGUSR1, signal.SIGUSR2)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            # None is a handler of another language, which could not be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
