"""The graphs of lower precision that one float32 graph can become: what `--precision` chooses from.

Each is a candidate precision that `--precision auto` tries in the fallback order. What several of them need is measured
once: the calibration, the largest values, the sensitive layers. Calibration images are never those that the threshold
is set on and the result is judged by: a range that was fitted to the validation images would make the verdict
worthless. None of this needs torch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import numpy as np

from edgead.data.pseudo_anomalies.cutpaste import synthetic_defects
from edgead.engine.fidelity import PRECISIONS, Precision
from edgead.errors import DataError, InputError, needs_extra
from edgead.export.precision.clipping import ALGORITHMS, Algorithm
from edgead.types import Quantize, UInt8Array

if TYPE_CHECKING:
    from edgead.export.precision.calibration import Calibration

CalibrateOn = Literal["train", "noise", "cutpaste", "mixed"]
CALIBRATE_ON: tuple[CalibrateOn, ...] = get_args(CalibrateOn)

CandidatePrecision = Literal["int8", "int8-sensitive-fp16", "int8-student", "fp16", "fp16-fp32-tail", "fp32"]
CANDIDATE_PRECISIONS: tuple[CandidatePrecision, ...] = get_args(CandidatePrecision)

Name = TypeVar("Name", bound=str)

CALIBRATION_IMAGES = 64
"""Good images to calibrate on, at most; with more than so many, every second, third and so on is taken."""

MIN_CALIBRATION_IMAGES = 8
"""With fewer, a range would be that of a few parts."""

SENSITIVITY_IMAGES = 8
"""Calibration images that the sensitive layers are found on."""

_log = logging.getLogger(__name__)

_PURPOSE = "another precision than fp32"

# Another seed than verification has, so that its damage is not what the clipping limits were fitted to.
_DEFECT_SEED = 1


@dataclass(frozen=True, slots=True)
class Calibrating:
    """How INT8 is calibrated.

    calibrate_on: one of `CALIBRATE_ON`; `train` takes good images of the training, `cutpaste` synthetic
    defects made from them, `mixed` as many of one as of the other, `noise` no images but uniform noise. algorithm: see
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
class ConvertedModel:
    """A graph of a candidate precision, as the content of an ONNX file.

    details: what the manifest says of how it was made. cache: for INT8 the calibration, as a file's text.
    """

    model: bytes
    precision: Precision
    details: dict[str, Any]
    cache: str | None = None


def candidate_precisions_of(
    precision: str, quantize: str, fallback_order: tuple[CandidatePrecision, ...]
) -> tuple[CandidatePrecision, ...]:
    """The candidate precisions to try in turn for what a user typed; InputError for a name that is unknown, or a
    contradiction.

    precision: one of `PRECISIONS`, or `auto` for all of the fallback order. quantize: of INT8, `all` or `student`.
    """
    choice = _known("--precision", precision, (*PRECISIONS, "auto"))
    if _known("--quantize", quantize, get_args(Quantize)) == "student":
        if choice != "int8":
            raise InputError(f"--quantize student goes with --precision int8, not {precision}")
        return ("int8-student",)
    if choice == "auto":
        return fallback_order
    return (_known("--precision", choice, CANDIDATE_PRECISIONS),)


