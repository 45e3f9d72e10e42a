"""A verified float32 graph in a lower precision, ready to be verified against it: what `--precision` does.

Calibration pictures are never those that the threshold is set on and the result is judged by: a range that was
fitted to the judges would make the verdict worthless. None of this needs torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import numpy as np

from edgead.engine.verify import PRECISIONS, Precision, damaged_twins
from edgead.errors import DataError, InputError, needs_extra
from edgead.export.ranges import ALGORITHMS, Algorithm
from edgead.types import Quantize, UInt8Array

if TYPE_CHECKING:
    from onnx import ModelProto

CalibrateOn = Literal["train", "noise", "pseudo-anomaly", "mixed"]
CALIBRATE_ON: tuple[CalibrateOn, ...] = get_args(CalibrateOn)

Name = TypeVar("Name", bound=str)

CALIBRATION_PICTURES = 64
"""Good pictures to calibrate on, where there are so many."""

MIN_CALIBRATION_PICTURES = 8
"""With fewer, a range would be that of a few parts."""

# Another seed than verification has, so that its damage is not what the ranges were fitted to.
_TWIN_SEED = 1


@dataclass(frozen=True, slots=True)
class Lowering:
    """Which precision a build ends in, and how INT8 is calibrated.

    precision: one of `PRECISIONS`. calibrate_on: one of `CALIBRATE_ON`; `train` takes good pictures of the
    training, `pseudo-anomaly` damaged twins of them, `mixed` as many of one as of the other, `noise` no
    pictures but uniform noise. algorithm, quantize: see `edgead.export.ranges` and
    `edgead.export.quantise`. cache: file of ranges, read where it
    is there and written where not; None for `calibration/NAME.json` by the bundle's name.
    """

    precision: Precision = "fp32"
    calibrate_on: CalibrateOn = "mixed"
    algorithm: Algorithm = "mse"
    quantize: Quantize = "all"
    cache: Path | None = None

    @classmethod
    def parse(
        cls, precision: str, calibrate_on: str, algorithm: str, quantize: str, cache: Path | None
    ) -> Lowering:
        """Take what a user typed; InputError for a name that is unknown."""
        return cls(
            _known("--precision", precision, PRECISIONS),
            _known("--calibrate-on", calibrate_on, CALIBRATE_ON),
            _known("--algorithm", algorithm, ALGORITHMS),
            _known("--quantize", quantize, get_args(Quantize)),
            cache,
        )


@dataclass(frozen=True, slots=True)
class Lowered:
    """A graph of lower precision, as the content of an ONNX file.

    calibration: what the manifest says of it, None for fp16. cache: the ranges, as a file's text.
    """

    model: bytes
    calibration: dict[str, Any] | None = None
    cache: str | None = None


def lower(
    model: bytes,
    lowering: Lowering,
    name: str,
    watched: UInt8Array,
    calibration_pictures: Callable[[int], UInt8Array],
    progress: Callable[[str], None],
) -> Lowered:
    """Convert a float32 graph that edgead exported to fp16 or int8.

    model: content of the ONNX file. name: of the bundle. watched: (N, H, W, 3) uint8 RGB; what overflows half on them
    stays float32. calibration_pictures: gives at most so many good pictures of the training, asked for int8 unless
    it is calibrated on noise. progress: called with a line before each step.

    Raises PrecisionError when the graph does not convert or the cache is stale, DataError for too few pictures,
    MissingExtraError without onnx.
    """
    with needs_extra("train", f"edgead build --precision {lowering.precision}"):
        import onnx

        from edgead.export.half import half_from_float
    exact = onnx.load_from_string(model)
    if lowering.precision == "fp16":
        from edgead.export.calibrate import tensor_peaks
        from edgead.export.parts import computed_tensors

        progress("converting to float16")
        peaks = tensor_peaks(exact, watched, computed_tensors(exact))
        return Lowered(half_from_float(exact, peaks).SerializeToString())
    return _int8(exact, lowering, name, watched.shape[1:], calibration_pictures, progress)


def calibration_images(
    calibrate_on: CalibrateOn, shape: tuple[int, ...], calibration_pictures: Callable[[int], UInt8Array]
) -> UInt8Array:
    """The pictures (N, H, W, 3) uint8 RGB that INT8 is calibrated on; shape: (H, W, 3).

    The same each time. Raises DataError when the good pictures are fewer than `MIN_CALIBRATION_PICTURES`.
    """
    if calibrate_on == "noise":
        noise = np.random.default_rng(_TWIN_SEED).integers(0, 256, (CALIBRATION_PICTURES, *shape), np.uint8)
        return np.asarray(noise, np.uint8)
    good = calibration_pictures(CALIBRATION_PICTURES)
    if len(good) < MIN_CALIBRATION_PICTURES:
        raise DataError(
            f"{len(good)} pictures to calibrate int8 on, at least {MIN_CALIBRATION_PICTURES} are needed: "
            "train on more, or give --calibrate-on noise"
        )
    if calibrate_on == "train":
        return good
    if calibrate_on == "pseudo-anomaly":
        return damaged_twins(good, _TWIN_SEED)
    return np.concatenate([good[::2], damaged_twins(good[1::2], _TWIN_SEED)])


def _known(option: str, value: str, known: tuple[Name, ...]) -> Name:
    for name in known:
        if name == value:
            return name
    raise InputError(f"unknown {option} {value!r}: choose one of {', '.join(known)}")


def _int8(
    exact: ModelProto,
    lowering: Lowering,
    name: str,
    shape: tuple[int, ...],
    calibration_pictures: Callable[[int], UInt8Array],
    progress: Callable[[str], None],
) -> Lowered:
    from edgead.export.calibrate import calibrate, calibration_key, read_calibration, write_calibration
    from edgead.export.quantise import int8_from_float, tensors_to_quantise

    images = calibration_images(lowering.calibrate_on, shape, calibration_pictures)
    # All of them, so that one cache serves both choices of --quantize.
    tensors = tensors_to_quantise(exact)
    file = lowering.cache or Path("calibration") / f"{name}.json"
    key = calibration_key(exact, images, lowering.algorithm)
    calibration = read_calibration(file, key, tensors)
    if calibration is None:
        progress(
            f"calibrating int8 on {len(images)} pictures ({lowering.calibrate_on}, {lowering.algorithm})"
        )
        calibration = calibrate(exact, images, tensors, lowering.algorithm)
        write_calibration(file, calibration)
    else:
        progress(f"int8 with the ranges in {file}")
    quantised = int8_from_float(exact, calibration.ranges, lowering.quantize)
    said = {
        "key": key,
        "calibrate_on": lowering.calibrate_on,
        "algorithm": lowering.algorithm,
        "quantize": lowering.quantize,
        "pictures": len(images),
    }
    return Lowered(quantised.SerializeToString(), said, calibration.to_json())
