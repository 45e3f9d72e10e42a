"""The page in a real Chromium: it shows the stream, changes it, and finds it again after a restart."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from edgead.bundle import open_bundle
from edgead.runtime import FakeSession
from edgead.streaming.camera import Camera
from edgead.streaming.loop import stream_cameras
from edgead.streaming.page import Page, PageAddress
from edgead.streaming.page.feedback import FeedbackAddress, FeedbackFolder
from edgead.types import UInt8Array
from tests.helpers.browser import chromium, emulate, requests
from tests.helpers.stream_page import (
    GOOD_SCORES,
    LOCAL,
    level_of,
    opened_page,
    page_bundle,
    page_camera,
    watched,
)
from tests.helpers.stream_parts import SIZE, ScriptedSource, textured
from tests.helpers.trigger_parts import LIMIT_S, wait_until

TOKEN = "a token of 27 characters ok"


def quicken(page: Page) -> None:
    """Make the page poll faster than for a person."""
    kind, script = page.files["page.js"]
    quick = script
    for name, value in ((b"NUMBERS_MS = 1000", b"NUMBERS_MS = 50"), (b"AWAY_MS = 2000", b"AWAY_MS = 50")):
        assert name in script
        quick = quick.replace(name, value)
    page.files["page.js"] = kind, quick


def check_closed(driver: webdriver.Chrome, url: str) -> None:
    """The browser found no error in a script, and asked nobody else."""
    # It reports by itself what it cannot reach while the stream is away, and the wrong token.
    assert [entry for entry in driver.get_log("browser") if entry["source"] != "network"] == []
    assert all(one.startswith((url, f"blob:{url}", "data:")) for one in requests(driver))


def test_a_technician_watches_a_stream_and_changes_it(tmp_path: Path) -> None:
    bundle = page_bundle(tmp_path)
    with chromium() as driver:

        def find(selector: str) -> Any:
            return driver.find_element(By.CSS_SELECTOR, selector)

        def text(selector: str) -> str:
            return str(find(selector).get_property("textContent"))

        def shown(selector: str, wanted: str) -> None:
            wait_until(lambda: text(selector) == wanted)

        def points() -> int:
            dots = [str(find(f"#{kind}-dots").get_attribute("d") or "") for kind in ("good", "reject")]
            return sum(path.count("M") for path in dots)

        emulate(driver, 390, 844)
        with watched(bundle, PageAddress("127.0.0.1", 0, TOKEN)) as seen:
            quicken(seen.page)
            seen.viewer.login(TOKEN)
            seen.show(textured(50), textured(150))
            driver.get(seen.page.url)
            find("#token").send_keys("wrong", Keys.ENTER)
            wait_until(lambda: find("#message").is_displayed())
            find("#token").clear()
            find("#token").send_keys(TOKEN, Keys.ENTER)
            wait_until(lambda: driver.find_elements(By.ID, "state-name") and text("#state-name") == "running")
            assert (text("#good"), text("#rejected"), points()) == ("1", "1", 2)
            # The newest image moves.
            sources = set()

            def moves() -> bool:
                seen.show(textured(60))
                sources.add(find("#live-image").get_attribute("src"))
                return len(sources - {None, ""}) >= 3

            wait_until(moves)
            loaded = "return [...document.querySelectorAll('#rejects img, #live-image')].map((one) => one.naturalWidth)"
            wait_until(lambda: driver.execute_script(loaded) == [80, 80])
            assert driver.execute_script("return document.documentElement.scrollWidth") == 390
            # A change needs a name.
            find("#pause").click()
            wait_until(lambda: find("#message").is_displayed())
            find("#name").send_keys("Kim")
            find("#pause").click()
            shown("#state-name", "paused")
            find("#pause").click()
            shown("#state-name", "running")
            # The slider shows what it would reject, and changes nothing by itself.
            limit = find("#limit").get_attribute("y1")
            value = find("#value")
            value.send_keys(Keys.CONTROL + "a" + Keys.NULL, "55")
            above = sum(score > 55 for score in GOOD_SCORES)
            wait_until(lambda: f"At 55: {above} of {len(GOOD_SCORES)} " in text("#prediction"))
            assert seen.viewer.numbers()["threshold"]["value"] == 100.0
            find("#slider").send_keys(Keys.ARROW_LEFT)
            wait_until(lambda: "At 55:" not in text("#prediction"))
            chosen = float(str(value.get_property("value")))
            find("#set").click()
            wait_until(lambda: "Kim, page, 127.0.0.1" in text("#changes"))
            assert find("#limit").get_attribute("y1") != limit
            wait_until(lambda: not find("#set").is_enabled())
            assert seen.viewer.numbers()["threshold"]["value"] == chosen
            # A second viewer changes the threshold, too.
            assert seen.viewer.post("/threshold", {"value": 123.5, "name": "Ali"}).status == 200
            shown("#limit-value", "123.5")
            find("#rejects button").click()
            wait_until(lambda: find("#viewer").get_attribute("open") is not None)
        shown("#state-name", "no connection")
        address = PageAddress("127.0.0.1", seen.page.port, TOKEN)
        with watched(open_bundle(bundle.path), address, 123.5) as seen:
            seen.show(textured(50))
            shown("#state-name", "running")
            shown("#good", "1")
            assert points() == 1
            wait_until(lambda: not driver.find_elements(By.CSS_SELECTOR, "#rejects figure"))
        check_closed(driver, f"http://127.0.0.1:{seen.page.port}/")


def test_four_cameras_have_a_tile_each_and_their_images_can_be_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgead.streaming.page.page.MARK_EVERY_S", 0.0)
    feedback = FeedbackFolder(FeedbackAddress(tmp_path / "feedback"), {"washer"})
    names, stop = ["left", "right", "top", "hung"], threading.Event()
    shown = [page_camera(None, name=name, feedback=feedback) for name in names]

    def script(number: int) -> Callable[[], Iterator[UInt8Array]]:
        def images() -> Iterator[UInt8Array]:
            yield textured(150 if number == 1 else 50 + number)
            while number < 3 and not stop.wait(0.05):
                yield textured(60 + number)
            stop.wait(LIMIT_S)

        return images

    cameras = [
        Camera(ScriptedSource(script(number), False), one.sinks(), 100.0, line=one.line, name=one.name)
        for number, one in enumerate(shown)
    ]
    session = FakeSession(SIZE, score=level_of)
    loop = threading.Thread(
        target=stream_cameras, args=(session, cameras), kwargs={"size": SIZE, "stop": stop}
    )
    with opened_page(LOCAL, *shown) as page, chromium() as driver:
        quicken(page)
        loop.start()

        def all_of(selector: str) -> list[Any]:
            return driver.find_elements(By.CSS_SELECTOR, selector)

        try:
            for width in (390, 1280):
                emulate(driver, width)
                driver.get(page.url)
                wait_until(lambda: [one.text for one in all_of(".camera .title")] == names)
                # The images of three cameras come, and move.
                before = [one.get_attribute("src") for one in all_of(".camera img")]
                for number in range(3):
                    wait_until(
                        lambda n=number, b=before: (
                            all_of(".camera img")[n].get_attribute("src") not in (b[n], "", None)
                        )
                    )
                assert driver.execute_script("return document.documentElement.scrollWidth") == width
            assert len(all_of("#camera-tiles:not([hidden]) .camera")) == 4
            all_of(".camera")[1].click()
            wait_until(lambda: all_of("#rejects figure") and all_of("#camera")[0].text == "right")
            # A mark needs a name. The second press takes it back.
            all_of("#rejects button")[0].click()
            wait_until(lambda: all_of("#mark-good")[0].is_displayed())
            all_of("#mark-good")[0].click()
            wait_until(lambda: all_of("#viewer-message")[0].is_displayed())
            all_of("#viewer-name")[0].send_keys("Kim")
            good = tmp_path / "feedback" / "washer" / "good"
            for pressed, count in (("true", 1), ("false", 0), ("true", 1)):
                all_of("#mark-good")[0].click()
                wait_until(lambda p=pressed: all_of("#mark-good")[0].get_attribute("aria-pressed") == p)
                assert len(list(good.glob("*_right_frame00000000.png"))) == count
            all_of("#viewer form button")[0].click()
            wait_until(lambda: "marked: good" in all_of("#rejects figcaption")[0].text)
            # The newest image, which was good, was a defect.
            wait_until(lambda: all_of("#live-open")[0].is_displayed())
            all_of("#live-open")[0].click()
            wait_until(lambda: all_of("#mark-defect")[0].is_displayed())
            all_of("#mark-defect")[0].click()
            wait_until(lambda: all_of("#mark-defect")[0].get_attribute("aria-pressed") == "true")
            assert len(list((good.parent / "defect").glob("*_right_frame*.png"))) == 1
            all_of("#viewer form button")[0].click()
            # A pause is of this camera alone.
            all_of("#pause")[0].click()
            wait_until(lambda: all_of("#state-name")[0].text == "paused")
            assert [one.line.is_paused for one in shown] == [False, True, False, False]
            driver.execute_script("scrollTo(0, 0)")
            all_of("#back")[0].click()
            wait_until(lambda: all_of("#state-reason")[0].text == "3 running, 1 paused")
        finally:
            stop.set()
            loop.join()
        check_closed(driver, page.url)
