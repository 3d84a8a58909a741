"""Makes docs/mlflow-runs.png and docs/mlflow-charts.png: ``python tests/ui/screenshots.py STORE [FOLDER]``.

``STORE`` is the MLflow store (``sqlite:///...``) whose newest search is shown.
"""

import shutil
import socket
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from raysearch.tracking import UiServer, recorded_searches


def main() -> None:
    uri, folder = sys.argv[1], Path(sys.argv[2] if len(sys.argv) > 2 else "docs")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = recorded_searches(uri, port=port)[0].url
    with UiServer(uri, port=port), sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1600, "height": 1150})
        page.set_default_timeout(120_000)
        page.goto(address)
        page.wait_for_selector(".parcoords")
        # What MLflow opens beside every first page: its assistant, and a notice about shared views.
        page.evaluate("() => document.querySelectorAll('[aria-label=Close]').forEach(button => button.click())")
        page.wait_for_function("() => document.querySelectorAll('.js-plotly-plot .scatterlayer .points').length >= 3")
        page.wait_for_timeout(3000)  # charts are drawn again at their new width
        page.screenshot(path=folder / "mlflow-charts.png")
        page.goto(address.replace("compareRunsMode=CHART", "compareRunsMode=TABLE"))
        page.locator(".ag-center-cols-container [row-index='0']").wait_for()
        page.wait_for_timeout(3000)
        page.screenshot(path=folder / "mlflow-runs.png")


if __name__ == "__main__":
    main()
