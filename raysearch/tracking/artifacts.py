"""Files of earlier runs."""

from __future__ import annotations

from pathlib import Path

from mlflow import MlflowClient

from raysearch.store.secrets import without_password
from raysearch.tracking.store import TROUBLE, Environment, TrackingError, alone_in, first_line, is_missing, quieten_mlflow


def artifact_of_run(uri: str, run_id: str, name: str, *, folder: Path) -> Path:
    """A copy, in ``folder``, of an artifact of a run. Raises TrackingError when there is none."""
    quieten_mlflow()
    quiet = Environment(MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false")
    try:
        if is_missing(uri):
            raise TrackingError(
                f"no {name} of run {run_id}: there is no MLflow record at {without_password(uri)}; name it with --tracking-uri"
            )
        with alone_in(uri):  # a search may be making the tables
            client = MlflowClient(uri)
            client.get_run(run_id)
        return Path(client.download_artifacts(run_id, name, str(folder)))
    except TROUBLE as error:
        raise TrackingError(
            f"no {name} of run {run_id} in MLflow at {without_password(uri)} ({first_line(error)}); name a finished search"
        ) from error
    finally:
        quiet.restore()
