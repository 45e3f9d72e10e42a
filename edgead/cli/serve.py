"""`edgead serve`: gives verdicts over HTTP, with several models, replicas and dynamic batches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def serve(
    bundles: Annotated[
        list[Path],
        typer.Argument(
            metavar="BUNDLE...",
            help="Directories that edgead build wrote; the name of a folder is the name of its model.",
            show_default=False,
        ),
    ],
    listen: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Address to listen on: PORT, or HOST:PORT?token=FILE for other machines.",
        ),
    ] = "127.0.0.1:8000",
    replicas: Annotated[
        int, typer.Option(metavar="N", min=1, help="Number of processes for each model.")
    ] = 1,
    threads: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="CPU threads of each replica.",
            show_default="the cores divided among all",
        ),
    ] = None,
    on: Annotated[
        str,
        typer.Option(
            metavar="ray[:ADDRESS]", help="Ray cluster: ray for this machine, ray:auto, or ray:HOST:PORT."
        ),
    ] = "ray",
) -> None:
    """Give verdicts over HTTP until Ctrl-C is pressed.

    POST an image file to /models/NAME; the answer is JSON, with the names of edgead predict. GET / lists the models,
    /health and /metrics tell how they are. A bundle that does not give its golden answers is refused at the start.
    """
    import threading

    from edgead.cli.progress import ProgressDisplay, echo, first_line

    first_line(f"serving {' and '.join(str(bundle) for bundle in bundles)}")
    from edgead.cluster.place import read_place
    from edgead.files.packages import require_packages
    from edgead.serving.plan import check_models, read_address
    from edgead.serving.start import serving

    place, address = read_place(on, {}), read_address(listen)
    require_packages("ray", "edgead serve", "ray", "starlette")
    with ProgressDisplay():
        models = check_models(bundles, threads)
        with serving(models, address, place, replicas, threads):
            for model in models:
                echo(f"http://{address.host}:{address.port}/models/{model.name}")
            threading.Event().wait()
