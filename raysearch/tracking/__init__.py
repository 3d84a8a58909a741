"""The record in MLflow: one parent run per search, one child run per candidate. The only package that imports mlflow.

Tags on the runs (``raysearch.search_id``, ``raysearch.key``) make logging idempotent: a search that was killed and continued
logs nothing twice and leaves no run RUNNING.
"""

from raysearch.store.secrets import without_password
from raysearch.tracking.artifacts import artifact_of_run
from raysearch.tracking.child_run import architecture_params
from raysearch.tracking.models import Network
from raysearch.tracking.search_runs import BASELINE, After, Training
from raysearch.tracking.store import TrackingError, default_uri, ui_command, ui_url
from raysearch.tracking.tracker import Tracker
from raysearch.tracking.ui import RecordedSearch, UiServer, recorded_searches
from raysearch.tracking.views import Shown, shown

__all__ = [
    "BASELINE",
    "After",
    "Network",
    "RecordedSearch",
    "Shown",
    "Tracker",
    "TrackingError",
    "Training",
    "UiServer",
    "architecture_params",
    "artifact_of_run",
    "default_uri",
    "recorded_searches",
    "shown",
    "ui_command",
    "ui_url",
    "without_password",
]
