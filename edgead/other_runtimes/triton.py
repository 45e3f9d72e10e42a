"""A bundle as a model of a Triton model repository.

    REPOSITORY/
      NAME/
        config.pbtxt     description of the model: tensors, batching, instances, warm-up, thresholds
        1/model.onnx     the graph, or model.plan: the engine of TensorRT
        warmup/golden-K  golden images of the bundle, raw uint8
        README.md        what the client does: images, thresholds, expected scores of the golden images

Only what the bundle was verified with is exported. A backend of Triton that computes otherwise is refused.

Sources: `model_config.proto` of Triton 2.73, and the parameters of its backends for ONNX Runtime, OpenVINO and
TensorRT, August 2026.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from edgead.bundle import Bundle
from edgead.bundle.golden import Golden
from edgead.errors import InputError
from edgead.files.atomic import check_directory, replace_directory, write_errors
from edgead.other_runtimes.client_notes import decision_notes, input_notes
from edgead.other_runtimes.text_format import Literal, Message, text_format
from edgead.runtime.golden_check import rebuild_command
from edgead.runtime.onnxruntime import OnnxRuntimeSession
from edgead.runtime.tensorrt.engine_record import MAX_RECORD_BYTES, EngineRecord
from edgead.types import TensorSpec

CONFIG = "config.pbtxt"
MAX_BATCH = 8
"""Largest batch of a graph with any number of images. More images at once give no more images a second on a CPU."""

_MARK = "# Written by edgead export-triton."
_NAME = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]{0,127}")
_TYPES = {"uint8": Literal("TYPE_UINT8"), "float32": Literal("TYPE_FP32")}


@dataclass(frozen=True, slots=True)
class TritonModel:
    """A model of a Triton model repository.

    Attributes:
        path: Its folder.
        backend: Name of Triton's backend.
        max_batch: Largest number of images in one inference.
        notes: Options that the server needs, as text; empty if it needs none.
    """

    path: Path
    backend: str
    max_batch: int
    notes: str = ""


def export_triton(bundle: Bundle, repository: Path, name: str | None = None) -> TritonModel:
    """Write a bundle as a model of a model repository, or replace the model of an earlier export.

    Args:
        bundle: Opened bundle.
        repository: Directory of the repository: missing, empty, or one in which every folder is a model.
        name: Name of the model; None for the name of the bundle's directory.

    Returns:
        The written model.

    Raises:
        InputError: No such model can be served, the name is no name of a model, or `repository` holds something else.
        BundleError: The bundle is damaged.
        BackendError: The graph does not have the inputs and outputs of edgead.
        EdgeadError: A file cannot be written.
    """
    name = Path(os.path.abspath(bundle.path)).name if name is None else name
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name[:80]!r} is no name of a model",
            hint="give --name with letters, digits and ._+- only, such as my-parts",
        )
    model = _model(bundle, repository / name)
    _check_repository(repository, name)
    graph = bundle.graph()
    with OnnxRuntimeSession(graph, 1, bundle.manifest.size, str(bundle.path), bounded=True) as session:
        inputs, outputs = session.inputs, session.outputs
    golden = bundle.golden()
    config = _config(bundle, model, name, inputs, outputs, golden)
    with replace_directory(model.path) as partial, write_errors(model.path):
        (partial / "1").mkdir()
        (partial / "warmup").mkdir()
        is_engine = model.backend == "tensorrt"
        content = bundle.read("model.engine") if is_engine else graph
        (partial / "1" / _file_name(model)).write_bytes(content)
        for number, image in enumerate(golden.images):
            (partial / "warmup" / f"golden-{number}").write_bytes(image.tobytes())
        (partial / CONFIG).write_text(f"{_MARK}\n{text_format(config)}", encoding="utf-8")
        (partial / "README.md").write_text(_readme(bundle, model, name, golden), encoding="utf-8")
    return model


def _file_name(model: TritonModel) -> str:
    return "model.plan" if model.backend == "tensorrt" else "model.onnx"


def _model(bundle: Bundle, path: Path) -> TritonModel:
    """Choose Triton's backend; InputError if none computes what the bundle was verified with."""
    manifest = bundle.manifest
    if manifest.backend == "onnxruntime":
        return TritonModel(path, "onnxruntime", MAX_BATCH)
    if manifest.backend == "openvino" and manifest.precision != "int8":
        notes = (
            "On a processor with bfloat16 instructions (AVX512_BF16, AMX) OpenVINO computes in bfloat16, and its "
            "backend has no option for float32. Maps then differ by a tenth: use a bundle for the target cpu there."
        )
        # The backend fixes the batch of the graph, and refuses or pads every other number of images.
        return TritonModel(path, "openvino", 1, notes)
    if manifest.backend == "tensorrt":
        return _engine_model(bundle, path)
    reasons = {
        "openvino": "Triton's backend rounds INT8 concatenations otherwise than edgead",
        "openvino-gpu": "Triton's backend for OpenVINO cannot set the precision of a GPU",
        "openvino-npu": "Triton's backend for OpenVINO cannot set the precision of an NPU",
        "tensorrt-rtx": "Triton has no backend for TensorRT for RTX",
    }
    raise InputError(
        f"{bundle.path} is for {manifest.backend}: {reasons.get(manifest.backend, 'Triton does not know it')}",
        hint=f"build it for Triton with 'edgead build {bundle.path} --target cpu --out OTHER', or --target datacenter",
    )


