"""`edgead plugin`: compile the anomaly map as a TensorRT plugin."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgead.cli.interrupt import interruptible

plugin = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@plugin.callback()
def group() -> None:
    """The anomaly map as a plugin of TensorRT."""


def build(
    out: Annotated[
        Path | None,
        typer.Option(
            help="The directory to write libedgead_plugin.so into.",
            show_default="where edgead build and edgead stream look for it",
            metavar="DIR",
        ),
    ] = None,
    tensorrt_include: Annotated[
        Path | None,
        typer.Option(help="Directory of NvInfer.h.", show_default="where packages put it", metavar="DIR"),
    ] = None,
) -> None:
    """Compile the plugin with the TensorRT and the CUDA compiler that are here.

    Takes a minute. Engines that use it need the same major version of TensorRT, and the very same library.
    """
    from edgead.cli.progress import first_line

    first_line("compiling the plugin")
    from edgead.plugin.build import build_plugin
    from edgead.plugin.loader import plugin_file

    built = build_plugin(plugin_file().parent if out is None else out, tensorrt_include)
    typer.echo(f"{built.path} for TensorRT {built.tensorrt[0]}.{built.tensorrt[1]}\nsha256 {built.sha256}")


plugin.command("build")(interruptible(build, "no library was written; the same command begins again"))
