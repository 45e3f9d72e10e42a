"""Arrays and streams of other libraries on the GPU, read by the protocols that these libraries share.

Arrays of PyCUDA, CuPy, Numba and torch give address, shape and type in `__cuda_array_interface__`, and their streams
have a handle. These values come from outside, so they are checked here before an address reaches the driver: the driver
reads any address. This module imports nothing of CUDA.
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
"""CUDA's handle of the legacy default stream, which waits for all other streams; 0 is ambiguous."""


@dataclass(frozen=True, slots=True)
class DeviceArray:
    """A C-contiguous array in GPU memory, as its owner describes it; the owner keeps the memory alive.

    Attributes:
        pointer: Address of its first element.
        shape: Shape of the array.
        dtype: Type of its elements.
        stream: Handle of the stream that writes its content; None if the owner names none.
    """

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stream: int | None

    @property
    def like(self) -> npt.NDArray[Any]:
        """Array in host memory with the same shape and type and no content, for checks of shape and type."""
        return np.broadcast_to(np.zeros((), self.dtype), self.shape)


def is_device_array(source: object) -> bool:
    """Report whether an object has `__cuda_array_interface__`.

    Args:
        source: Any object.

    Returns:
        True if it has.
    """
    return hasattr(source, "__cuda_array_interface__")


def device_array(source: object) -> DeviceArray:
    """Read `__cuda_array_interface__`, version 2 (torch) or 3.

    Source of the protocol: numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html.

    Args:
        source: Array of another library.

    Returns:
        Address, shape, type and stream of the array.

    Raises:
        InputError: If the interface is missing or malformed, the address is null, or the array is masked or not
            C-contiguous.
    """
    kind = type(source).__name__
    interface = getattr(source, "__cuda_array_interface__", None)
    if not isinstance(interface, Mapping):
        raise InputError(
            f"a {kind} has no __cuda_array_interface__", hint="give a NumPy array or an array on the GPU"
        )
    try:
        shape = tuple(operator.index(size) for size in interface["shape"])
        dtype = np.dtype(interface["typestr"])
        pointer = operator.index(interface["data"][0])
        strides = interface.get("strides")
        strides = None if strides is None else tuple(operator.index(stride) for stride in strides)
        stream = interface.get("stream")
        stream = None if stream is None else operator.index(stream)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(
            f"cannot read the __cuda_array_interface__ of a {kind} ({error!r})",
            hint="update the library of the array",
        ) from error
    if any(size < 0 for size in shape) or pointer < 0 or (stream is not None and stream < 1):
        raise InputError(
            f"the __cuda_array_interface__ of a {kind} has shape {shape}, address {pointer} and stream {stream}",
            hint="give an array without a negative length or address, and a stream of 1 or more",
        )
    if interface.get("mask") is not None:
        raise InputError(f"a {kind} with a mask cannot be scored", hint="fill the masked elements first")
    if pointer == 0 and all(shape):
        raise InputError(
            f"a {kind} of shape {shape} is at address 0", hint="give an array that is allocated and not freed"
        )
    if strides is not None and not _contiguous(shape, strides, dtype.itemsize):
        raise InputError(
            f"a {kind} of shape {shape} and strides {strides} is not C-contiguous",
            hint="copy it, for example with cupy.ascontiguousarray or torch's contiguous",
        )
    return DeviceArray(pointer, shape, dtype, stream)


def stream_handle(stream: object) -> int:
    """Return the handle of a CUDA stream.

    Args:
        stream: Handle as an int, stream of PyCUDA (`handle`) or CuPy (`ptr`), or object with `__cuda_stream__`
            (version 0).

    Returns:
        The handle; `LEGACY_STREAM` for 0, the default stream.

    Raises:
        InputError: If the object is no stream.
    """
    protocol = getattr(stream, "__cuda_stream__", None)
    handle: object = stream
    if protocol is not None:
        pair = protocol() if callable(protocol) else protocol
        handle = pair[1] if isinstance(pair, tuple) and len(pair) == 2 and pair[0] == 0 else None
    else:
        for name in ("handle", "ptr"):
            handle = getattr(stream, name, handle)
    if isinstance(handle, bool) or not isinstance(handle, int) or handle < 0:
        raise InputError(
            f"stream is {stream!r}",
            hint="give a handle of 0 or more, a stream of PyCUDA or CuPy, or an object with __cuda_stream__ version 0",
        )
    return handle or LEGACY_STREAM


def streams_of(array: DeviceArray, stream: object) -> tuple[int, ...]:
    """List the streams that may still write an array.

    Args:
        array: Array on the GPU.
        stream: Stream that the caller names, as `stream_handle` takes it; None for none.

    Returns:
        Handles of the caller's stream and of the array's own; the default stream if there is neither.

    Raises:
        InputError: If `stream` is no stream.
    """
    handles = [] if stream is None else [stream_handle(stream)]
    if array.stream is not None:
        handles.append(array.stream)
    return tuple(dict.fromkeys(handles)) or (LEGACY_STREAM,)


def _contiguous(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> bool:
    """Report whether strides, in bytes, are C-contiguous; the stride of a dimension of length 1 may have any value."""
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
