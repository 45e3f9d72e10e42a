"""What `engine.json` says of the engine beside it: for which library, platform and GPU it was compiled, from what.

An engine is no portable file. A library that is given one of another version or GPU fails late and in its own words,
or, for want of a check, runs it and is wrong. So what it was built for is written down, and compared with the machine
before the library sees a byte of it. The record is untrusted: it is read as strictly as a manifest.
"""

from __future__ import annotations

import json
import platform as system
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from edgead.errors import BackendError, BundleError
from edgead.runtime.feature_record import FeatureRecord

Head = Literal["standard", "plugin", "kernels"]
HardwareCompatibility = Literal["none", "ampere+", "same-compute-capability"]
HARDWARE_COMPATIBILITIES: tuple[HardwareCompatibility, ...] = get_args(HardwareCompatibility)

MAX_RECORD_BYTES = 2**16
_MAX_BATCH = 4096
_PATTERNS = {
    "backend": r"tensorrt(-rtx)?",
    "library_version": r"\d{1,4}(\.\d{1,6}){1,3}[A-Za-z0-9.+-]{0,32}",
    "platform": r"[a-z]{1,16}-[a-z0-9_]{1,16}",
    "hardware_compatibility": "|".join(map(re.escape, HARDWARE_COMPATIBILITIES)),
    "precision": r"[a-z0-9]{1,16}",
    "graph_sha256": r"[0-9a-f]{64}",
    "recipe": r"[A-Za-z0-9_+-][A-Za-z0-9._+-]{0,127}",
    "head": "|".join(get_args(Head)),
}
_COMPUTE_CAPABILITY = re.compile(r"\d{1,2}\.\d")


@dataclass(frozen=True, slots=True)
class EngineRecord:
    """What an engine was compiled for and from.

    backend: tensorrt or tensorrt-rtx. library_version: as the library says it. platform: of `this_platform`.
    compute_capabilities: as "8.6". hardware_compatibility: which other GPUs may run it, one of
    `HARDWARE_COMPATIBILITIES`. version_compatible: a later library of the same major version may run it. precision: of
    the graph. batch: smallest, most frequent and largest number of pictures. graph_sha256: of the ONNX file it was
    built from, hex. recipe: name of what chose all this. head: what computes the anomaly map: "standard", operators of
    the engine; "plugin", the library of that SHA-256 in the engine's place, plugin_sha256, hex; "kernels", CUDA kernels
    behind an engine that gives `features`. Each of the two is None with another head.
    """

    backend: str
    library_version: str
    platform: str
    compute_capabilities: tuple[str, ...]
    hardware_compatibility: str
    version_compatible: bool
    precision: str
    batch: tuple[int, int, int]
    graph_sha256: str
    recipe: str
    head: Head = "standard"
    plugin_sha256: str | None = None
    features: FeatureRecord | None = None

    @property
    def carries_plugin(self) -> bool:
        """Whether the plugin's library is inside the engine: TensorRT lets a version-compatible one alone carry it."""
        return self.head == "plugin" and self.version_compatible

    def to_json(self) -> str:
        """The text of ``engine.json``."""
        return json.dumps(asdict(self), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, rebuild: str) -> EngineRecord:
        """Read a record; BundleError, naming the key, for anything `to_json` would not write.

        rebuild: the command line that builds the engine anew.
        """
        try:
            if len(text) > MAX_RECORD_BYTES:
                raise ValueError(f"it is longer than {MAX_RECORD_BYTES} characters")
            content = json.loads(text, object_pairs_hook=_unique)
            return cls(**_checked(content))
        except (ValueError, RecursionError) as error:
            raise BundleError(f"engine.json is no record of an engine ({error}): {rebuild}") from error


def this_platform() -> str:
    """Operating system and processor of this machine, as "linux-x86_64"."""
    return f"{system.system()}-{system.machine()}".lower()


def version_numbers(text: str) -> tuple[int, ...]:
    """The first three numbers of a version: major, minor, patch."""
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])


