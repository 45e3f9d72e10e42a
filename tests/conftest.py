"""What every test is held to.

A test that needs a package of the operating system, or of an extra, is skipped where it is not there, and says which.
Where EDGEAD_REQUIRE_PARTS=1, as in continuous integration, which installs them all, such a skip is a failure.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    report = yield
    if report.skipped and os.environ.get("EDGEAD_REQUIRE_PARTS") == "1":
        reason = str(report.longrepr)
        if "apt-get install" in reason or "pip install 'edgead[" in reason:
            report.outcome, report.longrepr = "failed", f"EDGEAD_REQUIRE_PARTS=1: {reason}"
    return report
