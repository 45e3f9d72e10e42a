"""Converts a float32 graph to the candidate precisions that `--precision` selects.

`--precision auto` tries the candidate precisions in the fallback order. They share the calibration, the absolute maxima
and the sensitive layers, which are measured once. Held-out images never calibrate, because they verify the result;
cross-fitted images do both (docs/decisions/0012-cross-fitting.md). This module does not need torch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from edgead.engine.calibration_images import CALIBRATE_ON, CalibrateOn, calibration_images
from edgead.engine.fidelity import Precision
from edgead.engine.settings import known_name
from edgead.errors import PrecisionError, needs_extra
from edgead.export.precision.clipping import ALGORITHMS, Algorithm
from edgead.types import Quantize, UInt8Array

if TYPE_CHECKING:
    from edgead.export.precision.calibration import Calibration

CandidatePrecision = Literal[
    "int8-less-float", "int8", "int8-sensitive-fp16", "int8-student", "fp16", "fp16-fp32-tail", "fp32"
]
CANDIDATE_PRECISIONS: tuple[CandidatePrecision, ...] = get_args(CandidatePrecision)

_log = logging.getLogger(__name__)

_PURPOSE = "another precision than fp32"


@dataclass(frozen=True, slots=True)
class Calibrating:
    """Options of the INT8 calibration.

    Attributes:
        calibrate_on: Kind of calibration images, one of `CALIBRATE_ON`. `train` takes good images of the training,
            `defects` synthetic defects made from them, `mixed` half of each, and `noise` uniform noise.
        algorithm: Algorithm that chooses the clipping limits, see `edgead.export.precision.clipping`.
        cache: File of the calibration. It is read if it exists, and written otherwise. None stands for
            `calibration/NAME.json`, where NAME is the name of the bundle.
    """

    calibrate_on: CalibrateOn = "mixed"
    algorithm: Algorithm = "mse"
    cache: Path | None = None

    @classmethod
    def parse(
        cls, calibrate_on: str = "mixed", algorithm: str = "mse", cache: Path | None = None
    ) -> Calibrating:
        """Make the options of a calibration from the options of a user.

        Args:
            calibrate_on: Value of `--calibrate-on`.
            algorithm: Value of `--algorithm`.
            cache: Value of `--cache`; None if it is not given.

        Raises:
            InputError: If a name is unknown.
        """
        return cls(
            known_name("--calibrate-on", calibrate_on, CALIBRATE_ON),
            known_name("--algorithm", algorithm, ALGORITHMS),
            cache,
        )


@dataclass(frozen=True, slots=True)
class ConvertedModel:
    """Graph of a candidate precision.

    Attributes:
        model: Content of the ONNX file.
        precision: Precision of the graph.
        details: Record of the conversion for the manifest, JSON values.
        cache: Calibration of an INT8 graph, as the text of a file; None for other precisions.
    """

    model: bytes
    precision: Precision
    details: dict[str, Any]
    cache: str | None = None


class PrecisionConverter:
    """Converts one float32 graph that edgead exported to the candidate precisions. The steps are logged.

    Args:
        model: Content of the ONNX file.
        calibrating: How INT8 is calibrated.
        name: Name of the bundle, which is the default name of the calibration file.
        watched: Images, (N, H, W, 3) uint8 RGB. Tensors that overflow float16 on them stay float32.
        training_images: Function that takes a number and returns at most this many good images of the training,
            (N, H, W, 3) uint8 RGB. It is called for INT8, except with calibration on noise.
        half_beside_int8: Whether the layers of an INT8 graph that are not INT8 are float16 instead of float32.
    """

    def __init__(
        self,
        model: bytes,
        calibrating: Calibrating,
        name: str,
        watched: UInt8Array,
        training_images: Callable[[int], UInt8Array],
        half_beside_int8: bool = False,
    ) -> None:
        self._model, self._calibrating, self._name = model, calibrating, name
        self._watched, self._training_images = watched, training_images
        self._half_beside_int8 = half_beside_int8

    def graph(self, candidate_precision: CandidatePrecision) -> ConvertedModel:
        """Convert the graph to a candidate precision.

        Args:
            candidate_precision: Candidate precision.

        Returns:
            The converted graph.

        Raises:
            PrecisionError: If the graph cannot be converted, the cached calibration is stale, or `int8-less-float`
                would be the same as `int8`.
            DataError: If there are too few images to calibrate on.
            MissingExtraError: If onnx is missing.
        """
        if candidate_precision == "fp32":
            return ConvertedModel(self._model, "fp32", {})
        if candidate_precision in ("fp16", "fp16-fp32-tail"):
            return self._half(with_tail=candidate_precision == "fp16")
        if candidate_precision == "int8-student":
            return self._int8("student", self._in_float)
        if candidate_precision == "int8-less-float":
            if self._in_float_if_faster == self._in_float:
                raise PrecisionError("it is the same as int8", hint="give --precision int8")
            return self._int8("all", self._in_float_if_faster)
        sensitive = self._sensitive if candidate_precision == "int8-sensitive-fp16" else ()
        return self._int8("all", self._in_float, sensitive)

    def teacher_in_int8(self) -> ConvertedModel:
        """Convert the teacher alone to INT8, which shows its share of the errors. The student stays in float.

        Raises:
            EdgeadError: Any error that `graph` raises.
        """
        with needs_extra("build", _PURPOSE):
            from edgead.export.precision.quantize import layers_to_quantise

        return self._int8("all", (*self._in_float, *layers_to_quantise(self._exact, "student")))

    @cached_property
    def multiplied_scales(self) -> int:
        """Number of scales that the anomaly map multiplies; 1 if it adds them.

        Raises:
            PrecisionError: If the graph does not have exactly one head.
            MissingExtraError: If onnx is missing.
        """
        with needs_extra("build", _PURPOSE):
            from edgead.export.graph_sections import multiplied_scales

        return multiplied_scales(self._exact)

    @cached_property
    def calibration(self) -> Calibration:
        """Calibration of the INT8 candidate precisions, read from the cache, or measured and written there.

        Raises:
            PrecisionError: If the cached calibration is stale.
            DataError: If there are too few images to calibrate on.
            MissingExtraError: If onnx is missing.
        """
        with needs_extra("build", _PURPOSE):
            from edgead.export.precision.calibration import calibrate, calibration_key
            from edgead.export.precision.calibration_file import read_calibration, write_calibration

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
        """Parse the float32 graph."""
        with needs_extra("build", _PURPOSE):
            from edgead.export.head.model_file import graph_from_file

        return graph_from_file(self._model)

    @cached_property
    def _equalised(self) -> Any:
        """Equalise the float32 graph for INT8."""
        from edgead.export.precision.equalize import equalised

        return equalised(self._exact, self.calibration.channel_maxima)

    @cached_property
    def _absolute_maxima(self) -> dict[str, float]:
        """Measure the absolute maximum of each computed tensor on the watched images."""
        return self._maxima_of(self._exact)

    @cached_property
    def _equalised_maxima(self) -> dict[str, float]:
        """Measure the absolute maximum of each computed tensor of the equalised graph on the watched images."""
        return self._maxima_of(self._equalised)

    def _maxima_of(self, graph: Any) -> dict[str, float]:
        from edgead.export.graph_sections import computed_tensors
        from edgead.export.precision.calibration import absolute_maxima_of

        return absolute_maxima_of(graph, self._watched, computed_tensors(graph))

    @cached_property
    def _calibration_images(self) -> UInt8Array:
        """Load the calibration images, (N, H, W, 3) uint8 RGB."""
        return calibration_images(
            self._calibrating.calibrate_on, self._watched.shape[1:], self._training_images
        )

    @cached_property
    def _in_float(self) -> tuple[str, ...]:
        """Find the names of the layers that INT8 leaves in float for their harm."""
        from edgead.export.precision.sensitivity import float_layers

        return float_layers(self._exact, self.calibration.harm)

    @cached_property
    def _in_float_if_faster(self) -> tuple[str, ...]:
        """Find the names of the layers that the faster INT8 leaves in float for their harm."""
        from edgead.export.precision.sensitivity import FASTER_TARGET, float_layers

        return float_layers(self._exact, self.calibration.harm, FASTER_TARGET)

    @cached_property
    def _sensitive(self) -> tuple[str, ...]:
        """Find the names of the sensitive layers among those that INT8 does not leave in float."""
        harm = self.calibration.harm
        from edgead.export.precision.sensitivity import SENSITIVE_SHARE, fewest

        return fewest({layer: harm[layer] for layer in harm if layer not in self._in_float}, SENSITIVE_SHARE)

    def _half(self, with_tail: bool) -> ConvertedModel:
        """Convert to float16; without `with_tail`, the last convolution of each feature and later nodes stay fp32."""
        with needs_extra("build", _PURPOSE):
            from edgead.export.graph_sections import computed_tensors, tail
            from edgead.export.head.model_file import file_from_graph
            from edgead.export.precision.float16 import float16_from_float32

        _log.info("converting to float16")
        layers = None if with_tail else set(computed_tensors(self._exact)) - tail(self._exact)
        half = float16_from_float32(self._exact, self._absolute_maxima, layers)
        return ConvertedModel(file_from_graph(half), "fp16", {})

    def _int8(
        self, quantize: Quantize, in_float: Sequence[str], in_fp16: Sequence[str] = ()
    ) -> ConvertedModel:
        """Convert to INT8 without some layers: those that stay in float, and those that become float16."""
        calibration = self.calibration
        from edgead.export.graph_sections import with_followers
        from edgead.export.head.model_file import file_from_graph
        from edgead.export.precision.float16 import float16_from_float32
        from edgead.export.precision.quantize import int8_from_float32

        graph = int8_from_float32(
            self._equalised,
            calibration.clipping_limits,
            quantize,
            calibration.bias_corrections,
            {*in_float, *in_fp16},
        )
        if self._half_beside_int8:
            graph = float16_from_float32(graph, self._equalised_maxima)
        elif in_fp16:
            graph = float16_from_float32(graph, self._equalised_maxima, with_followers(graph, in_fp16))
        details: dict[str, Any] = {
            "key": calibration.key,
            "calibrate_on": self._calibrating.calibrate_on,
            "algorithm": calibration.algorithm,
            "images": calibration.images,
            "in_float": list(in_float),
            "in_fp16": list(in_fp16),
        }
        return ConvertedModel(file_from_graph(graph), "int8", {"calibration": details}, calibration.to_json())
