"""Set before anything is imported: shapes are checked in tests, and nothing reports outwards. A browser for pages."""

import os
import shutil
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

install_import_hook("raysearch", "shape_checks.check")
settings.register_profile("raysearch", deadline=None)  # a busy machine is no failure
settings.load_profile("raysearch")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, driven by Playwright; closed after each module, as Playwright's event loop would be in the way of others."""
    if (program := shutil.which("chromium") or shutil.which("chromium-browser")) is None:
        pytest.skip("no chromium: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: make install")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])  # root has no sandbox
        yield started
        started.close()


@pytest.fixture
def browser_page(browser: Any) -> Iterator[Any]:
    """An empty page as wide as a laptop's. The test fails when it complains on its console or asks the network for anything."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request",
        lambda request: complaints.append(request.url) if not request.url.startswith(("file:", "data:", "blob:")) else None,
    )
    yield page
    page.close()
    assert complaints == []