def check_fits(
    record: EngineRecord, library_version: str, platform: str, compute_capability: str, rebuild: str
) -> None:
    """Refuse an engine that was not built for this machine: BackendError that says what differs.

    library_version: of the installed library, which is the record's backend. compute_capability: of the GPU, as "8.6".
    rebuild: the whole command line that builds the engine here.

    TensorRT: major, minor and patch must be the same; a version-compatible engine runs on later ones of the same major
    version. NVIDIA promises later majors too, where no API was removed between; edgead does not try that. TensorRT for
    RTX: no release runs an engine of another. Another level than "none" lets TensorRT engines run on "ampere+" GPUs, of
    8.0 or more; "same-compute-capability" is about other GPU models of the compute capability built on.

    Source: NVIDIA, "TensorRT documentation" and "TensorRT-RTX documentation", Engine Compatibility.
    """
    wrong = []
    if record.platform != platform:
        wrong.append(f"platform {record.platform}, this machine is {platform}")
    if not _version_fits(record, library_version):
        name = "TensorRT for RTX" if record.backend == "tensorrt-rtx" else "TensorRT"
        wrong.append(f"{name} {record.library_version}, this machine has {library_version}")
    if compute_capability not in record.compute_capabilities and not (
        record.hardware_compatibility == "ampere+" and version_numbers(compute_capability) >= (8, 0)
    ):
        built = " and ".join(record.compute_capabilities)
        if record.hardware_compatibility == "ampere+":
            built += " and GPUs from 8.0 on"
        wrong.append(f"compute capability (SM) {built}, this machine's GPU has {compute_capability}")
    if wrong:
        raise BackendError(f"the engine was built for {'; for '.join(wrong)}: rebuild it with {rebuild}")


def _version_fits(record: EngineRecord, library_version: str) -> bool:
    if record.backend == "tensorrt-rtx":
        return library_version == record.library_version
    built, found = version_numbers(record.library_version), version_numbers(library_version)
    return found == built or (record.version_compatible and found[:1] == built[:1] and found >= built)


def _checked(content: Any) -> dict[str, Any]:
    """The fields of a record; ValueError for one that is missing, unknown or not of its type and form."""
    if not isinstance(content, dict):
        raise ValueError(f"it is {type(content).__name__}, not an object")
    for key in sorted(content.keys() ^ {entry.name for entry in fields(EngineRecord)}):
        raise ValueError(f"the key {key[:80]!r} is unknown or missing")
    for key, pattern in _PATTERNS.items():
        if not isinstance(content[key], str) or not re.fullmatch(pattern, content[key], re.ASCII):
            raise ValueError(f"{key!r} is {str(content[key])[:80]!r}")
    # The exact type: in Python true is an int too.
    if type(content["version_compatible"]) is not bool:
        raise ValueError("'version_compatible' is neither true nor false")
    head, digest = content["head"], content["plugin_sha256"]
    is_digest = isinstance(digest, str) and re.fullmatch(r"[0-9a-f]{64}", digest) is not None
    if not (is_digest if head == "plugin" else digest is None):
        raise ValueError(f"'plugin_sha256' is {str(digest)[:80]!r} with head {head!r}")
    if head == "plugin" and content["backend"] != "tensorrt":
        raise ValueError("'head' is 'plugin', which such an engine cannot have")
    if (head == "kernels") != (content["features"] is not None):
        raise ValueError(f"'features' are {'missing' if head == 'kernels' else 'given'} with head {head!r}")
    return content | {
        "features": None if content["features"] is None else FeatureRecord.from_json(content["features"]),
        "compute_capabilities": _compute_capabilities(content["compute_capabilities"]),
        "batch": _batch(content["batch"]),
    }


def _compute_capabilities(value: Any) -> tuple[str, ...]:
    if (
        isinstance(value, list)
        and 1 <= len(value) <= 32
        and all(isinstance(one, str) and _COMPUTE_CAPABILITY.fullmatch(one) for one in value)
    ):
        return tuple(value)
    raise ValueError("'compute_capabilities' is no list such as [\"8.6\"]")


def _batch(value: Any) -> tuple[int, int, int]:
    if isinstance(value, list) and len(value) == 3 and all(type(one) is int for one in value):
        smallest, frequent, largest = value
        if 1 <= smallest <= frequent <= largest <= _MAX_BATCH:
            return smallest, frequent, largest
    raise ValueError("'batch' is no list of min <= opt <= max")


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key is given twice")
    return content
