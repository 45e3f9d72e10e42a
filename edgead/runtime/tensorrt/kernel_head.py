"""The head as CUDA kernels, behind an engine that ends in features.

The kernels are compiled on the machine that runs them, for its GPU, which takes a second or two. So the machine code
is kept, a file for each kind of GPU and each text of the kernels. It lies in the user's cache directory, as the kernels
of TensorRT for RTX do; what is kept begins with its own hash, so that a file that was cut or changed by accident is
compiled anew and not given to the driver.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgead.files.cache import cache_directory
from edgead.plugin.compile import compile_kernels, source_digest
from edgead.plugin.kernels import AnomalyMapKernels
from edgead.plugin.launches import Buffers, Format, Launch, workspace_bytes
from edgead.runtime.tensorrt.feature_record import FeatureRecord
from edgead.runtime.tensorrt.rtx_cache import read_cache, write_cache

if TYPE_CHECKING:
    from edgead.runtime.tensorrt.cuda import Stream

WORKSPACE = "workspace"
_FORMATS: Mapping[str, Format] = {"float32": "float", "float16": "half"}
_DIGEST_BYTES = 32


class KernelHead:
    """The operator for features of one record; used inside `Gpu.entered`.

    Raises MissingExtraError without cuda-core, BackendError when the kernels cannot be compiled or loaded.
    """

    def __init__(self, features: FeatureRecord) -> None:
        self._features = features
        self._kernels = AnomalyMapKernels(kept_cubin)

    def bytes_of_image(self) -> dict[str, int]:
        """What it needs on the GPU beside map and score, for each image: the features, and room to work in."""
        return {
            **dict(self._features.bytes_of_image()),
            WORKSPACE: workspace_bytes(self._features.of_batch(1)),
        }

    def plan(self, count: int, addresses: Mapping[str, int]) -> tuple[Launch, ...]:
        """Plan the launches for a batch of so many images, once.

        addresses: on the GPU, aligned to 256 bytes, of the features by their names in the record, `WORKSPACE`,
        anomaly_map and anomaly_score. Raises BackendError for what the kernels do not take.
        """
        names = [spec.name for spec in self._features.outputs]
        scales = len(self._features.shapes)
        buffers = Buffers(
            [addresses[name] for name in names[:scales]],
            [addresses[name] for name in names[scales:]],
            addresses[WORKSPACE],
            addresses["anomaly_map"],
            addresses["anomaly_score"],
        )
        shapes = self._features.of_batch(count)
        return self._kernels.plan(_FORMATS[self._features.dtype], shapes, self._features.head, buffers)

    def enqueue(self, planned: tuple[Launch, ...], stream: Stream) -> None:
        """Queue planned launches; takes no memory and waits for nothing, so a stream may capture it."""
        self._kernels.enqueue(planned, stream.handle)


def kept_cubin(architecture: str) -> bytes:
    """Machine code for an architecture such as sm_87: what was kept, or compiled now and kept for the next time."""
    file = cache_directory() / "kernels" / f"{source_digest()}-{architecture}.cubin"
    kept = read_cache(file)
    cubin = kept[_DIGEST_BYTES:]
    if cubin and hashlib.sha256(cubin).digest() == kept[:_DIGEST_BYTES]:
        return cubin
    cubin = compile_kernels(architecture).cubin
    write_cache(file, hashlib.sha256(cubin).digest() + cubin)
    return cubin
