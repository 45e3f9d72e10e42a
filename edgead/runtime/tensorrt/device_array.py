"""Arrays and streams of other libraries on the GPU, read by the protocols they share.

PyCUDA, CuPy, Numba and torch arrays tell address, shape and type in `__cuda_array_interface__`, and their streams
are a handle. What they tell comes from outside, so it is checked here, before an address reaches the driver, which
would read whatever lies there. Nothing of CUDA is imported.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgead.errors import InputError

LEGACY_STREAM = 1
"""CUDA's name for the default stream that waits for all others, beside which 0 is ambiguous."""


@dataclass(frozen=True, slots=True)
class DeviceArray:
    """A C-contiguous array in the memory of a GPU, as its owner describes it; the owner keeps it alive.

    pointer: address of its first element. stream: handle of the stream that its content is ready on, None where the
    owner names none.
    """

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stream: int | None

    @property
    def like(self) -> npt.NDArray[Any]:
        """An array in host memory of the same shape and type that holds nothing, to be checked as any other is."""
        return np.broadcast_to(np.zeros((), self.dtype), self.shape)


def is_device_array(source: object) -> bool:
    """Whether an object offers `__cuda_array_interface__`."""
    return hasattr(source, "__cuda_array_interface__")


def device_array(source: object) -> DeviceArray:
    """Read `__cuda_array_interface__`, version 2 (torch) or 3.

    Source of the protocol: numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html. Raises InputError where it
    is malformed, the address is null, or the array is masked or not C-contiguous.
    """
    kind = type(source).__name__
    told = getattr(source, "__cuda_array_interface__", None)
    if not isinstance(told, Mapping):
        raise InputError(
            f"a {kind} has no __cuda_array_interface__: give a NumPy array or an array on the GPU"
        )
    try:
        shape = tuple(operator.index(size) for size in told["shape"])
        dtype = np.dtype(told["typestr"])
        pointer = operator.index(told["data"][0])
        strides = told.get("strides")
        strides = None if strides is None else tuple(operator.index(stride) for stride in strides)
        stream = told.get("stream")
        stream = None if stream is None else operator.index(stream)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(
            f"the __cuda_array_interface__ of a {kind} cannot be read ({error!r}): update the library it comes from"
        ) from error
    if any(size < 0 for size in shape) or pointer < 0 or (stream is not None and stream < 1):
        raise InputError(
            f"the __cuda_array_interface__ of a {kind} has shape {shape}, address {pointer} and stream {stream}: "
            "none may be negative, and a stream is 1 or more"
        )
    if told.get("mask") is not None:
        raise InputError(f"a {kind} with a mask cannot be scored: fill what is masked first")
    if pointer == 0 and all(shape):
        raise InputError(f"a {kind} of shape {shape} is at address 0: it was freed or never allocated")
    if strides is not None and not _contiguous(shape, strides, dtype.itemsize):
        raise InputError(
            f"a {kind} of shape {shape} and strides {strides} is not C-contiguous: copy it into one that is, "
            "for example with cupy.ascontiguousarray or torch's contiguous"
        )
    return DeviceArray(pointer, shape, dtype, stream)


def stream_handle(stream: object) -> int:
    """The handle of a CUDA stream: an int, PyCUDA's `handle`, CuPy's `ptr`, or what `__cuda_stream__` tells.

    Returns `LEGACY_STREAM` for 0, the default stream. Raises InputError for anything else.
    """
    protocol = getattr(stream, "__cuda_stream__", None)
    handle: object = stream
    if protocol is not None:
        told = protocol() if callable(protocol) else protocol
        handle = told[1] if isinstance(told, tuple) and len(told) == 2 and told[0] == 0 else None
    else:
        for name in ("handle", "ptr"):
            handle = getattr(stream, name, handle)
    if isinstance(handle, bool) or not isinstance(handle, int) or handle < 0:
        raise InputError(
            f"stream is {stream!r}: give a handle of 0 or more, a stream of PyCUDA or CuPy, or an object with "
            "__cuda_stream__ version 0"
        )
    return handle or LEGACY_STREAM


def _contiguous(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> bool:
    """Whether these strides in bytes are those of a C-contiguous array; that of a dimension of 1 means nothing."""
    if len(strides) != len(shape):
        return False
    if 0 in shape:
        return True
    expected = itemsize
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size > 1 and stride != expected:
            return False
        expected *= size
    return True
