"""Mutations: a function of a random generator and an input, to an input that is wrong somewhere."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, TypeAlias
from warnings import catch_warnings, simplefilter

import numpy as np

Mutation: TypeAlias = Callable[[Random, bytes], bytes]

NUMBERS = (0, 1, 2, 127, 128, 255, 2**15, 2**16 - 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
TEXTS = (
    "",
    "\0",
    "\n",
    "\x1b[2J",
    "\ud800",
    "..",
    "/",
    "../../x",
    "a" * 70_000,
    "\N{RIGHT-TO-LEFT OVERRIDE}",
    "%s%n",
)


def flip_bits(random: Random, data: bytes) -> bytes:
    changed = bytearray(data or b"\0")
    for _ in range(random.choice((1, 1, 2, 8))):
        changed[_place(random, len(changed) - 1)] ^= 1 << random.randrange(8)
    return bytes(changed)


def write_number(random: Random, data: bytes) -> bytes:
    size, order = random.choice("BHIQ"), random.choice("<>")
    number = struct.pack(order + size, random.choice(NUMBERS) % 256 ** struct.calcsize(order + size))
    place = _place(random, len(data))
    return data[:place] + number + data[place + len(number) :]


def cut(random: Random, data: bytes) -> bytes:
    return data[: _place(random, len(data))]


def remove(random: Random, data: bytes) -> bytes:
    place = _place(random, len(data))
    return data[:place] + data[place + random.choice((1, 2, 4, 100)) :]


def repeat(random: Random, data: bytes) -> bytes:
    place, length = _place(random, len(data)), random.choice((1, 4, 30, 1000))
    return data[:place] + data[place : place + length] * random.choice((2, 3, 1000)) + data[place + length :]


def insert(random: Random, data: bytes) -> bytes:
    place = _place(random, len(data))
    return data[:place] + random.randbytes(random.choice((1, 2, 8, 300))) + data[place:]


BYTES: Sequence[Mutation] = (flip_bits, write_number, cut, remove, repeat, insert)


def _place(random: Random, length: int) -> int:
    """A place in the input, mostly near its ends, where headers are."""
    near = min(length, random.choice((16, 64, 512, length)))
    place = random.randint(0, max(near, 0))
    return place if random.random() < 0.8 else max(length - place, 0)


def odd_json(random: Random) -> Any:
    """A value that a record rarely expects; a str may stand for text that is written without quotes."""
    return random.choice(
        (
            None, True, False, -1, 0, 10**400, -(10**400), 1e308, 1e-320, float("nan"), float("inf"), {}, [], [[]],
            {"": {}}, [0] * 5000, {str(n): n for n in range(2000)}, *NUMBERS, *TEXTS,
        )
    )  # fmt: skip


def change_value(random: Random, data: bytes) -> bytes:
    """Replace, remove or add one value anywhere in JSON."""
    value = _parsed(data)
    holders = [value]
    for holder in holders:
        inside = holder.values() if isinstance(holder, dict) else holder
        holders += [one for one in inside if isinstance(one, dict | list) and one]
    holder = random.choice(holders)
    key = random.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    action = random.random()
    if action < 0.7:
        holder[key] = odd_json(random)
    elif action < 0.85:
        del holder[key]
    elif isinstance(holder, dict):
        holder[random.choice((*TEXTS, "files", "schema"))] = odd_json(random)
    else:
        holder.append(odd_json(random))
    return json.dumps(value).encode("utf-8", "surrogatepass")


def twice(random: Random, data: bytes) -> bytes:
    """Give a key twice."""
    key, value = random.choice(list(_parsed(data).items()))
    return data.rstrip()[:-1] + f", {json.dumps(key)}: {json.dumps(value)}}}".encode()


def deep(random: Random, data: bytes) -> bytes:
    """Nest deeply in place of a value."""
    depth = random.choice((63, 64, 65, 900, 5000, 200_000))
    opening, closing = random.choice((("[", "]"), ('{"a":', "}")))
    nested = opening * depth + "1" + closing * (depth if random.random() < 0.5 else 0)
    value = _parsed(data)
    value[random.choice(list(value))] = "HERE"
    return json.dumps(value).replace('"HERE"', nested).encode()


def _parsed(data: bytes) -> Any:
    """The value of JSON; a small object if an earlier mutation broke it."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {"schema": 1}
    return value if isinstance(value, dict) and value else {"schema": 1}


JSON: Sequence[Mutation] = (*BYTES, change_value, change_value, change_value, twice, deep)


