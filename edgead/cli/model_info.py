"""What a run or a bundle is, read from its files alone: no torch, and onnx only for the cost of the graph."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import prod
from pathlib import Path
from typing import Any, Literal

from edgead.errors import EdgeadError, InputError, MissingExtraError, RunError, needs_extra
from edgead.files.atomic import restore_directory

MAX_JSON_BYTES = 16 * 2**20

# What a network counts while it is trained, and nobody learns.
_COUNTED = ("running_mean", "running_var", "num_batches_tracked")

State = Literal["training", "finished", "collapsed"]


@dataclass(frozen=True, slots=True)
class PartInfo:
    """One part that a model serves.

    threshold: None for a run that is not finished. held_out, trained_on: numbers of images; trained_on is None where
    the bundle does not say.
    """

    threshold: float | None
    false_alarm_rate: float | None
    held_out: int | None
    trained_on: int | None


@dataclass(frozen=True, slots=True)
class Verification:
    """How far a part's graph is from its reference. measured, allowed: by measure."""

    reference: str
    n: float | None
    measured: Mapping[str, Any]
    allowed: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A run or a bundle.

    parts: by name. model_mb: size of the model's file in 10^6 bytes. parameters, gflop: of one image, None where they
    cannot be had, with why in `absent`. verified: None for a run; False for an engine that its builder could not run.
    verification: by part. written_at: ISO 8601 in UTC.
    """

    path: str
    kind: Literal["run", "bundle"]
    state: State
    method: str
    teacher: str
    size: str
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
        """Plain JSON values; keys are the field names."""
        return asdict(self)

    def text(self) -> str:
        """A table for a terminal."""
        rows = [
            (self.kind, self.path if self.state == "finished" else f"{self.path} ({self.state})"),
            ("method", self.method),
            ("teacher", self.teacher),
            ("image size", self.size),
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
        return "\n".join(f"{name:<20} {text}" for name, text in rows)

    def _figure(self, name: str, form: str) -> str:
        value = getattr(self, name)
        return f"- ({self.absent.get(name, 'unknown')})" if value is None else form.format(value)

    def _verification_rows(self) -> list[tuple[str, str]]:
        if self.verified is None:
            return [("verified", "- (edgead build verifies)")]
        if not self.verified:
            said = "no: the graph was, and each start compares the engine with the golden answers"
        else:
            said = "yes, when it was built"
        rows = [("verified", said)]
        for part, found in self.verification.items():
            measures = ", ".join(
                f"{name.replace('_', ' ')} {_plain(value)}" for name, value in found.measured.items()
            )
            rows.append(("", f"{part}, {found.n} images against {found.reference}: {measures}"))
        return rows


def describe(path: Path) -> ModelInfo:
    """Read what a run or a bundle says of itself.

    Args:
        path: Directory that edgead train, edgead import or edgead build wrote.

    Returns:
        The description. A bundle's files are checked by their hashes first.

    Raises:
        InputError: The directory is neither a run nor a bundle.
        RunError: The record of the run is broken.
        BundleError: The bundle is damaged.
    """
    restore_directory(path)
    if (path / "manifest.json").is_file():
        return _bundle(path)
    if (path / "run.json").is_file():
        return _run(path)
    reason = "is neither a run (run.json) nor a bundle (manifest.json)" if path.exists() else "does not exist"
    raise InputError(f"{path} {reason}: give a directory that edgead train or edgead build wrote")


def _bundle(path: Path) -> ModelInfo:
    from edgead.bundle import open_bundle

    bundle = open_bundle(path)
    manifest = bundle.manifest
    training = dict(manifest.training)
    counts = training.pop("trained_on", None)
    counts = counts if isinstance(counts, Mapping) else {}
    parts = {
        name: PartInfo(threshold.value, threshold.false_alarm_rate, threshold.n_normal, counts.get(name))
        for name, threshold in manifest.thresholds.items()
    }
    absent: dict[str, str] = {}
    parameters = gflop = None
    try:
        with needs_extra("build", "the cost"):
            import onnx

            from edgead.export.cost import cost_of
        cost = cost_of(onnx.load(str(bundle.file("model.onnx"))))
        parameters, gflop = cost.parameters, cost.flop / 1e9
    except MissingExtraError as error:
        absent = dict.fromkeys(("parameters", "gflop"), str(error))
    except EdgeadError as error:
        absent = dict.fromkeys(("parameters", "gflop"), str(error))
    main_file = "model.engine" if "model.engine" in manifest.files else "model.onnx"
    return ModelInfo(
        path=str(path),
        kind="bundle",
        state="finished",
        method=manifest.method,
        teacher=manifest.teacher,
        size=str(manifest.size),
        precision=manifest.precision,
        target=manifest.target,
        backend=manifest.backend,
        parts=parts,
        model_mb=manifest.files[main_file].bytes / 1e6,
        parameters=parameters,
        gflop=gflop,
        verified=manifest.verified,
        verification=_verification(manifest.verification),
        data=None,
        training=training,
        written_at=manifest.created_at,
        edgead_version=manifest.edgead_version,
        absent=absent,
    )


def _verification(record: Mapping[str, Any]) -> dict[str, Verification]:
    parts = record.get("parts")
    found = {}
    for name, judged in parts.items() if isinstance(parts, Mapping) else ():
        if isinstance(judged, Mapping):
            numbers = {key: value for key, value in judged.items() if isinstance(value, int | float)}
            n = numbers.pop("n", None)
            limits = judged.get("limits")
            found[name] = Verification(
                str(record.get("reference")), n, numbers, dict(limits) if isinstance(limits, Mapping) else {}
            )
    return found


def _run(path: Path) -> ModelInfo:
    file = path / "run.json"
    try:
        content = file.read_bytes()
        if len(content) > MAX_JSON_BYTES:
            raise ValueError(f"it is larger than {MAX_JSON_BYTES} bytes")
        record = json.loads(content)
        config, state = record["config"], record["state"]
        if state not in ("training", "finished", "collapsed"):
            raise ValueError(f"unknown state {state!r}")
        variant = config["variant"]
        parts = {name: _part_of_run(part) for name, part in record["parts"].items()}
        size, parameters, reason = _weights(path / "model.safetensors", state)
        absent = {"gflop": "counted from the graph that edgead build exports"}
        if reason is not None:
            absent |= {"model_mb": reason, "parameters": reason}
        return ModelInfo(
            path=str(path),
            kind="run",
            state=state,
            method=config["method"] if variant == "standard" else f"{config['method']}:{variant}",
            teacher=config["teacher"],
            size=config["size"] if "x" in config["size"] else f"{config['size']}x{config['size']}",
            precision=config["training_precision"],
            target=None,
            backend=None,
            parts=parts,
            model_mb=size,
            parameters=parameters,
            gflop=None,
            verified=None,
            verification={},
            data=tuple(config["data"]),
            training={key: value for key, value in record["summary"].items() if key != "trained_on"},
            written_at=record["summary"].get("finished_at"),
            edgead_version=record["edgead_version"],
            absent=absent,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(
            f"{file} is not the record of a training run ({error!r}): train the run again"
        ) from error


def _part_of_run(record: Mapping[str, Any]) -> PartInfo:
    threshold = record["threshold"] or {}
    return PartInfo(
        threshold.get("value"),
        threshold.get("false_alarm_rate"),
        len(record["holdout"]),
        record["train_images"],
    )


def _weights(file: Path, state: str) -> tuple[float | None, int | None, str | None]:
    """Size in MB and number of learnt values of a file of safetensors, from its header; or why there are none."""
    if not file.is_file():
        return None, None, "the training is unfinished" if state == "training" else f"{file.name} is missing"
    with file.open("rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8))
        if length > MAX_JSON_BYTES:
            raise ValueError(f"the header of {file.name} is larger than {MAX_JSON_BYTES} bytes")
        header = json.loads(opened.read(length))
    counted = sum(
        prod(tensor["shape"])
        for name, tensor in header.items()
        if name != "__metadata__" and not name.endswith(_COUNTED)
    )
    return file.stat().st_size / 1e6, counted, None


def _part_text(part: PartInfo) -> str:
    trained = "" if part.trained_on is None else f"{part.trained_on} images trained on, "
    if part.threshold is None:
        return f"{trained}{part.held_out} held out, no threshold yet"
    return (
        f"{trained}{part.held_out} held out, threshold {part.threshold:.4g} for a false-alarm rate of "
        f"{part.false_alarm_rate:g}"
    )


def _plain(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
