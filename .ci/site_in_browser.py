"""Opens pages of site/ in Chromium: none asks for a file from elsewhere or is wider than a phone, and the search finds.

After `make docs`, from the root of the repository, with the packages of development and Debian's Chromium:

    PYTHONPATH=. .venv/bin/python .ci/site_in_browser.py

The pages are opened from the disk and from a web server of this machine. It exits with code 1 if something is wrong.
"""

from __future__ import annotations

import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from tests.helpers.browser import chromium, emulate, requests

SITE = Path("site").resolve()
PAGES = ("index.html", "first-hour.html", "stream.html", "commands/train.html", "results/methods.html")
PHONE, DESKTOP = 390, 1280


class _Quiet(SimpleHTTPRequestHandler):
    """A server that logs nothing."""

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def main() -> int:
    """Open the pages, print what is wrong, and return the exit code."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(SITE)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    wrong = []
    with chromium() as browser:
        for origin in (SITE.as_uri(), f"http://127.0.0.1:{server.server_port}"):
            for page in PAGES:
                for width in (PHONE, DESKTOP):
                    emulate(browser, width)
                    browser.get(f"{origin}/{page}")
                    shown = browser.execute_script("return document.documentElement.scrollWidth")
                    if shown > width:
                        wrong.append(f"{page} is {shown} px wide on a screen of {width} px")
            box = browser.find_element(By.CSS_SELECTOR, "[data-md-component=search-query]")
            browser.execute_script("arguments[0].focus()", box)
            box.send_keys("watchdog")
            WebDriverWait(browser, 20).until(
                lambda browser: browser.find_elements(By.CSS_SELECTOR, ".md-search-result__link"),
                f"the search finds nothing at {origin}",
            )
            asked = requests(browser)
            outside = [url for url in asked if not url.startswith((origin, "data:", "blob:", "about:"))]
            wrong += [f"{url} is loaded from elsewhere" for url in outside]
            print(f"{origin}: {len(asked)} requests, {len(outside)} to elsewhere; the search finds")
    server.shutdown()
    print(*wrong, sep="\n", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
