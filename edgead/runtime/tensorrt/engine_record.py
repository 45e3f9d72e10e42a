"""The record of an engine, `engine.json`: library, platform and GPU that it was compiled for, and its graph.

An engine is not a portable file. If a library gets an engine of another version or GPU, it fails late with a message of
its own, or runs the engine without a check and gives wrong answers. So the record is compared with the machine before
the library reads the engine. The record is untrusted: it is read as strictly as a manifest.
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
    """The properties of an engine that decide where it runs.

    Attributes:
        backend: Backend of the engine: tensorrt or tensorrt-rtx.
        library_version: Version of the library that built it, as the library reports it.
        platform: Operating system and processor, as `this_platform` returns them.
        compute_capabilities: Compute capabilities of the GPUs that it was built for, such as "8.6".
        hardware_compatibility: Level that decides which other GPUs may run it, one of `HARDWARE_COMPATIBILITIES`.
        version_compatible: Whether a later library of the same major version may run it.
        precision: Precision of the graph.
        batch: Smallest, most frequent and largest number of images.
        graph_sha256: SHA-256 of the ONNX file that it was built from, in hex.
        target: Name of the target that chose these settings.
        head: Code that computes the anomaly map: "standard", operators of the engine; "plugin", a plugin library;
            "kernels", CUDA kernels that run after an engine of `features`.
        plugin_sha256: SHA-256 of the plugin library, in hex; None with another head.
        features: Outputs of an engine with the head "kernels"; None with another head.
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
        """Whether the plugin library is inside the engine; TensorRT supports that in version-compatible ones only."""
        return self.head == "plugin" and self.version_compatible

    def to_json(self) -> str:
        """Return the text of ``engine.json``."""
        return json_text(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes, rebuild: str) -> EngineRecord:
        """Read a record.

        Args:
            text: Content of ``engine.json``, at most `MAX_RECORD_BYTES`.
            rebuild: Command line that rebuilds the engine, for messages.

        Returns:
            The record.

        Raises:
            BundleError: If `to_json` would not write this text; the message names the key.
        """
        with record_errors(BundleError, "engine.json is no record of an engine", rebuild):
            record = record_from(cls, parse_json(text, MAX_RECORD_BYTES))
            _check(record)
        return record


def this_platform() -> str:
    """Return operating system and processor of this machine, such as "linux-x86_64"."""
    return f"{system.system()}-{system.machine()}".lower()


def version_numbers(text: str) -> tuple[int, ...]:
    """Return the first three numbers of a version.

    Args:
        text: Version, such as "10.13.3.9".

    Returns:
        Major, minor and patch number, as far as the version has them.
    """
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])


def check_fits(
    record: EngineRecord, library_version: str, platform: str, compute_capability: str, rebuild: str
) -> None:
    """Refuse an engine that was not built for this machine.

    TensorRT: major, minor and patch version must be equal. A version-compatible engine also runs on later versions of
    the same major version. NVIDIA promises later major versions too, if no API was removed between them; edgead does
    not try that. TensorRT for RTX: no release runs an engine of another release.

    A TensorRT engine of hardware compatibility "ampere+" runs on every GPU of compute capability 8.0 or more. An engine
    of "same-compute-capability" runs on other GPU models of the compute capability that it was built on.

    Source: NVIDIA, "TensorRT documentation" and "TensorRT-RTX documentation", Engine Compatibility.

    Args:
        record: Record of the engine.
        library_version: Version of the installed library, which is the record's backend.
        platform: Operating system and processor, as `this_platform` returns them.
        compute_capability: Compute capability of the GPU, such as "8.6".
        rebuild: Whole command line that rebuilds the engine here.

    Raises:
        BackendError: If the engine does not run here; the message lists all differences.
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
        raise BackendError(
            f"the engine was built for {'; for '.join(wrong)}", hint=f"rebuild it with {rebuild}"
        )


def _version_fits(record: EngineRecord, library_version: str) -> bool:
    """Report whether a library of this version runs the engine."""
    if record.backend == "tensorrt-rtx":
        return library_version == record.library_version
    built, found = version_numbers(record.library_version), version_numbers(library_version)
    return found == built or (record.version_compatible and found[:1] == built[:1] and found >= built)


def _check(record: EngineRecord) -> None:
    """Raise RecordError, with the key, for a field of another form or one that contradicts another field."""
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
        raise RecordError(f"'head' is 'plugin', which an engine of {record.backend} cannot have")
    if (head == "kernels") != (record.features is not None):
        raise RecordError(f"'features' are {'missing' if head == 'kernels' else 'given'} with head {head!r}")
