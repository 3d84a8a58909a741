"""The tracker of one search: whatever is logged is queued and written by one thread, so a slow store never holds it up."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from jaxtyping import Float32

from raysearch.errors import UserError
from raysearch.search.candidate import Candidate
from raysearch.store.names import readable
from raysearch.store.secrets import without_password
from raysearch.tracking.child_run import child_run, milliseconds, text
from raysearch.tracking.models import Network, save_model
from raysearch.tracking.records import Record, Spool
from raysearch.tracking.search_runs import SYSTEM, After, SearchRuns, Training
from raysearch.tracking.store import (
    TROUBLE,
    Environment,
    open_store,
    quieten_mlflow,
    ui_url,
    unusable,
)
from raysearch.tracking.system_metrics import Sampler
from raysearch.tracking.views import VIEW, Axes, Shown, view_key
from raysearch.tracking.writer import END, Writer

log = logging.getLogger(__name__)

_PROBE_SECONDS = 5
_REQUEST_SECONDS = 30

Role = Training
"""The run that is meant: the search's own (``search``), or that of a training."""


class Tracker:
    """Records one search. Opens its parent run, or opens it again when a run with this ``search_id`` exists.

    Use it as a context manager: an exception ends the parent run as FAILED, a KeyboardInterrupt as KILLED.

    Args:
        uri: an MLflow tracking URI: ``sqlite:///...``, another database, or ``http(s)://...``.
        experiment: name of the experiment; created when it is missing.
        search_id: identity of the search, the same after a resume.
        run_name: the parent run's name in the UI.
        params: settings of the search, logged on the parent once.
        tags: further tags of the parent run.
        axes: names of candidates' parameters that the UI's view of this search shows as columns and, as far as all candidates
            have them, as axes.
        spool: the file in which records wait while the store is silent; what is left in it is written at the next opening.
            None: they wait in memory.
        after: what is done with a network of a search that has ended: its run takes the place of the parent run, below the
            search's. None: the search itself.
        patience: seconds that :meth:`close` goes on trying while the store takes nothing.

    Raises:
        TrackingError: when the store cannot be reached, within a few seconds.
        UserError: a line of ``spool`` is damaged.

    """

    run_id: str
    """MLflow's id of the parent run."""
    experiment_id: str
    uri: str

    def __init__(
        self,
        *,
        uri: str,
        experiment: str,
        search_id: str,
        run_name: str,
        params: Mapping[str, object],
        tags: Mapping[str, str] | None = None,
        axes: Sequence[str] = (),
        spool: Path | None = None,
        after: After | None = None,
        patience: float = 15.0,
    ) -> None:
        if "'" in search_id:
            raise UserError(f"search id {search_id!r} holds a quote; use letters, digits and dashes")
        self.uri = uri
        self._search_id = search_id
        self._run_name = readable(run_name)
        self._columns, self._axes = tuple(axes), Axes(axes)
        self._spool = Spool(spool)  # a damaged file is said before anything is opened
        # MLflow would wait minutes for a silent server; the writer retries by itself and must be able to give up.
        self._environment = Environment(MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT="true", MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")
        self._environment.set(MLFLOW_HTTP_REQUEST_TIMEOUT=str(_PROBE_SECONDS), MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false")
        quieten_mlflow()
        try:
            client, self.experiment_id = open_store(uri, experiment)
            self._environment.set(MLFLOW_HTTP_REQUEST_TIMEOUT=str(_REQUEST_SECONDS))
            runs = SearchRuns(client, self.experiment_id, search_id, after)
            self.run_id = runs.open(self._run_name, params, {name: text(value) for name, value in (tags or {}).items()})
        except BaseException as error:
            self._environment.restore()
            if isinstance(error, TROUBLE):
                raise unusable(uri, error) from error
            raise
        self._known: set[str] = set()
        self._closed = False
        self._writer = Writer(runs.write, spool=self._spool, where=without_password(uri), patience=patience)
        if axes:
            self._put_view()

    # --- what callers use ---

    @property
    def url(self) -> str:
        """Address of this search's view in the UI."""
        return ui_url(without_password(self.uri), self.experiment_id, search_id=self._search_id)

    def log_candidate(self, candidate: Candidate) -> None:
        """Record one candidate as a child run. Returns at once; a candidate that is recorded already is left alone."""
        record = child_run(candidate)
        if record.key not in self._known:
            self._known.add(record.key)
            self._put("candidate", f"candidate {record.key}", **record.to_dict())
            # One without a score is in no chart anyhow.
            if "score" in record.metrics and self._axes.admit(record.params):
                self._put_view()

    def log_metrics(self, metrics: Mapping[str, float | None], *, step: int, run: Role = "search") -> None:
        """Record values of curves. A (name, step) that is recorded already is left alone.

        None and values that are not finite are left out.
        """
        values = {name: float(value) for name, value in metrics.items() if value is not None and math.isfinite(value)}
        self._put("points", f"metrics of step {step}", run=run, values=values, time=milliseconds(), step=step)

    @contextmanager
    def training(self, params: Mapping[str, object], *, run: Role = "supernet") -> Generator[None]:
        """The time in which something is trained, as a run of its own: its settings, and how busy this machine is meanwhile.

        Its curves are :meth:`log_metrics` with this ``run``; :meth:`end_training` ends it.
        """
        self._put("params", f"settings of the {run}'s training", run=run, params={k: text(v) for k, v in params.items()})

        def report(values: dict[str, float]) -> None:
            named = {SYSTEM + name: value for name, value in values.items()}
            now = milliseconds()
            self._put("points", "system metrics", run=run, values=named, time=now, step=now // 1000)

        sampler = Sampler(report)
        try:
            yield
        finally:
            sampler.stop()

    def end_training(self, run: Training = "supernet") -> None:
        """End the run of a training; nothing happens when that is done already."""
        self._put("end_of_training", f"the end of the {run}'s training", run=run, time=milliseconds())

    def log_dataset(self, name: str, *, digest: str, source: str, profile: Mapping[str, object], run: Role = "search") -> None:
        """Record which images a run used: their name, a digest (MLflow keeps 36 characters), where they are, their numbers."""
        context = "search" if run == "search" else "training"
        values = {"name": name, "digest": digest[:36], "source": readable(source), "profile": dict(profile), "context": context}
        self._put("dataset", f"data set {name}", run=run, **values)

    def log_artifact(self, path: Path) -> None:
        """Attach a file to the parent run. It must stay until :meth:`close`. Raises FileNotFoundError when there is none."""
        if not path.is_file():
            raise FileNotFoundError(f"no file {path} to attach to the MLflow run")
        self._put("file", f"file {path.name}", path=str(path.absolute()))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags on the parent run, as the champion's id; a later value replaces an earlier one."""
        self._put("tags", "tags", tags={name: readable(value) for name, value in tags.items()})

    def mark_candidates(self, keys: Sequence[str], tags: Mapping[str, str]) -> None:
        """Set tags on the runs of the candidates with these ids, as those of the front."""
        self._put("marks", f"tags of {len(keys)} candidates", keys=list(keys), tags=dict(tags))

    def show(self, shown: Sequence[Shown]) -> None:
        """Have the view of this search, which is finished, open on these candidates, under their names and in their colours."""
        self._put("shown", f"what {len(shown)} candidates are shown as", runs=[run.to_dict() for run in shown])
        self._put_view(finished=True)

    def register(
        self, name: str, network: Network, *, images: Float32[np.ndarray, "batch chans height width"], folder: Path
    ) -> bool:
        """Have a network registered as a version of the model ``name``: once, also when the search goes on after a kill.

        It is exported here and now; the files wait in ``folder`` until the store has them. A network that cannot be exported
        costs a warning and a tag of the search's run that says why, not the search: False then.
        """
        place = folder / f"model-{network.key}"
        try:
            save_model(place, network, images)
        except Exception as error:  # exporters raise anything, and a network less in the registry is no reason to lose a search
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:500]
            log.warning("network %s is not registered in MLflow, its export failed: %s", network.key, reason)
            self.set_tags({f"raysearch.unregistered.{network.key}": reason})
            shutil.rmtree(place, ignore_errors=True)
            return False
        values = {"name": name, "key": network.key, "folder": str(place.absolute()), "tags": network.tags}
        about = {"about_model": network.about_model, "about": network.about}
        self._put("model", f"model {network.key}", **values, alias=network.alias, **about)
        return True

    def close(self, status: Literal["FINISHED", "FAILED", "KILLED"] = "FINISHED") -> int:
        """Write what is queued and end the parent run. Returns how many records the store did not take; 0 when all is well.

        A store that is silent costs ``patience`` seconds, not an exception: a search is not lost because its record is. One
        warning says how many records are missing. Raises RuntimeError when the writer itself broke.
        """
        if not self._closed:
            self._closed = True
            try:
                self._writer.close(Record(END, "the end of the runs", {"status": status}))
            finally:
                self._environment.restore()
            if missing := self._writer.missing:
                log.warning(
                    "%d records are missing in MLflow at %s; the same command with --resume logs them%s",
                    missing,
                    without_password(self.uri),
                    f" from {self._spool.path}" if self._spool.path else "",
                )
        return self._writer.missing

    def _put_view(self, *, finished: bool = False) -> None:
        told = {"name": self._run_name, "params": list(self._columns), "axes": self._axes.names, "finished": finished}
        self._put("search_view", "the view of its UI", key=VIEW + view_key(self._search_id), **told)

    def _put(self, kind: str, what: str, **values: Any) -> None:
        self._writer.put(Record(kind, what, values))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close("FINISHED")
        else:
            self.close("KILLED" if issubclass(kind, KeyboardInterrupt) else "FAILED")
