"""The graphs of lower precision that one float32 graph can become: what `--precision` chooses from.

Each is a rung of the ladder that `--precision auto` climbs. What several rungs need is measured once: the calibration,
the largest values, the sensitive layers. Calibration pictures are never those that the threshold is set on and the
result is judged by: a range that was fitted to the judges would make the verdict worthless. None of this needs torch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import numpy as np

from edgead.data.pseudo_anomalies.cutpaste import damaged_twins
from edgead.engine.fidelity import PRECISIONS, Precision
from edgead.errors import DataError, InputError, needs_extra
from edgead.export.precision.clipping import ALGORITHMS, Algorithm
from edgead.types import Quantize, UInt8Array

if TYPE_CHECKING:
    from edgead.export.precision.calibration import Calibration

CalibrateOn = Literal["train", "noise", "pseudo-anomaly", "mixed"]
CALIBRATE_ON: tuple[CalibrateOn, ...] = get_args(CalibrateOn)

Rung = Literal["int8", "int8-sensitive-fp16", "int8-student", "fp16", "fp16-fp32-tail", "fp32"]
RUNGS: tuple[Rung, ...] = get_args(Rung)

Name = TypeVar("Name", bound=str)

CALIBRATION_PICTURES = 64
"""Good pictures to calibrate on, at most; with more than so many, every second, third and so on is taken."""

MIN_CALIBRATION_PICTURES = 8
"""With fewer, a range would be that of a few parts."""

SENSITIVITY_PICTURES = 8
"""Calibration pictures that the sensitive layers are found on."""

_log = logging.getLogger(__name__)

_PURPOSE = "another precision than fp32"

# Another seed than verification has, so that its damage is not what the ranges were fitted to.
_TWIN_SEED = 1


@dataclass(frozen=True, slots=True)
class Calibrating:
    """How INT8 is calibrated.

    calibrate_on: one of `CALIBRATE_ON`; `train` takes good pictures of the training, `pseudo-anomaly` damaged twins of
    them, `mixed` as many of one as of the other, `noise` no pictures but uniform noise. algorithm: see
    `edgead.export.precision.clipping`. cache: file of what was measured, read where it is there and written where not;
    None for `calibration/NAME.json` by the bundle's name.
    """

    calibrate_on: CalibrateOn = "mixed"
    algorithm: Algorithm = "mse"
    cache: Path | None = None

    @classmethod
    def parse(
        cls, calibrate_on: str = "mixed", algorithm: str = "mse", cache: Path | None = None
    ) -> Calibrating:
        """Check what a user asks for; InputError, with the choices, for a name that is unknown."""
        return cls(
            _known("--calibrate-on", calibrate_on, CALIBRATE_ON),
            _known("--algorithm", algorithm, ALGORITHMS),
            cache,
        )


@dataclass(frozen=True, slots=True)
class Lowered:
    """A graph of a rung, as the content of an ONNX file.

    details: what the manifest says of how it was made. cache: for INT8 the calibration, as a file's text.
    """

    model: bytes
    precision: Precision
    details: dict[str, Any]
    cache: str | None = None


def rungs_of(precision: str, quantize: str, ladder: tuple[Rung, ...]) -> tuple[Rung, ...]:
    """The rungs to try in turn for what a user typed; InputError for a name that is unknown, or a contradiction.

    precision: one of `PRECISIONS`, or `auto` for all of the ladder. quantize: of INT8, `all` or `student`.
    """
    choice = _known("--precision", precision, (*PRECISIONS, "auto"))
    if _known("--quantize", quantize, get_args(Quantize)) == "student":
        if choice != "int8":
            raise InputError(f"--quantize student goes with --precision int8, not {precision}")
        return ("int8-student",)
    if choice == "auto":
        return ladder
    return (_known("--precision", choice, RUNGS),)


class LowerPrecisions:
    """Makes the graphs of the candidate precisions from one float32 graph that edgead exported. The steps are logged.

    Args:
        model: Content of the ONNX file.
        calibrating: How INT8 is calibrated.
        name: Name of the bundle; the calibration file has it by default.
        watched: Images, (N, H, W, 3) uint8 RGB; tensors that overflow float16 on them stay float32.
        training_images: Function that gives at most so many good images of the training. It is called for INT8, unless
            INT8 is calibrated on noise.
    """

    def __init__(
        self,
        model: bytes,
        calibrating: Calibrating,
        name: str,
        watched: UInt8Array,
        training_images: Callable[[int], UInt8Array],
    ) -> None:
        self._model, self._calibrating, self._name = model, calibrating, name
        self._watched, self._training_images = watched, training_images

    def graph(self, rung: Rung) -> Lowered:
        """Make the graph of a candidate precision.

        Args:
            rung: The candidate precision.

        Returns:
            The graph and how it was made.

        Raises:
            PrecisionError: If the graph does not convert, or the cached calibration is stale.
            DataError: If there are too few images to calibrate on.
            MissingExtraError: If onnx is missing.
        """
        if rung == "fp32":
            return Lowered(self._model, "fp32", {})
        if rung in ("fp16", "fp16-fp32-tail"):
            return self._half(with_tail=rung == "fp16")
        return self._int8(rung)

    @cached_property
    def calibration(self) -> Calibration:
        """Of the INT8 rungs: read from the cache, or measured and written there; raises as `graph` does."""
        with needs_extra("build", _PURPOSE):
            from edgead.export.precision.calibration import (
                calibrate,
                calibration_key,
                read_calibration,
                write_calibration,
            )

        images, algorithm = self._calibration_images, self._calibrating.algorithm
        file = self._calibrating.cache or Path("calibration") / f"{self._name}.json"
        found = read_calibration(file, calibration_key(self._exact, images, algorithm), self._exact)
        if found is not None:
            _log.info("int8 with the calibration in %s", file)
            return found
        _log.info(
            "calibrating int8 on %d pictures (%s, %s)", len(images), self._calibrating.calibrate_on, algorithm
        )
        measured = calibrate(self._exact, images, algorithm)
        write_calibration(file, measured)
        return measured

    @cached_property
    def _exact(self) -> Any:
        with needs_extra("build", _PURPOSE):
            import onnx

        return onnx.load_from_string(self._model)

    @cached_property
    def _peaks(self) -> dict[str, float]:
        from edgead.export.graph_sections import computed_tensors
        from edgead.export.precision.calibration import tensor_peaks

        return tensor_peaks(self._exact, self._watched, computed_tensors(self._exact))

    @cached_property
    def _calibration_images(self) -> UInt8Array:
        return calibration_images(
            self._calibrating.calibrate_on, self._watched.shape[1:], self._training_images
        )

    @cached_property
    def _sensitive(self) -> tuple[str, ...]:
        from edgead.export.precision.sensitivity import sensitive_layers

        images = self._calibration_images
        spread = images[:: -(-len(images) // SENSITIVITY_PICTURES)]
        calibration = self.calibration
        return sensitive_layers(self._exact, calibration.ranges, calibration.shifts, spread)

    def _half(self, with_tail: bool) -> Lowered:
        with needs_extra("build", _PURPOSE):
            from edgead.export.graph_sections import computed_tensors, tail
            from edgead.export.precision.float16 import half_from_float

        _log.info("converting to float16")
        layers = None if with_tail else set(computed_tensors(self._exact)) - tail(self._exact)
        half = half_from_float(self._exact, self._peaks, layers)
        return Lowered(half.SerializeToString(), "fp16", {})

    def _int8(self, rung: Rung) -> Lowered:
        calibration = self.calibration
        from edgead.export.graph_sections import with_followers
        from edgead.export.precision.float16 import half_from_float
        from edgead.export.precision.quantize import int8_from_float

        spared = self._sensitive if rung == "int8-sensitive-fp16" else ()
        graph = int8_from_float(
            self._exact,
            calibration.ranges,
            "student" if rung == "int8-student" else "all",
            calibration.shifts,
            spared,
        )
        if spared:
            graph = half_from_float(graph, self._peaks, with_followers(graph, spared))
        details: dict[str, Any] = {
            "key": calibration.key,
            "calibrate_on": self._calibrating.calibrate_on,
            "algorithm": calibration.algorithm,
            "pictures": calibration.pictures,
            "in_fp16": list(spared),
        }
        return Lowered(graph.SerializeToString(), "int8", {"calibration": details}, calibration.to_json())


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
