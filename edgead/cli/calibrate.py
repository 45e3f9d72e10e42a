"""`edgead calibrate`: measures the INT8 calibration of a model once, for all builds of this model."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgead.cli.choices import Algorithm, CalibrateOn

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgead.imaging.preprocess import ModelSize
    from edgead.types import UInt8Array

_log = logging.getLogger(__name__)


def calibrate(
    model: Annotated[
        Path, typer.Argument(help="Run that edgead train wrote, or an fp32 bundle.", metavar="RUN|BUNDLE")
    ],
    out: Annotated[Path, typer.Option(help="File to write, such as calibration/x.json.", metavar="FILE")],
    data: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="For a bundle: dataset that it was trained on; once for each part.",
            show_default="none",
        ),
    ] = None,
    calibrate_on: Annotated[
        CalibrateOn, typer.Option(help="Images to calibrate on; mixed is train and defects.")
    ] = CalibrateOn.MIXED,
    algorithm: Annotated[
        Algorithm, typer.Option(help="Algorithm that chooses the clipping limits.")
    ] = Algorithm.MSE,
) -> None:
    """Measure the INT8 calibration of a model.

    Give the file to edgead build --precision int8 --cache FILE, with the same --calibrate-on and --algorithm.
    """
    from edgead.cli.progress import ProgressDisplay, echo, first_line
    from edgead.files.packages import require_packages

    first_line(f"calibrating {model} into {out}")
    import numpy as np

    from edgead.engine.precision_converter import Calibrating, PrecisionConverter
    from edgead.errors import InputError
    from edgead.files.lock import exclusive

    if out.is_dir():
        raise InputError(
            f"--out {out} is a directory", hint=f"give a file, such as {out / 'calibration.json'}"
        )
    require_packages("build", "edgead calibrate", "onnx")
    calibrating = Calibrating.parse(str(calibrate_on), str(algorithm), out)
    with ProgressDisplay(timed=True), exclusive(out):
        content, size, training_images = _opened(model, data or [])
        # No validation images: they serve to find overflows of float16, and this is int8.
        none = np.empty((0, size.height_px, size.width_px, 3), np.uint8)
        graphs = PrecisionConverter(content, calibrating, out.stem, none, training_images)
        calibration = graphs.calibration
    echo(f"calibrated   {len(calibration.clipping_limits)} tensors on {calibration.images} images")
    echo(f"calibration  {out}")


def _opened(model: Path, data: list[Path]) -> tuple[bytes, ModelSize, Callable[[int], UInt8Array]]:
    """Return the float32 ONNX graph of a run or a bundle, its image size, and a function that reads training images."""
    from edgead.errors import InputError, needs_extra
    from edgead.files.atomic import restore_directory

    restore_directory(model)
    if (model / "manifest.json").is_file():
        from edgead.bundle import open_bundle
        from edgead.engine.found_images import images_of, spread

        if not data:
            raise InputError(
                f"{model} is a bundle", hint="give the images that it was trained on, with --data"
            )
        bundle = open_bundle(model)
        images = images_of(bundle, data)
        size = bundle.manifest.size
        return bundle.graph(), size, spread(images, size)
    if data:
        raise InputError(
            f"{model} is not a bundle", hint="leave out --data, because a run records its own images"
        )
    with needs_extra("train", "edgead calibrate of a run"):
        from edgead.training.run import open_run
    from edgead.engine.build import onnx_from_run
    from edgead.engine.calibration_images import calibration_rows

    run = open_run(model)
    return onnx_from_run(run), run.size, lambda count: calibration_rows(run.training_images(count), count)
