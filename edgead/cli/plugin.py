"""`edgead plugin`: compile the anomaly map as a TensorRT plugin."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

plugin = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@plugin.callback()
def group() -> None:
    """The anomaly map as a plugin of TensorRT."""


@plugin.command("build")
def build(
    out: Annotated[
        Path, typer.Option(help="The directory to write libedgead_plugin.so into.", metavar="DIR")
    ],
    tensorrt_include: Annotated[
        Path | None,
        typer.Option(help="Directory of NvInfer.h.", show_default="where packages put it", metavar="DIR"),
    ] = None,
) -> None:
    """Compile the plugin with the TensorRT and the CUDA compiler that are here.

    Takes a minute. Engines that use it need the same major version of TensorRT.
    """
    from edgead.plugin.build import build_plugin

    built = build_plugin(out, tensorrt_include)
    typer.echo(f"{built.path} for TensorRT {built.tensorrt[0]}.{built.tensorrt[1]}\nsha256 {built.sha256}")
