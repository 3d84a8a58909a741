"""Set before anything is imported: shapes are checked in tests, nothing reports outwards. A cluster, a browser for pages."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# A cluster started by hand and one started by ray.init differ in whether they ask for a token.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
# A process of each training that asks whether its machines will be taken away: those of tests will not.
os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
# Networks of tests are small: a second thread adds nothing, and on a busy machine it waits for the first one's for minutes.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Tests leave nothing in the home of whoever runs them.
os.environ.setdefault("RAYSEARCH_CACHE", str(Path(tempfile.gettempdir()) / f"raysearch-tests-{os.getuid()}"))
# What whoever runs the tests has set for their own searches: no test records there, and errors are those of users.
os.environ.pop("MLFLOW_TRACKING_URI", None)
os.environ.pop("RAY_ADDRESS", None)
os.environ.pop("RAYSEARCH_TRACEBACK", None)
# Some hundred processes import raysearch: each would compile it anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

sys.dont_write_bytecode = False  # as above, for this process
install_import_hook("raysearch", "shape_checks.check")
pytest.register_assert_rewrite("search_script")
settings.register_profile("raysearch", deadline=None)  # a busy machine is no failure
settings.load_profile("raysearch")


WITH_CLUSTER = ("distributed", "jobs", "scripts")
"""Folders of tests that need the cluster."""


class _OneCluster(LoadScopeScheduling):
    """Tests that need the cluster on one of the processes that share a test run.

    There is then one cluster, and those tests run one after the other, while the other modules fill the processors beside them.
    """

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return "cluster" if module.split("/")[1] in WITH_CLUSTER else module


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _OneCluster:
    """Instead of marks with groups: pytest-xdist 3.8 writes them where pytest 9.2 reads no more."""
    return _OneCluster(config, log)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """One Ray cluster for the whole test run, started by the first test that asks for it; this process is connected to it.

    A head of two CPUs, whatever the machine has, that tests may add nodes to.
    """
    import forked_workers as forked
    import ray
    from ray.cluster_utils import Cluster

    import raysearch.distributed.cluster  # sets Tune's environment before the cluster's processes inherit it

    assert raysearch.distributed.cluster.Actor
    # Nobody reads the logs of its processes here.
    head = {"num_cpus": 2, "include_dashboard": False, "include_log_monitor": False, "setup_worker_path": forked.__file__}
    running = Cluster(initialize_head=True, head_node_args=head)
    ray.init(address=running.address, log_to_driver=False)
    raylet = running.head_node.all_processes["raylet"][0].process.pid
    with forked.forked_workers(raylet, ray.get_runtime_context().get_job_id()):
        yield running
        ray.shutdown()
        running.shutdown()


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
