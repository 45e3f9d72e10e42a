"""Description of a run or a bundle, as a table or as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from edgead.text import printable

State = Literal["training", "finished", "collapsed"]


@dataclass(frozen=True, slots=True)
class PartInfo:
    """One part of a model.

    Attributes:
        threshold: Decision threshold, None for an unfinished run.
        false_alarm_rate: False-alarm rate that the threshold was set for; None for an unfinished run, and for a
            threshold that another rule set.
        held_out: Number of images that set the threshold of the build or run: held-out or cross-fitted images.
        cross_fitted: Whether they are cross-fitted, so that the model was trained on them.
        trained_on: Number of training images, None if the bundle does not record it.
    """

    threshold: float | None
    false_alarm_rate: float | None
    held_out: int | None
    cross_fitted: bool
    trained_on: int | None


@dataclass(frozen=True, slots=True)
class Verification:
    """Differences between the graph and its reference on the images of one part.

    Attributes:
        reference: Name of the reference.
        n: Number of images that were compared.
        measured: Measured difference by name of the measure.
        allowed: Tolerance by name of the measure.
    """

    reference: str
    n: float | None
    measured: Mapping[str, Any]
    allowed: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Description of a run or a bundle.

    Attributes:
        path: Directory.
        kind: "run" or "bundle".
        state: State of the training.
        method: Method, with its variant behind a colon.
        teacher: timm's name of the teacher.
        size: Image size in pixels, "HxW".
        view: Part of an image that the model inspects, and the way to its size.
        precision: Precision of the graph, for a run the precision of training.
        target: Target of the bundle, None for a run.
        backend: Backend of the bundle, None for a run.
        parts: Parts by name.
        model_mb: Size of the model file in 10^6 bytes; None if it is missing.
        parameters: Number of learnt values; None if unknown.
        gflop: Floating-point operations for one image, in 10^9; None if unknown.
        verified: None for a run; False for an engine that could not run on the machine that built it.
        verification: Verification by name of the part.
        data: Datasets of the training, None for a bundle.
        training: Records of the training by name.
        written_at: Time of writing, ISO 8601 in UTC; None if unknown.
        edgead_version: Version of edgead that wrote the directory.
        absent: Reasons for unknown values, by name of the attribute.
    """

    path: str
    kind: Literal["run", "bundle"]
    state: State
    method: str
    teacher: str
    size: str
    view: str
    precision: str
    target: str | None
    backend: str | None
    parts: Mapping[str, PartInfo]
    model_mb: float | None
    parameters: int | None
    gflop: float | None
    verified: bool | None
    verification: Mapping[str, Verification]
    data: tuple[str, ...] | None
    training: Mapping[str, Any]
    written_at: str | None
    edgead_version: str
    absent: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the description as plain JSON values; keys are the field names."""
        return asdict(self)

    def text(self) -> str:
        """Return the description as a table for a terminal."""
        rows = [
            (self.kind, self.path if self.state == "finished" else f"{self.path} ({self.state})"),
            ("method", self.method),
            ("teacher", self.teacher),
            ("image size", self.size),
            ("view", self.view),
            ("precision", self.precision if self.kind == "bundle" else f"{self.precision} (trained in)"),
        ]
        if self.target is not None:
            rows.append(("target", f"{self.target} ({self.backend})"))
        rows += [
            ("model size", self._figure("model_mb", "{:.1f} MB")),
            ("parameters", self._figure("parameters", "{:,}")),
            ("GFLOP", self._figure("gflop", "{:.2f}")),
        ]
        rows += [("part", f"{name}: {_part_text(part)}") for name, part in self.parts.items()]
        rows += self._verification_rows()
        if self.data is not None:
            rows.append(("trained on", " ".join(self.data)))
        rows += [(name.replace("_", " "), _plain(value)) for name, value in self.training.items()]
        rows.append(("written", f"{self.written_at or 'at an unknown time'} by edgead {self.edgead_version}"))
        return "\n".join(printable(f"{name:<20} {text}") for name, text in rows)

    def _figure(self, name: str, form: str) -> str:
        """Format a number, or the reason why it is unknown."""
        value = getattr(self, name)
        return f"- ({self.absent.get(name, 'unknown')})" if value is None else form.format(value)

    def _verification_rows(self) -> list[tuple[str, str]]:
        """Return the rows of the verification."""
        if self.verified is None:
            return [("verified", "- (edgead build verifies)")]
        if not self.verified:
            said = "graph only; each start compares the engine with the golden answers"
        else:
            said = "yes, at build time"
        rows = [("verified", said)]
        for part, found in self.verification.items():
            measures = ", ".join(
                f"{name.replace('_', ' ')} {_plain(value)}" for name, value in found.measured.items()
            )
            rows.append(("", f"{part}, {found.n} images against {found.reference}: {measures}"))
        return rows


def _part_text(part: PartInfo) -> str:
    """Format one part for a terminal."""
    trained = "" if part.trained_on is None else f"{part.trained_on} training images, "
    if part.threshold is None:
        return f"{trained}{part.held_out} for the threshold, which is not set yet"
    held_out = f"{part.held_out} {'of them cross-fitted' if part.cross_fitted else 'held out'}"
    rate = "" if part.false_alarm_rate is None else f" for a false-alarm rate of {part.false_alarm_rate:g}"
    return f"{trained}{held_out}, threshold {part.threshold:.4g}{rate}"


def _plain(value: Any) -> str:
    """Format a value for a terminal, floats with 4 digits."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
