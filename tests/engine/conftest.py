"""What the tests of builds share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="module", autouse=True)
def toys_exported_once(graphs_exported_once: None) -> None:
    """Export each toy once. The exporter has its own tests."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the calibration, which all builds of the same graph in a test file share."""
    return tmp_path_factory.mktemp("calibration")


@pytest.fixture
def graph_runs_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """Export a `GraphRun` as the graph that it has."""
    monkeypatch.setattr("edgead.engine.build.onnx_from_run", lambda run: run.graph)
