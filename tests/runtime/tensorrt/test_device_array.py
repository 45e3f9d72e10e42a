from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from edgead.errors import InputError
from edgead.runtime.tensorrt.device_array import DeviceArray, device_array, is_device_array, stream_handle

GOOD = {"shape": (2, 32, 64, 3), "typestr": "|u1", "data": (0x1000, False), "version": 3}


def offered(**changes) -> SimpleNamespace:
    """An object that offers the interface, with some of its values changed."""
    return SimpleNamespace(__cuda_array_interface__=GOOD | changes)


def without(key: str) -> SimpleNamespace:
    return SimpleNamespace(
        __cuda_array_interface__={name: value for name, value in GOOD.items() if name != key}
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"version": 2},
        {"strides": None},
        {"strides": (6144, 192, 3, 1)},
        {"data": (0x1000, True)},
        {"shape": (np.int64(2), 32, 64, 3)},
        {"mask": None, "stream": None, "descr": [("", "|u1")]},
    ],
)
def test_a_contiguous_array_is_read(changes):
    array = device_array(offered(**changes))
    assert array == DeviceArray(0x1000, (2, 32, 64, 3), np.dtype("uint8"), None)
    assert (array.like.shape, array.like.dtype) == ((2, 32, 64, 3), np.uint8)


def test_it_is_frozen():
    with pytest.raises(AttributeError):
        device_array(offered()).pointer = 0


@pytest.mark.parametrize("stream", [1, 2, 0x5EED])
def test_the_stream_it_names_is_kept(stream):
    assert device_array(offered(stream=stream)).stream == stream


def test_the_stride_of_a_dimension_of_one_means_nothing():
    assert device_array(offered(shape=(1, 32, 64, 3), strides=(7, 192, 3, 1))).shape == (1, 32, 64, 3)


@pytest.mark.parametrize(("typestr", "dtype"), [("<f4", "float32"), ("|i1", "int8"), ("<f2", "float16")])
def test_another_type_is_read_so_that_the_session_can_name_it(typestr, dtype):
    assert device_array(offered(typestr=typestr)).dtype == np.dtype(dtype)


@pytest.mark.parametrize(
    "strides",
    [
        (12288, 192, 3, 1),  # every second image
        (6144, 384, 3, 1),  # every second row
        (6144, 192, -3, 1),  # mirrored
        (1, 192, 3, 6144),  # Fortran's order
        (6144, 192, 3),
        (6144, 192, 4, 1),  # a channel of four left out
    ],
)
def test_a_strided_array_is_refused_with_the_hint(strides):
    with pytest.raises(InputError) as caught:
        device_array(offered(strides=strides))
    assert str(strides) in caught.value.what
    assert "cupy.ascontiguousarray" in caught.value.hint


@pytest.mark.parametrize(
    "source",
    [
        without("shape"),
        without("typestr"),
        without("data"),
        offered(shape=5),
        offered(shape=(2.5, 32, 64, 3)),
        offered(typestr="no type"),
        offered(data=()),
        offered(data=0x1000),
        offered(data=("0x1000", False)),
        offered(strides=("a", "b", "c", "d")),
        offered(stream="legacy"),
    ],
)
def test_a_malformed_interface_is_one_line(source):
    with pytest.raises(InputError, match="__cuda_array_interface__") as caught:
        device_array(source)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    ("changes", "value"),
    [
        ({"shape": (-2, 32, 64, 3)}, "(-2, 32, 64, 3)"),
        ({"data": (-1, False)}, " -1 "),
        ({"stream": 0}, " 0"),
        ({"stream": -1}, " -1"),
    ],
)
def test_negative_numbers_and_the_ambiguous_stream_0_are_refused(changes, value):
    with pytest.raises(InputError) as caught:
        device_array(offered(**changes))
    assert value in caught.value.what
    assert caught.value.__cause__ is None


def test_an_array_that_was_freed_is_refused():
    with pytest.raises(InputError, match=r"\(2, 32, 64, 3\).*\b0\b"):
        device_array(offered(data=(0, False)))


def test_an_empty_array_has_no_address():
    assert device_array(offered(shape=(0, 32, 64, 3), data=(0, False), strides=(0, 0, 0, 0))).shape[0] == 0


def test_a_masked_array_is_refused():
    with pytest.raises(InputError, match="mask"):
        device_array(offered(mask=offered()))


@pytest.mark.parametrize("source", [np.zeros(3), [1, 2], None, SimpleNamespace(__cuda_array_interface__=3)])
def test_an_object_without_the_interface_is_refused(source):
    with pytest.raises(InputError, match=rf"{type(source).__name__}.*__cuda_array_interface__") as caught:
        device_array(source)
    assert caught.value.__cause__ is None


def test_a_numpy_array_is_no_device_array():
    assert not is_device_array(np.zeros(3))
    assert is_device_array(offered())


def test_a_torch_tensor_on_the_host_is_none_either():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    assert not is_device_array(torch.zeros(3))


class CudaStream:
    def __cuda_stream__(self):
        return (0, 0x5EED)


@pytest.mark.parametrize(
    ("stream", "handle"),
    [
        (0x5EED, 0x5EED),
        (0, 1),
        (2, 2),
        (SimpleNamespace(handle=0x5EED), 0x5EED),
        (SimpleNamespace(ptr=0x5EED), 0x5EED),
        (SimpleNamespace(ptr=0), 1),
        (CudaStream(), 0x5EED),
        (SimpleNamespace(__cuda_stream__=(0, 0x5EED)), 0x5EED),
        # cuda.core's has both: an object as handle, and the protocol.
        (SimpleNamespace(__cuda_stream__=lambda: (0, 0x5EED), handle=object()), 0x5EED),
    ],
)
def test_a_stream_is_known_by_its_handle(stream, handle):
    assert stream_handle(stream) == handle


@pytest.mark.parametrize(
    "stream",
    [
        "0",
        -1,
        True,
        1.0,
        None,
        object(),
        SimpleNamespace(handle="x"),
        SimpleNamespace(__cuda_stream__=lambda: (1, 0x5EED)),
        SimpleNamespace(__cuda_stream__=lambda: 0x5EED),
    ],
)
def test_an_object_that_is_no_stream_is_refused(stream):
    with pytest.raises(InputError) as caught:
        stream_handle(stream)
    assert repr(stream) in caught.value.what
