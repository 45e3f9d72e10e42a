"""Mark of tests that need OpenVINO."""

from __future__ import annotations

import importlib.util

import pytest

needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None,
    reason="openvino is not installed: pip install 'edgead[openvino]'",
)
