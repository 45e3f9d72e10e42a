"""The head as CUDA kernels, behind an engine that ends in features.

The kernels are compiled on the machine that runs them, for its GPU, which takes a second or two. So the machine code
is cached, in one file for each kind of GPU and each version of the kernels' source. The file is in the user's cache
directory, like the kernels of TensorRT for RTX. It begins with a hash of its content: if the file was cut or changed by
accident, the kernels are compiled again instead of given to the driver.
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
    from edgead.runtime.tensorrt.cuda_stream import Stream

WORKSPACE = "workspace"
_FORMATS: Mapping[str, Format] = {"float32": "float", "float16": "half"}
_DIGEST_BYTES = 32


class KernelHead:
    """The operator for the features of one record; used inside `Gpu.entered`.

    Args:
        features: Record of the features.

    Raises:
        MissingExtraError: If cuda-core is not installed.
        BackendError: If the kernels cannot be compiled or loaded.
    """

    def __init__(self, features: FeatureRecord) -> None:
        self._features = features
        self._kernels = AnomalyMapKernels(kept_cubin)

    def bytes_of_image(self) -> dict[str, int]:
        """Return the GPU memory that the operator needs for each image in addition to map and score.

        Returns:
            Size in bytes of each of the features and of the workspace, by name.
        """
        return {
            **dict(self._features.bytes_of_image()),
            WORKSPACE: workspace_bytes(self._features.of_batch(1)),
        }

    def plan(self, count: int, addresses: Mapping[str, int]) -> tuple[Launch, ...]:
        """Plan the launches for one batch size.

        Args:
            count: Number of images.
            addresses: Addresses in GPU memory, aligned to 256 bytes, by name: the features as in the record,
                `WORKSPACE`, anomaly_map and anomaly_score.

        Returns:
            The launches, for `enqueue`.

        Raises:
            BackendError: If the kernels do not support the shapes or the attributes of the head.
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
        """Queue planned launches; this allocates no memory and does not wait, so a stream may capture it.

        Args:
            planned: Launches from `plan`.
            stream: Stream to queue them in.

        Raises:
            BackendError: If the driver refuses a launch.
        """
        self._kernels.enqueue(planned, stream.handle)


def kept_cubin(architecture: str) -> bytes:
    """Return the machine code of the kernels from the cache, or compile it and add it to the cache.

    Args:
        architecture: Architecture of the GPU, such as sm_87.

    Returns:
        Content of a cubin file.

    Raises:
        MissingExtraError: If cuda-core is not installed.
        BackendError: If the kernels cannot be compiled.
    """
    file = cache_directory() / "kernels" / f"{source_digest()}-{architecture}.cubin"
    kept = read_cache(file)
    cubin = kept[_DIGEST_BYTES:]
    if cubin and hashlib.sha256(cubin).digest() == kept[:_DIGEST_BYTES]:
        return cubin
    cubin = compile_kernels(architecture).cubin
    write_cache(file, hashlib.sha256(cubin).digest() + cubin)
    return cubin
