"""What `engine.json` says of the engine beside it: for which library, platform and GPU it was compiled, from what.

An engine is no portable file. A library that is given one of another version or GPU fails late and in its own words,
or, for want of a check, runs it and is wrong. So what it was built for is written down, and compared with the machine
before the library sees a byte of it. The record is untrusted: it is read as strictly as a manifest.
"""

from __future__ import annotations

import platform as system
import re
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from edgead.errors import BackendError, BundleError
from edgead.files.parsing import RecordError, json_text, parse_json
from edgead.files.records import record_errors, record_from
from edgead.runtime.tensorrt.feature_record import FeatureRecord

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
    "target": r"[A-Za-z0-9_+-][A-Za-z0-9._+-]{0,127}",
}
_COMPUTE_CAPABILITY = re.compile(r"\d{1,2}\.\d", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class EngineRecord:
    """What an engine was compiled for and from.

    backend: tensorrt or tensorrt-rtx. library_version: as the library says it. platform: of `this_platform`.
    compute_capabilities: as "8.6". hardware_compatibility: which other GPUs may run it, one of
    `HARDWARE_COMPATIBILITIES`. version_compatible: a later library of the same major version may run it. precision: of
    the graph. batch: smallest, most frequent and largest number of images. graph_sha256: of the ONNX file it was
    built from, hex. target: name of what chose all this. head: what computes the anomaly map: "standard", operators of
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
    target: str
    head: Head = "standard"
    plugin_sha256: str | None = None
    features: FeatureRecord | None = None

    @property
    def carries_plugin(self) -> bool:
        """Whether the plugin's library is inside the engine: TensorRT lets a version-compatible one alone carry it."""
        return self.head == "plugin" and self.version_compatible

    def to_json(self) -> str:
        """The text of ``engine.json``."""
        return json_text(asdict(self))

    @classmethod
    def from_json(cls, text: str, rebuild: str) -> EngineRecord:
        """Read a record; BundleError, naming the key, for anything `to_json` would not write.

        rebuild: the command line that builds the engine anew.
        """
        with record_errors(BundleError, "engine.json is no record of an engine", rebuild):
            record = record_from(cls, parse_json(text, MAX_RECORD_BYTES))
            _check(record)
        return record


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


def _check(record: EngineRecord) -> None:
    """Raise RecordError, naming the key, for a field that has not its form or does not go with the others."""
    for key, pattern in _PATTERNS.items():
        if not re.fullmatch(pattern, getattr(record, key), re.ASCII):
            raise RecordError(f"{key!r} is {getattr(record, key)[:80]!r}")
    if not 1 <= len(record.compute_capabilities) <= 32 or not all(
        _COMPUTE_CAPABILITY.fullmatch(one) for one in record.compute_capabilities
    ):
        raise RecordError("'compute_capabilities' is no list such as [\"8.6\"]")
    smallest, frequent, largest = record.batch
    if not 1 <= smallest <= frequent <= largest <= _MAX_BATCH:
        raise RecordError("'batch' is no list of min <= opt <= max")
    head, digest = record.head, record.plugin_sha256
    is_digest = digest is not None and _SHA256.fullmatch(digest) is not None
    if not (is_digest if head == "plugin" else digest is None):
        raise RecordError(f"'plugin_sha256' is {str(digest)[:80]!r} with head {head!r}")
    if head == "plugin" and record.backend != "tensorrt":
        raise RecordError("'head' is 'plugin', which such an engine cannot have")
    if (head == "kernels") != (record.features is not None):
        raise RecordError(f"'features' are {'missing' if head == 'kernels' else 'given'} with head {head!r}")