def change_array(random: Random, data: bytes) -> bytes:
    """Write an archive of arrays again, with one array changed."""
    arrays = _arrays(data)
    name = random.choice(list(arrays) or ["images"])
    kind = random.choice(("object", "dtype", "shape", "header", "bomb", "gone", "order", "nan", "version"))
    content = arrays.get(name, b"")
    if kind == "object":
        content = _npy(np.array([{}, print], object))
    elif kind == "dtype":
        content = _npy(
            np.zeros(
                random.choice((0, 3, 100)), random.choice(("f8", "c16", "U9", "S9", "M8[s]", ">f4", "?"))
            )
        )
    elif kind == "shape":
        content = _npy(np.zeros(random.choice(((), (0,), (1, 1), (9, 2, 3, 4, 5))), np.float32))
    elif kind == "header":
        shape = random.choice(
            ("(2**40,)", "(1099511627776,)", "(-1,)", "('a',)", "(1e9,)", "(" * 300, "(True,)", "(0,)" * 99)
        )
        descr = random.choice(("'|u1'", "'<f4'", "'|O'", "[('a', '<f4')]", "'<f4' * 99", "None"))
        content = _header(
            f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}", random.choice((1, 1, 2, 3))
        )
    elif kind == "bomb":
        content += bytes(random.choice((10**5, 10**6, 10**7)))
    elif kind == "order":
        content = content.replace(b"False", b"True ", 1)
    elif kind == "nan":
        content = content[:128] + b"\xff" * len(content[128:])
    elif kind == "version":
        content = content[:6] + bytes((random.randrange(5), random.randrange(3))) + content[8:]
    buffer = io.BytesIO()
    method = random.choice(
        (zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2)
    )
    with catch_warnings(), zipfile.ZipFile(buffer, "w", method) as archive:
        # After an earlier mutation a name can be there twice, on purpose.
        simplefilter("ignore")
        for other, array in arrays.items():
            if other != name or kind != "gone":
                archive.writestr(other, content if other == name else array)
        for number in range(random.choice((0,) * 20 + (1, 5000))):
            archive.writestr(f"{number}.npy", b"")
    return buffer.getvalue()


def _arrays(data: bytes) -> dict[str, bytes]:
    """Files of an archive; none if an earlier mutation broke it, or it became large."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if len(archive.infolist()) > 10 or sum(one.file_size for one in archive.infolist()) > 10**7:
                return {}
            return {name: archive.read(name) for name in archive.namelist()}
    except Exception:  # nearly any
        return {}


def _npy(array: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def _header(text: str, version: int) -> bytes:
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes((version, 0)) + length + text.encode()


ARCHIVE: Sequence[Mutation] = (*BYTES, change_array, change_array, change_array)


def change_graph(random: Random, data: bytes) -> bytes:
    """Change one operator, attribute, weight or name of an ONNX graph; nothing if an earlier mutation broke it."""
    import onnx

    try:
        model = onnx.load_from_string(data)
        _change(random, model)
        return model.SerializeToString()
    except Exception:  # nearly any: protobuf does not check names when it reads a file
        return data


def _change(random: Random, model: Any) -> None:
    from onnx import TensorProto, helper

    graph = model.graph
    if not graph.node or not graph.initializer:
        return
    node, weight = random.choice(graph.node), random.choice(graph.initializer)
    kind = random.randrange(10)
    if kind == 0:
        node.op_type = random.choice(
            (*sorted({str(n.op_type) for n in graph.node}), "Loop", "If", "Tile", "Expand", "NonZero")
        )
    elif kind == 1:
        node.domain = random.choice(("", "ai.onnx", "com.microsoft", "edgead", "\ud7ff"))
    elif kind == 2 and node.input:
        other = random.choice(graph.node)
        node.input[random.randrange(len(node.input))] = random.choice(
            (*other.input, *other.output, "", "gone")
        )
    elif kind == 3:
        values = [
            random.choice((-1, 0, 1, 2, 3, 16, 255, 4096, 2**16, 2**31, 2**63 - 1))
            for _ in range(random.choice((1, 2, 4)))
        ]
        name = random.choice(
            (
                "pads",
                "strides",
                "dilations",
                "kernel_shape",
                "group",
                "axis",
                "to",
                "perm",
                "axes",
                "keepdims",
            )
        )
        node.attribute.append(helper.make_attribute(name, values if random.random() < 0.7 else values[0]))
    elif kind == 4:
        weight.dims[:] = [random.choice((-1, 0, 1, 3, 2**20, 2**40)) for _ in range(random.randrange(5))]
    elif kind == 5:
        weight.data_type = random.randrange(30)
    elif kind == 6:
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=random.choice(("../x", "/dev/zero", "")))
    elif kind == 7 and weight.raw_data:
        size = len(weight.raw_data)
        weight.raw_data = random.choice(
            (bytes(size), b"\xff" * size, random.randbytes(size), struct.pack("<q", 2**40) * (size // 8))
        )
    elif kind == 8:
        model.opset_import[0].version = random.choice((0, 1, 7, 17, 19, 21, 22, 99, 2**62))
    elif kind == 9:
        value = random.choice((*graph.input, *graph.output))
        value.type.tensor_type.elem_type = random.randrange(25)


GRAPH: Sequence[Mutation] = (*BYTES, change_graph, change_graph, change_graph, change_graph)


def change_text(random: Random, data: bytes) -> bytes:
    """Insert odd characters into an address."""
    text = data.decode("utf-8", "surrogateescape")
    place = random.randint(0, len(text))
    added = random.choice(
        (
            *(one for one in TEXTS if len(one) < 100),
            "?",
            "&",
            "=",
            ":",
            "@",
            "//",
            "%",
            "%zz",
            "%00",
            "[",
            "]",
            "::1",
            "#",
            "٣",
            "1e999",
            "nan",
        )
    )
    return (text[:place] + added + text[place:]).encode("utf-8", "surrogatepass")


TEXT: Sequence[Mutation] = (flip_bits, cut, remove, repeat, change_text, change_text, change_text)
