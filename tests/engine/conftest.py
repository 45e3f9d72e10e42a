"""What the tests of builds share."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", autouse=True)
def toys_exported_once(graphs_exported_once: None) -> None:
    """Export each toy once. The exporter has its own tests."""