class PrecisionConverter:
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

    def graph(self, candidate_precision: CandidatePrecision) -> ConvertedModel:
        """Make the graph of a candidate precision.

        Args:
            candidate_precision: The candidate precision.

        Returns:
            The graph and how it was made.

        Raises:
            PrecisionError: If the graph does not convert, or the cached calibration is stale.
            DataError: If there are too few images to calibrate on.
            MissingExtraError: If onnx is missing.
        """
        if candidate_precision == "fp32":
            return ConvertedModel(self._model, "fp32", {})
        if candidate_precision in ("fp16", "fp16-fp32-tail"):
            return self._half(with_tail=candidate_precision == "fp16")
        return self._int8(candidate_precision)

    @cached_property
    def calibration(self) -> Calibration:
        """Of the INT8 candidate precisions: read from the cache, or measured and written there; raises as `graph`
        does.
        """
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
            "calibrating int8 on %d images (%s, %s)", len(images), self._calibrating.calibrate_on, algorithm
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
    def _absolute_maxima(self) -> dict[str, float]:
        from edgead.export.graph_sections import computed_tensors
        from edgead.export.precision.calibration import absolute_maxima_of

        return absolute_maxima_of(self._exact, self._watched, computed_tensors(self._exact))

    @cached_property
    def _calibration_images(self) -> UInt8Array:
        return calibration_images(
            self._calibrating.calibrate_on, self._watched.shape[1:], self._training_images
        )

    @cached_property
    def _sensitive(self) -> tuple[str, ...]:
        from edgead.export.precision.sensitivity import sensitive_layers

        images = self._calibration_images
        spread = images[:: -(-len(images) // SENSITIVITY_IMAGES)]
        calibration = self.calibration
        return sensitive_layers(
            self._exact, calibration.clipping_limits, calibration.bias_corrections, spread
        )

    def _half(self, with_tail: bool) -> ConvertedModel:
        with needs_extra("build", _PURPOSE):
            from edgead.export.graph_sections import computed_tensors, tail
            from edgead.export.precision.float16 import float16_from_float32

        _log.info("converting to float16")
        layers = None if with_tail else set(computed_tensors(self._exact)) - tail(self._exact)
        half = float16_from_float32(self._exact, self._absolute_maxima, layers)
        return ConvertedModel(half.SerializeToString(), "fp16", {})

    def _int8(self, candidate_precision: CandidatePrecision) -> ConvertedModel:
        calibration = self.calibration
        from edgead.export.graph_sections import with_followers
        from edgead.export.precision.float16 import float16_from_float32
        from edgead.export.precision.quantize import int8_from_float32

        excluded = self._sensitive if candidate_precision == "int8-sensitive-fp16" else ()
        graph = int8_from_float32(
            self._exact,
            calibration.clipping_limits,
            "student" if candidate_precision == "int8-student" else "all",
            calibration.bias_corrections,
            excluded,
        )
        if excluded:
            graph = float16_from_float32(graph, self._absolute_maxima, with_followers(graph, excluded))
        details: dict[str, Any] = {
            "key": calibration.key,
            "calibrate_on": self._calibrating.calibrate_on,
            "algorithm": calibration.algorithm,
            "images": calibration.images,
            "in_fp16": list(excluded),
        }
        return ConvertedModel(
            graph.SerializeToString(), "int8", {"calibration": details}, calibration.to_json()
        )


def calibration_images(
    calibrate_on: CalibrateOn, shape: tuple[int, ...], calibration_images: Callable[[int], UInt8Array]
) -> UInt8Array:
    """The images (N, H, W, 3) uint8 RGB that INT8 is calibrated on; shape: (H, W, 3).

    The same each time. Raises DataError when the good images are fewer than `MIN_CALIBRATION_IMAGES`.
    """
    if calibrate_on == "noise":
        noise = np.random.default_rng(_DEFECT_SEED).integers(0, 256, (CALIBRATION_IMAGES, *shape), np.uint8)
        return np.asarray(noise, np.uint8)
    good = calibration_images(CALIBRATION_IMAGES)
    if len(good) < MIN_CALIBRATION_IMAGES:
        raise DataError(
            f"{len(good)} images to calibrate int8 on, at least {MIN_CALIBRATION_IMAGES} are needed: "
            "train on more, or give --calibrate-on noise"
        )
    if calibrate_on == "train":
        return good
    if calibrate_on == "cutpaste":
        return synthetic_defects(good, _DEFECT_SEED)
    return np.concatenate([good[::2], synthetic_defects(good[1::2], _DEFECT_SEED)])


def _known(option: str, value: str, known: tuple[Name, ...]) -> Name:
    for name in known:
        if name == value:
            return name
    raise InputError(f"unknown {option} {value!r}: choose one of {', '.join(known)}")
