"""Reads the layers of an engine from the verbose log of TensorRT for RTX, which needs no GPU.

TensorRT reports the layers of an engine through its inspector, for which a GPU must open the engine. The builder of
TensorRT for RTX also lists them in one verbose message at the end of a build.
"""

from __future__ import annotations

import re
from typing import Any

from edgead.files.parsing import json_text

_HEADERS = ("Layers:\n", "Engine Layer Information:\n")
_KEYS = "LayerType|Inputs|Constants|Outputs|TacticName|StreamId|Metadata"
_LAYER = re.compile(
    r"^Name: (?P<Name>.*?), LayerType: (?P<LayerType>\w+), Inputs: \[(?P<Inputs>.*?)\], "
    r"Constants: \[(?P<Constants>.*?)\], Outputs: \[(?P<Outputs>.*?)\], TacticName: (?P<TacticName>.*?), "
    r"StreamId: \d+, Metadata: (?P<Metadata>.*)$"
)
_TENSOR = re.compile(
    r"\{ Name: (?P<Name>.*?), Dimensions: \[(?P<Dimensions>[-\d,]*)\], .*?"
    r"Datatype: (?P<Datatype>\w+), Format: (?P<Format>.*?) \}"
)


def layers_from_log(message: str) -> str | None:
    """Read the layers from a message of the log.

    Args:
        message: Text of the message, with its line breaks.

    Returns:
        JSON text with the keys of TensorRT's inspector: `Layers`, a list of layers with `Name`, `LayerType`, `Inputs`,
        `Constants`, `Outputs`, `TacticName` and `Metadata`. Tensors have `Name`, `Dimensions` (-1 is the number of
        images), `Datatype` and `Format`. None if the message does not list layers.
    """
    if not message.startswith(_HEADERS):
        return None
    found = [match.groupdict() for line in message.splitlines() if (match := _LAYER.match(line))]
    for layer in found:
        for key in ("Inputs", "Constants", "Outputs"):
            layer[key] = _tensors(layer[key])
    return json_text({"Layers": found}, indent=None)


def _tensors(text: str) -> list[dict[str, Any]]:
    """Read the tensors in the list of a layer."""
    return [
        {
            **tensor.groupdict(),
            "Dimensions": [int(length) for length in tensor["Dimensions"].split(",") if length],
        }
        for tensor in _TENSOR.finditer(text)
    ]
