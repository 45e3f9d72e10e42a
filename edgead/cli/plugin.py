"""`edgead plugin`: compiles the anomaly map as a TensorRT plugin."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgead.cli.command import Command
from edgead.cli.interrupt import interruptible

plugin = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@plugin.callback()
def group() -> None:
    """Anomaly map as a TensorRT plugin."""


def build(
    out: Annotated[
        Path | None,
        typer.Option(
            help="Directory to write libedgead_plugin.so into.",
            show_default="directory that edgead build and edgead stream search",
            metavar="DIR",
        ),
    ] = None,
    tensorrt_include: Annotated[
        Path | None,
        typer.Option(help="Directory of NvInfer.h.", show_default="location of the package", metavar="DIR"),
    ] = None,
) -> None:
    """Compile the plugin with the installed TensorRT and CUDA compiler.

    Takes a minute. Engines with the plugin need the same version of TensorRT and exactly this library.
    """
    from edgead.cli.progress import echo, first_line

    first_line("compiling the plugin")
    from edgead.plugin.build import build_plugin
    from edgead.plugin.loader import plugin_file
    from edgead.plugin.version import version_text

    built = build_plugin(plugin_file().parent if out is None else out, tensorrt_include)
    echo(f"{built.path} for TensorRT {version_text(built.tensorrt)}\nsha256 {built.sha256}")


plugin.command("build", cls=Command)(
    interruptible(build, "no library was written; the same command starts again")
)
