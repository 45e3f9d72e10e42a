"""Marks of tests that need TensorRT for RTX, or a machine without a GPU."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

needs_tensorrt_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None,
    reason="tensorrt_rtx is not installed: pip install 'edgead[tensorrt-rtx]'",
)
needs_no_gpu = pytest.mark.skipif(
    Path("/dev/nvidiactl").exists(),
    reason="this machine has an NVIDIA GPU, and the test is about one without",
)
