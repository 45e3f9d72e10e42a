"""Reading of a `ModelInfo` from the files of a run or a bundle: without torch, and with onnx only for the cost."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from edgead.cli.model_info import ModelInfo, PartInfo, Verification
from edgead.errors import EdgeadError, InputError, RunError, needs_extra
from edgead.files.atomic import restore_directory
from edgead.files.records import record_from
from edgead.imaging.view import View
from edgead.text import path_text

MAX_JSON_BYTES = 16 * 2**20

# Statistics that a network collects in training; they are not learnt.
_COUNTED = ("running_mean", "running_var", "num_batches_tracked")


def describe(path: Path) -> ModelInfo:
    """Read the description of a run or a bundle. The files of a bundle are first checked by their hashes.

    Args:
        path: Directory that edgead train, edgead import or edgead build wrote.

    Returns:
        The description.

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
    raise InputError(f"{path} {reason}", hint="give a directory that edgead train or edgead build wrote")


def _bundle(path: Path) -> ModelInfo:
    """Describe a bundle."""
    from edgead.bundle import open_bundle
    from edgead.bundle.threshold_changes import built_thresholds
    from edgead.bundle.validation_records import is_cross_fitted

    bundle = open_bundle(path)
    manifest = bundle.manifest
    training = dict(manifest.training)
    counts = training.pop("trained_on", None)
    counts = counts if isinstance(counts, Mapping) else {}
    built = built_thresholds(manifest)
    parts = {
        name: PartInfo(
            threshold.value,
            threshold.false_alarm_rate,
            built[name].n_normal,
            is_cross_fitted(manifest, name),
            counts.get(name),
        )
        for name, threshold in manifest.thresholds.items()
    }
    absent: dict[str, str] = {}
    parameters = gflop = None
    try:
        with needs_extra("build", "the cost"):
            from edgead.export.cost import cost_of
            from edgead.export.head.model_file import graph_from_file
        cost = cost_of(graph_from_file(bundle.graph()))
        parameters, gflop = cost.parameters, cost.flop / 1e9
    except EdgeadError as error:
        absent = dict.fromkeys(("parameters", "gflop"), str(error))
    main_file = "model.engine" if "model.engine" in manifest.files else "model.onnx"
    return ModelInfo(
        path=path_text(path),
        kind="bundle",
        state="finished",
        method=manifest.method,
        teacher=manifest.teacher,
        size=str(manifest.size),
        view=str(manifest.view),
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
    """Read the verification of each part from a manifest, which may have any content."""
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
    """Describe a run."""
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
        absent = {"gflop": "counted on the graph that edgead build exports"}
        if reason is not None:
            absent |= {"model_mb": reason, "parameters": reason}
        return ModelInfo(
            path=path_text(path),
            kind="run",
            state=state,
            method=config["method"] if variant == "standard" else f"{config['method']}:{variant}",
            teacher=config["teacher"],
            size=config["size"] if "x" in config["size"] else f"{config['size']}x{config['size']}",
            view=str(record_from(View, config["view"])),
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
            f"{file} is not the record of a training run ({error!r})", hint="train the run again"
        ) from error


def _part_of_run(record: Mapping[str, Any]) -> PartInfo:
    """Describe one part of a run."""
    threshold = record["threshold"] or {}
    return PartInfo(
        threshold.get("value"),
        threshold.get("false_alarm_rate"),
        len(record["holdout"]),
        bool(record["ratios"]),
        record["train_images"],
    )


def _weights(file: Path, state: str) -> tuple[float | None, int | None, str | None]:
    """Return size in MB and number of learnt values of a safetensors file from its header, or the reason for none."""
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