def _engine_model(bundle: Bundle, path: Path) -> TritonModel:
    """Describe the model of an engine of TensorRT."""
    rebuild = rebuild_command(bundle)
    record = EngineRecord.from_json(bundle.read("engine.json", MAX_RECORD_BYTES), rebuild)
    smallest, _, largest = record.batch
    if smallest > 1:
        raise InputError(
            f"the engine of {bundle.path} takes {smallest} images or more, and Triton sends one",
            hint="set min = 1 in [batch] of the target and build again",
        )
    if record.features is not None:
        raise InputError(
            f"the engine of {bundle.path} ends in features, and Triton runs no kernels after it",
            hint="build it with --head standard",
        )
    places = " and ".join(record.compute_capabilities)
    notes = f"The engine is for TensorRT {record.library_version} and GPUs of compute capability {places}."
    if record.carries_plugin:
        notes += " It carries its plugin: start the server with `--backend-config=tensorrt,version-compatible=true`."
    elif record.head == "plugin":
        notes += (
            " It needs the plugin library `libedgead_plugin.so` with the SHA-256 "
            f"`{record.plugin_sha256}`: start the server with "
            "`--backend-config=tensorrt,plugins=/plugins/libedgead_plugin.so`."
        )
    elif record.version_compatible:
        notes += " Start the server with `--backend-config=tensorrt,version-compatible=true`."
    return TritonModel(path, "tensorrt", largest, notes)


def _check_repository(repository: Path, name: str) -> None:
    """Refuse a directory that is no model repository, and a model that edgead did not write."""
    check_directory(repository)
    if not repository.is_dir():
        return
    for entry in repository.iterdir():
        if not entry.name.startswith(".") and not (entry / CONFIG).is_file():
            raise InputError(
                f"{repository} holds {entry.name[:80]!r}, which is no model with a {CONFIG}",
                hint="choose an empty or new directory, or a Triton model repository",
            )
    config = repository / name / CONFIG
    if config.is_file() and not config.read_bytes().startswith(_MARK.encode()):
        raise InputError(
            f"{repository} has a model {name} that edgead did not write", hint="give another --name"
        )


def _config(
    bundle: Bundle,
    model: TritonModel,
    name: str,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    golden: Golden,
) -> Message:
    """Return the configuration of the model."""
    (images,) = inputs
    manifest, size = bundle.manifest, [length for length in images.shape[1:] if length is not None]

    def warm_up(number: int, batch: int) -> Message:
        data = {"data_type": _TYPES[images.dtype], "dims": size, "input_data_file": f"golden-{number}"}
        sample = f"golden-{number}" if batch == 1 else f"batch of {batch}"
        # Triton repeats the one image of the file for a batch.
        return {"name": sample, "batch_size": batch, "inputs": {"key": images.name, "value": data}}

    warm_ups = [warm_up(number, 1) for number in range(len(golden.images))]
    parameters = {f"edgead.threshold.{part}": repr(one.value) for part, one in manifest.thresholds.items()}
    main_file = "model.engine" if model.backend == "tensorrt" else "model.onnx"
    parameters |= {
        "edgead.view": str(manifest.view),
        "edgead.model_sha256": manifest.files[main_file].sha256,
    }
    kind = Literal("KIND_GPU" if model.backend == "tensorrt" else "KIND_CPU")
    # Basic optimisations leave Q/DQ nodes as they are written. The others fuse them into products of 8 bits, which
    # saturate on some processors.
    basic = {"graph": {"level": -1}}
    keeps_qdq = model.backend == "onnxruntime" and manifest.precision == "int8"
    return {
        "name": name,
        "backend": model.backend,
        "default_model_filename": _file_name(model),
        "max_batch_size": model.max_batch,
        "input": [_tensor(spec) for spec in inputs],
        "output": [_tensor(spec) for spec in outputs],
        "version_policy": {"latest": {"num_versions": 1}},
        "instance_group": [{"count": 1, "kind": kind}],
        "dynamic_batching": {},
        **({"optimization": basic} if keeps_qdq else {}),
        "parameters": [{"key": key, "value": {"string_value": value}} for key, value in parameters.items()],
        "model_warmup": [*warm_ups, *([warm_up(0, model.max_batch)] if model.max_batch > 1 else [])],
    }


def _tensor(spec: TensorSpec) -> Message:
    """Describe an input or output. Triton adds the batch, and knows no tensor without another dimension."""
    dims = [length for length in spec.shape[1:] if length is not None]
    described = {"name": spec.name, "data_type": _TYPES[spec.dtype], "dims": dims or [1]}
    return described if dims else {**described, "reshape": {"shape": []}}


def _readme(bundle: Bundle, model: TritonModel, name: str, golden: Golden) -> str:
    """Return the text of ``README.md``."""
    manifest = bundle.manifest
    parts = list(manifest.thresholds)
    rows = "\n".join(
        f"| golden-{number} | {parts[part]} | {float(score)!r} |"
        for number, (part, score) in enumerate(zip(golden.part, golden.anomaly_score, strict=True))
    )
    server = f"\n\n## Server\n\n{model.notes}" if model.notes else ""
    return f"""# {name}

{manifest.method}, {manifest.precision}, built by edgead {manifest.edgead_version} for {manifest.backend}; exported for
Triton's backend `{model.backend}`.{server}

## Images

{input_notes(manifest)}

A request has 1 to {model.max_batch} images. `anomaly_map` is float32, 1 x height x width; `anomaly_score` is float32,
one number for each image.

## Decision

{decision_notes(manifest)}

## Check of the server

The server warms up with the files of `warmup/`, each one image of the size above, raw uint8. Send them once, and
compare the scores:

| file | part | anomaly_score |
|---|---|---|
{rows}
"""
