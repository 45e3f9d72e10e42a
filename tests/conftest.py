"""What every test is held to.

A test that needs a package of the operating system, or of an extra, is skipped where it is not there, and says which.
Where EDGEAD_REQUIRE_PARTS=1, as in continuous integration, which installs them all, such a skip is a failure.
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgead  # noqa: F401 (before any onnxruntime, whose telemetry it switches off)
from edgead.files import addresses

ROOT = Path(__file__).parent
# Files that take longest, the longest first. They start first, so that no process works alone on one at the end.
LONG = (
    "export/test_every_method.py",
    "cluster/test_ray.py",
    "models/test_uninformed_students.py",
    "cli/test_compare.py",
    "cli/test_import_to_bundle.py",
    "training/test_training.py",
    "demo/test_run.py",
    "plugin/test_mutations.py",
    "engine/test_engine_sizes.py",
    "importers/test_run.py",
    "engine/test_tensorrt_worker.py",
    "models/test_rstpm_plus.py",
    "test_new_method.py",
    "test_api_examples.py",
    "cli/test_interrupt.py",
    "export/test_polygraphy.py",
    "models/test_efficientad.py",
    "test_several_parts.py",
    "models/test_methods.py",
    "cli/test_build.py",
    "cli/test_refused_early.py",
    "training/test_training_kill.py",
    "test_file_names.py",
    "cli/test_train.py",
    "streaming/test_rtsp_faults.py",
    "streaming/test_stale.py",
    "streaming/sources/test_genicam.py",
    "streaming/sources/test_network_cameras.py",
    "runtime/test_other_processors.py",
    "comparison/test_comparison.py",
    "streaming/test_delivery.py",
    "streaming/sinks/test_mqtt.py",
    "streaming/sinks/test_webhook.py",
    "streaming/sources/test_live.py",
    "streaming/sources/test_watched_folder.py",
    "cli/test_standard_streams.py",
    "streaming/test_soak.py",
    "cli/test_predict_continues.py",
    "cli/test_bad_input.py",
    "cli/test_predict.py",
    "engine/test_precision_converter.py",
    "engine/test_build.py",
    "evaluation/test_report_in_browser.py",
    "training/test_closed_form.py",
    "cli/test_terminals.py",
    "streaming/test_standstill.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The sort is stable: the other files, and the tests of a file, stay in their order.
    start = {ROOT / name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: start.get(item.path, len(LONG)))


def pytest_collection_finish() -> None:
    # All tests are imported, and what they import stays to the end. To walk it again takes a twentieth of the time.
    gc.freeze()


def pytest_sessionfinish() -> None:
    gc.unfreeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    report = yield
    if report.skipped and os.environ.get("EDGEAD_REQUIRE_PARTS") == "1":
        reason = str(report.longrepr)
        if "apt-get install" in reason or "pip install 'edgead[" in reason:
            report.outcome, report.longrepr = "failed", f"EDGEAD_REQUIRE_PARTS=1: {reason}"
    return report


@pytest.fixture
def signals_of_a_terminal() -> Iterator[None]:
    """Handle signals as in a terminal, here and in child processes: under nohup or cron some of them are ignored."""
    usual = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def graphs_exported_once() -> Iterator[None]:
    """Export equal methods once: see the helper, which imports torch."""
    from tests.helpers import exports

    with exports.graphs_exported_once():
        yield


@pytest.fixture(autouse=True)
def no_secrets_of_other_tests() -> Iterator[None]:
    """A secret of a stream's file is hidden in every later address of the process."""
    yield
    addresses._REMEMBERED.clear()
