"""Exports that were made before in this process: the exporter takes seconds, in tests of what comes after it."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from onnx import ModelProto

from edgead.export import from_torch
from edgead.imaging.preprocess import ModelSize
from edgead.models.base import DistillationMethod

# By the hash of all that an export depends on. Graphs of trained methods have tens of megabytes.
_GRAPHS: dict[bytes, bytes] = {}
_MOST_GRAPHS = 8


class _Key(pickle.Pickler):
    """Pickles objects with the values of their tensors. Pickled tensors have addresses of this process instead."""

    def persistent_id(self, thing: object) -> object:
        if isinstance(thing, torch.Tensor):
            return (
                thing.dtype,
                thing.shape,
                thing.requires_grad,
                thing.detach().contiguous().numpy().tobytes(),
            )
        return None


def _key(*things: object) -> bytes:
    pickled = io.BytesIO()
    _Key(pickled).dump(things)
    return hashlib.sha256(pickled.getbuffer()).digest()


@contextmanager
def graphs_exported_once() -> Iterator[None]:
    """Meanwhile a method with the same code, attributes and weights at the same size is exported once in a process."""
    export = from_torch.onnx_from_method

    def exported(method: DistillationMethod, size: ModelSize) -> ModelProto:
        key = _key(method, size)
        if key not in _GRAPHS:
            _GRAPHS[key] = export(method, size).SerializeToString()
            if len(_GRAPHS) > _MOST_GRAPHS:
                del _GRAPHS[next(iter(_GRAPHS))]
        return ModelProto.FromString(_GRAPHS[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(from_torch, "onnx_from_method", exported)
        yield
