"""Real Chromium for tests: `pytest_plugins = ["browser"]`, then the fixture `open_page`.

def test_it(open_page, tmp_path):
    watched = open_page(tmp_path / "view.html", width=600, scheme="dark")
    watched.page.hover("text=她")
    watched.assert_quiet()          # no console error, no exception, no request beyond the page itself
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
PATIENCE = 180_000  # ms; a busy machine is slow, and that is no failure
INSIDE = ("data:", "blob:", "about:")


@dataclass
class Watched:
    """A Playwright page, and what it should not do."""

    page: Any
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def assert_quiet(self) -> None:
        assert not self.errors, f"the console says: {self.errors}"
        assert not self.requests, f"requests leave the page: {self.requests}"


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A running Chromium; skips where there is none."""
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api").sync_playwright().start()
    try:
        browser = playwright.chromium.launch(executable_path=executable, args=list(ARGUMENTS))
        yield browser
        browser.close()
    finally:
        playwright.stop()


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Callable[..., Watched]]:
    """`open_page(path or URL, width=1100, height=900, scheme="light") -> Watched`, closed after the test."""
    opened = []

    def open_one(target: Any, width: int = 1100, height: int = 900, scheme: str = "light") -> Watched:
        url = target if isinstance(target, str) and "://" in target else Path(target).resolve().as_uri()
        home = url if url.startswith("file:") else "/".join(url.split("/")[:3]) + "/"
        page = chromium.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        page.set_default_timeout(PATIENCE)
        opened.append(page)
        watched = Watched(page)
        page.on("console", lambda m: watched.errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: watched.errors.append(str(error)))
        page.on(
            "request",
            lambda request: None if request.url.startswith((home, *INSIDE)) else watched.requests.append(request.url),
        )
        page.goto(url)
        return watched

    yield open_one
    for page in opened:
        page.close()
