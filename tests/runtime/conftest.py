from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from tests.helpers.brightness_bundle import brightness_model


@pytest.fixture
def make_model() -> Callable[..., onnx.ModelProto]:
    return brightness_model


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (3, 32, 64, 3), dtype=np.uint8)
