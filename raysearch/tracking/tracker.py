"""The tracker of one search: whatever is logged is queued and written by one thread, so a slow store never holds it up."""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from raysearch.search.record import Candidate
from raysearch.tracking.child_run import KEY, ROLE, SEARCH_ID, ChildRun, child_run, milliseconds, text
from raysearch.tracking.store import (
    TROUBLE,
    Environment,
    first_line,
    is_refusal,
    open_store,
    quieten_mlflow,
    unusable,
    without_password,
)

log = logging.getLogger(__name__)

_PROBE_SECONDS = 5
_REQUEST_SECONDS = 30
_PAGE = 500


@dataclass(slots=True)
class _Child:
    """What the store holds of one candidate."""

    run_id: str
    complete: bool


@dataclass(frozen=True, slots=True)
class _Task:
    """One record on its way to the store."""

    what: str
    write: Callable[[], object]


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
        patience: seconds that :meth:`close` goes on trying while the store takes nothing.

    Raises:
        TrackingError: when the store cannot be reached, within a few seconds.

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
        patience: float = 15.0,
    ) -> None:
        if "'" in search_id:
            raise ValueError(f"search id {search_id!r} holds a quote; use letters, digits and dashes")
        self.uri = uri
        self._search_id = search_id
        self._patience = patience
        # MLflow would wait minutes for a silent server; the writer retries by itself and must be able to give up.
        self._environment = Environment(MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT="true", MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")
        self._environment.set(MLFLOW_HTTP_REQUEST_TIMEOUT=str(_PROBE_SECONDS))
        quieten_mlflow()
        try:
            self._client, self.experiment_id = open_store(uri, experiment)
            self._environment.set(MLFLOW_HTTP_REQUEST_TIMEOUT=str(_REQUEST_SECONDS))
            parent = self._open_parent(run_name, params, tags or {})
        except BaseException as error:
            self._environment.restore()
            if isinstance(error, TROUBLE):
                raise unusable(uri, error) from error
            raise
        self.run_id = parent.info.run_id

        # The writer looks up what is recorded already before its first write: thousands of runs take seconds to list.
        self._scanned = False
        self._known: set[str] = set()
        self._children: dict[str, _Child] = {}
        self._unsure: set[str] = set()
        self._steps: set[tuple[str, int]] = set()
        self._metric_names = list(parent.data.metrics)
        self._refused = 0
        self._failure: Exception | None = None
        self._silent = False
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._status: Literal["FINISHED", "FAILED", "KILLED"] = "FAILED"
        self._writer = threading.Thread(target=self._run, name="mlflow-writer", daemon=True)
        self._writer.start()

    # --- what callers use ---

    def log_candidate(self, candidate: Candidate) -> None:
        """Record one candidate as a child run. Returns at once; a candidate that is recorded already is left alone."""
        record = child_run(candidate)
        if record.key not in self._known:
            self._known.add(record.key)
            self._put(f"candidate {record.key}", lambda: self._write_candidate(record))

    def log_metrics(self, metrics: Mapping[str, float | None], *, step: int) -> None:
        """Record values of curves on the parent run. A (name, step) that is recorded already is left alone.

        None and values that are not finite are left out.
        """
        now = milliseconds()
        points = [Metric(k, float(v), now, step) for k, v in metrics.items() if v is not None and math.isfinite(v)]
        self._put(f"metrics of step {step}", lambda: self._write_points(points))

    def log_artifact(self, path: Path) -> None:
        """Attach a file to the parent run. It must stay until :meth:`close`. Raises FileNotFoundError when there is none."""
        if not path.is_file():
            raise FileNotFoundError(f"no file {path} to attach to the MLflow run")
        self._put(f"file {path.name}", lambda: self._client.log_artifact(self.run_id, str(path)))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags on the parent run, as the champion's id; a later value replaces an earlier one."""
        entries = [RunTag(k, v) for k, v in tags.items()]
        self._put("tags", lambda: self._client.log_batch(self.run_id, tags=entries))

    def close(self, status: Literal["FINISHED", "FAILED", "KILLED"] = "FINISHED") -> int:
        """Write what is queued and end the parent run. Returns how many records the store did not take; 0 when all is well.

        A store that is silent costs ``patience`` seconds, not an exception: a search is not lost because its record is. One
        warning says how many records are missing. Raises RuntimeError when the writer itself broke.
        """
        if not self._closing.is_set():
            self._status = status
            self._closing.set()
            self._tasks.put(None)
            self._writer.join()
            self._environment.restore()
            self._raise_failure()
            if missing := self._missing():
                log.warning(
                    "%d records are missing in MLflow at %s; the same command with --resume logs them",
                    missing,
                    without_password(self.uri),
                )
        return self._missing()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close("FINISHED")
        else:
            self.close("KILLED" if issubclass(kind, KeyboardInterrupt) else "FAILED")

    # --- the parent run ---

    def _open_parent(self, run_name: str, params: Mapping[str, object], tags: Mapping[str, str]) -> Run:
        found = self._search(f"tags.`{ROLE}` = 'search'")
        run = next(found, None)
        if run is None:
            own = {SEARCH_ID: self._search_id, ROLE: "search"}
            run = self._client.create_run(self.experiment_id, run_name=run_name, tags={**tags, **own})
        else:
            self._client.update_run(run.info.run_id, status="RUNNING")
        values = {name: text(value) for name, value in params.items()}
        for name, old in run.data.params.items():
            if name in values and values[name] != old:
                log.warning("MLflow keeps %s=%s of the first start; it is now %s", name, old, values[name])
        fresh = [Param(name, value) for name, value in values.items() if name not in run.data.params]
        self._client.log_batch(run.info.run_id, params=fresh)
        return run

    def _search(self, condition: str) -> Iterator[Run]:
        """Runs of this search that meet ``condition``, oldest first (page tokens are offsets: the order must not change)."""
        token: str | None = None
        while True:
            page = self._client.search_runs(
                [self.experiment_id],
                f"tags.`{SEARCH_ID}` = '{self._search_id}' and {condition}",
                max_results=_PAGE,
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
            yield from page
            token = page.token
            if not token:
                return

    # --- the writer thread ---

    def _put(self, what: str, write: Callable[[], object]) -> None:
        self._raise_failure()
        if self._closing.is_set():
            raise RuntimeError(f"{what} came after the tracker was closed")
        self._tasks.put(_Task(what, write))

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise RuntimeError("the MLflow writer broke") from self._failure

    def _missing(self) -> int:
        return self._refused + self._tasks.qsize()

    def _run(self) -> None:
        try:
            back_off = 1.0
            while (task := self._tasks.get()) is not None:
                if self._attempt(task):
                    back_off = 1.0
                else:
                    self._tasks.put(task)
                    self._closing.wait(back_off)
                    back_off = min(2 * back_off, 30.0)
            self._drain()
        except Exception as error:  # a bug: it is kept and raised in the search's own thread
            self._failure = error

    def _drain(self) -> None:
        """After close: write the rest for as long as the store takes something, then end the runs."""
        end = _Task("the end of the runs", self._end_runs)
        deadline = time.monotonic() + self._patience
        while True:
            task = end if self._tasks.empty() else self._tasks.get()
            assert task is not None
            if self._attempt(task):
                if task is end:
                    return
                deadline = time.monotonic() + self._patience
                continue
            if task is not end:
                self._tasks.put(task)
            if time.monotonic() > deadline:
                break
            time.sleep(min(0.5, self._patience))
        if not self._attempt(end):  # one record may be what the store chokes on: the runs end without it
            self._tasks.put(end)

    def _attempt(self, task: _Task) -> bool:
        """Whether ``task`` is done with: written, or refused for good. False: the store is silent, try again later."""
        try:
            if not self._scanned:
                self._scan()
                self._scanned = True
            task.write()
        except TROUBLE as error:
            if is_refusal(error):
                self._refused += 1
                log.error("MLflow at %s refused %s: %s", without_password(self.uri), task.what, first_line(error))
                return True
            if not self._silent:
                self._silent = True
                where = without_password(self.uri)
                log.warning("MLflow at %s does not answer, its records wait in memory: %s", where, first_line(error))
            return False
        if self._silent:
            self._silent = False
            log.warning("MLflow at %s answers again; its records are being caught up", without_password(self.uri))
        return True

    def _scan(self) -> None:
        """Learn what an earlier start recorded; of two runs for one candidate the complete or else the older one stays."""
        children: dict[str, _Child] = {}
        surplus: list[str] = []
        for run in self._search(f"tags.`{ROLE}` = 'candidate'"):
            child = _Child(run.info.run_id, complete=run.info.status in ("FINISHED", "FAILED"))
            known = children.setdefault(run.data.tags[KEY], child)
            if known is not child:
                if child.complete and not known.complete:
                    children[run.data.tags[KEY]], child = child, known
                surplus.append(child.run_id)
        for run_id in surplus:
            self._client.delete_run(run_id)
        steps = {
            (name, point.step) for name in self._metric_names for point in self._client.get_metric_history(self.run_id, name)
        }
        self._children, self._steps = children, steps

    def _write_points(self, points: list[Metric]) -> None:
        fresh = [p for p in points if (p.key, p.step) not in self._steps]
        self._client.log_batch(self.run_id, metrics=fresh)
        self._steps |= {(p.key, p.step) for p in fresh}

    def _write_candidate(self, record: ChildRun) -> None:
        if record.key in self._unsure and record.key not in self._children:
            # The answer to an earlier create_run was lost: the run may exist.
            for run in self._search(f"tags.`{KEY}` = '{record.key}'"):
                self._children[record.key] = _Child(run.info.run_id, complete=False)
        child = self._children.get(record.key)
        metrics, tags = record.metrics, {SEARCH_ID: self._search_id, MLFLOW_PARENT_RUN_ID: self.run_id, **record.tags}
        if child is None:
            self._unsure.add(record.key)
            run = self._client.create_run(self.experiment_id, record.start, tags=tags, run_name=record.key)
            child = self._children[record.key] = _Child(run.info.run_id, complete=False)
        elif child.complete:
            return
        else:
            # A write that broke off: what it left stays, a metric logged again would be a second point.
            logged = self._client.get_run(child.run_id).data.metrics
            metrics = {name: value for name, value in metrics.items() if name not in logged}
        self._client.log_batch(
            child.run_id,
            metrics=[Metric(name, value, record.end, 0) for name, value in metrics.items()],
            params=[Param(name, value) for name, value in record.params.items()],
        )
        self._client.set_terminated(child.run_id, record.status, record.end)
        child.complete = True

    def _end_runs(self) -> None:
        for child in self._children.values():
            if not child.complete:
                self._client.set_terminated(child.run_id, "KILLED")
        self._client.set_terminated(self.run_id, self._status)
