"""Triton's own protobuf messages, without its client for gRPC."""

from __future__ import annotations

import importlib.util
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest


def model_config(text: str) -> Any:
    """Parse a config.pbtxt with `ModelConfig` of tritonclient, which refuses unknown fields and constants."""
    try:
        package = distribution("tritonclient")
    except PackageNotFoundError:
        pytest.skip("tritonclient is not installed: pip install tritonclient")
    from google.protobuf import text_format

    # The package around this file imports grpc.
    file = Path(str(package.locate_file("tritonclient/grpc/model_config_pb2.py")))
    spec = importlib.util.spec_from_file_location("tritonclient_model_config_pb2", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return text_format.Parse(text, module.ModelConfig())
