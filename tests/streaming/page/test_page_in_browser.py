"""The page in a real Chromium: it shows the stream, changes it, and finds it again after a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from edgead.bundle import open_bundle
from edgead.streaming.page import PageAddress
from tests.helpers.browser import chromium, emulate, requests
from tests.helpers.stream_page import GOOD_SCORES, page_bundle, watched
from tests.helpers.stream_parts import textured
from tests.helpers.trigger_parts import wait_until

TOKEN = "a token of 27 characters ok"


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
            kind, script = seen.page.files["page.js"]
            # The page polls faster than for a person.
            quick = script.replace(b"NUMBERS_MS = 1000", b"NUMBERS_MS = 50").replace(
                b"AWAY_MS = 2000", b"AWAY_MS = 50"
            )
            assert quick != script
            seen.page.files["page.js"] = kind, quick
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
            assert find("#viewer").get_attribute("open") is not None
        shown("#state-name", "no connection")
        address = PageAddress("127.0.0.1", seen.page.port, TOKEN)
        with watched(open_bundle(bundle.path), address, 123.5) as seen:
            seen.show(textured(50))
            shown("#state-name", "running")
            shown("#good", "1")
            assert points() == 1
            wait_until(lambda: not driver.find_elements(By.CSS_SELECTOR, "#rejects figure"))
        # The browser itself reports what it cannot reach while the stream is away, and the wrong token.
        assert [entry for entry in driver.get_log("browser") if entry["source"] != "network"] == []
        own = f"http://127.0.0.1:{seen.page.port}/"
        assert all(url.startswith((own, f"blob:{own}", "data:")) for url in requests(driver))
