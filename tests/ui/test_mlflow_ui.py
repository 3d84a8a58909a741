"""The record of a search as a person meets it in MLflow's UI: what `make ui` prints, opened in Chromium."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from raysearch.search import pareto_front
from raysearch.search.candidate import Candidate
from raysearch.search.protocol import Proposal, Result
from raysearch.space.cost import Cost
from raysearch.spaces.autoformer import AutoFormerSpace
from raysearch.store.palette import CHAMPION, FRONT
from raysearch.tracking import Tracker, shown

ROOT = Path(__file__).parents[2]
CANDIDATES = 160
SHOWN = 100
BEST = 0.9609375

POINTS = "() => [...document.querySelectorAll('.js-plotly-plot')].map(plot => plot.data[0].x.length)"
SCORES = "() => [...document.querySelector('.js-plotly-plot').data[0].y].map(Number)"


def record(uri: str) -> None:
    """Candidates of a real space; their scores grow with their size, until a hundred of them tie for the best."""
    candidates: list[Candidate] = []
    space, rng = AutoFormerSpace.tiny(), Random(0)
    axes = ("depth", "embed_dim", "num_heads_mean", "mlp_ratio_mean")
    with Tracker(uri=uri, experiment="digits", search_id="seen", run_name="digits 1", params={"seed": 1}, axes=axes) as tracker:
        tracker.log_metrics({"train/loss": 2.0}, step=0, run="supernet")
        tracker.end_training()
        for i in range(CANDIDATES):
            arch = space.sample(rng)
            cost = Cost(params=100_000 + 1000 * i, macs=500_000 + 1000 * i)
            result = Result(score=min(BEST, 0.5 + i / 128), items_seen=397, params=cost.params, macs=cost.macs)
            proposal = Proposal(arch, index=i, generation=i // 20, origin="random")
            candidates.append(Candidate(proposal, cost, result))
            tracker.log_candidate(candidates[-1])
            tracker.log_metrics({"search/best": result.score}, step=i)
        front, champion = pareto_front(candidates), candidates[-1]
        tracker.show(shown(candidates, front=[c.proposal.arch.id for c in front], champion=champion.proposal.arch.id))


@pytest.fixture(scope="module")
def address(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What the program prints. Without a browser nothing is started."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('ui') / 'mlflow.db'}"
    record(uri)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "experiments/ui.py", uri, "--port", port]
    program = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert program.stdout is not None
    try:
        line = program.stdout.readline()
        assert "FINISHED  digits/digits 1  http://localhost:" in line
        assert program.stdout.readline() == "Ctrl-C ends the UI\n"  # the server answers from here on
        yield line.split()[-1]
    finally:
        program.terminate()
        program.communicate()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    page = browser.new_page(viewport={"width": 1600, "height": 1000})
    page.set_default_timeout(120_000)
    yield page
    page.close()


def test_the_address_shows_candidates_and_charts_at_once(address: str, page: Any) -> None:
    page.goto(address)
    page.wait_for_selector(".parcoords")
    page.get_by_text(f"{SHOWN} matching runs").wait_for()
    page.wait_for_function("() => document.querySelectorAll('.js-plotly-plot .scatterlayer .points').length >= 2")
    points = page.evaluate(POINTS)
    assert points == [SHOWN] * len(points)
    scores = page.evaluate(SCORES)
    assert max(scores) == BEST
    assert sum(score < BEST for score in scores) > 30  # not only the hundred that tie
    colors = page.locator(".js-plotly-plot .scatterlayer .points path").evaluate_all("all => all.map(p => p.style.fill)")
    for color, count in ((FRONT, len(points) * (SHOWN - 1)), (CHAMPION, len(points))):
        red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
        assert 1 <= colors.count(f"rgb({red}, {green}, {blue})") <= count
    assert page.locator(".js-plotly-plot .scatterlayer .points path").count() == sum(points)
    axes = page.locator(".parcoords svg .label").all_text_contents()
    assert axes == ["depth", "embed_dim", "num_heads_mean", "mlp_ratio_mean", "params", "score"]


def test_the_table_lists_candidates_best_first_with_score_size_and_architecture(address: str, page: Any) -> None:
    page.goto(address.replace("compareRunsMode=CHART", "compareRunsMode=TABLE"))
    page.locator(".ag-center-cols-container [row-index='0']").get_by_text(str(BEST)).wait_for()
    assert page.locator("text=/^champion [0-9a-f]+$/").count() >= 1
    headers = page.locator("[role=columnheader]").all_text_contents()
    for name in ("score", "params", "macs", "generation", "depth", "embed_dim"):  # others follow to the right
        assert any(name in header for header in headers), headers


def test_a_store_without_a_search_is_named(tmp_path: Path) -> None:
    command = [sys.executable, "experiments/ui.py", f"sqlite:///{tmp_path / 'mlflow.db'}"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: no search in MLflow at sqlite:///")
    assert not list(tmp_path.iterdir())
