"""What the tests of the public functions share; the examples of `docs/api.md` run in test_api_examples.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.api_parts import SIZE, THRESHOLD
from tests.helpers.brightness_bundle import write_brightness_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_brightness_bundle(tmp_path / "bundle", SIZE, THRESHOLD)
