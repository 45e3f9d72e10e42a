"""Debian's Chromium without a window, for the tests of pages."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


@contextmanager
def chromium() -> Iterator[webdriver.Chrome]:
    """A browser that keeps its console and its network requests. The test is skipped where Chromium is missing."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no browser: apt-get install chromium chromium-driver")
    options = Options()
    options.binary_location = CHROMIUM
    # Tests run as root in continuous integration, where Chromium's sandbox does not start.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, Service(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


def emulate(
    driver: webdriver.Chrome, width: int = 1280, height: int = 900, scheme: str = "light", media: str = ""
) -> None:
    """Set the size of the viewport in CSS pixels, the colour scheme of the system, and "print" or the screen."""
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    feature = {"name": "prefers-color-scheme", "value": scheme}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": [feature]})


def requests(driver: webdriver.Chrome) -> list[str]:
    """Addresses that the browser asked for since the last call."""
    found: list[Mapping[str, Any]] = [
        json.loads(entry["message"])["message"] for entry in driver.get_log("performance")
    ]
    return [e["params"]["request"]["url"] for e in found if e["method"] == "Network.requestWillBeSent"]
