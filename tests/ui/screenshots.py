"""Makes the pictures of the documentation, all of one finished search: ``python tests/ui/screenshots.py RUN [FOLDER]``.

``RUN`` is its output folder. In ``FOLDER`` (``docs``): ``RECIPE.png``, the report's picture of score against size;
``mlflow-charts.png`` and ``mlflow-runs.png``, what MLflow's UI opens on, as charts and as a table.
"""

from __future__ import annotations

import shutil
import socket
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from raysearch.store.folder import read_record
from raysearch.store.summary import Summary
from raysearch.tracking import UiServer, ui_url


def main() -> None:
    run, folder = Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else "docs")
    summary = read_record(run / "summary.json", Summary)
    assert summary.mlflow_uri is not None, f"{run} was not recorded in MLflow"
    assert summary.mlflow_experiment_id is not None
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = ui_url(summary.mlflow_uri, summary.mlflow_experiment_id, search_id=summary.search_id, port=port)
    with UiServer(summary.mlflow_uri, port=port), sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        report(browser.new_page(viewport={"width": 1100, "height": 900}), run / "report.html", folder / f"{summary.recipe}.png")
        mlflow(browser.new_page(viewport={"width": 1600, "height": 1150}), address, folder)


def report(page: Any, path: Path, picture: Path) -> None:
    """The picture that README shows, as the page draws it."""
    page.goto(path.absolute().as_uri())
    page.wait_for_selector("#front svg.main-svg")
    page.locator("#front").screenshot(path=picture)


def mlflow(page: Any, address: str, folder: Path) -> None:
    """The view that the search stored."""
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
