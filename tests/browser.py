"""What the browser tests do with a page, and what they know of the browser."""

import re
import shutil

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from tests.instance import CHECKOUT

HTMX = CHECKOUT / "static" / "htmx-2.0.11.min.js"
CDN = "https://cdn.jsdelivr.net/**"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# What the browser itself reports as an error where we ask for it: a refused form, a page that is not there, no CDN,
# a request cut off because the page was left.
EXPECTED = re.compile(
    r"status of (422|413|410|404|403)|cdn\.jsdelivr\.net|net::ERR_FAILED|valid digest|htmx:(sendAbort|afterRequest|sendError)"
)


def serve_htmx(route) -> None:
    """What the CDN would have sent; the browser checks its hash."""
    route.fulfill(path=HTMX, content_type="text/javascript", headers={"Access-Control-Allow-Origin": "*"})


def upload(page: Page, content: bytes, name: str = "people.csv") -> None:
    page.goto("/settings/upload-tags")
    page.set_input_files("#file", {"name": name, "mimeType": "text/csv", "buffer": content})
    page.click("text=Continue to the fields")


def check(page: Page, name: str) -> None:
    page.wait_for_load_state()
    found = Axe().run(page)
    assert found.violations_count == 0, f"{name}: {found.generate_report()}"
    width = page.evaluate("() => document.documentElement.scrollWidth")
    assert width <= page.viewport_size["width"], name


def press_on(page: Page, words: str) -> None:
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("() => document.activeElement.innerText") == words:
            return page.keyboard.press("Enter")
    raise AssertionError(f"{words} cannot be reached with Tab")
