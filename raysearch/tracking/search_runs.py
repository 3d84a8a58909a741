"""The runs of one search in the store, and how each kind of record is written to them without writing anything twice."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from raysearch.tracking.child_run import KEY, ROLE, SEARCH_ID, ChildRun, text
from raysearch.tracking.records import Record
from raysearch.tracking.views import RUN_COLOR, SHOWN, Shown, search_view

log = logging.getLogger(__name__)

_PAGE = 500

Training = str
"""What is trained in a search, each in a run of this role: one of :data:`TRAININGS`, or of :data:`BASELINE` and a name."""

TRAININGS = ("whole", "supernet", "champion", "random")
"""Of a pretrained supernet first the whole network, the supernet, the champion, and a random subnet beside it."""

BASELINE = "baseline "
"""How the roles of networks begin that stand beside the champion."""

SYSTEM = "system/"
"""What begins the names of system metrics: MLflow shows these on a page of their own."""


@dataclass(slots=True)
class _Child:
    """What the store holds of one child run."""

    run_id: str
    complete: bool


@dataclass(frozen=True, slots=True)
class After:
    """What is done with a network of a search when that has ended: it has a run of its own below the search's."""

    job: str
    """As ``finetune``: the role of its run."""
    key: str
    """Its name among all that is done with networks of that search."""


class SearchRuns:
    """A parent run, a child run per candidate and one per training. Not thread-safe.

    :meth:`open` finds or makes the parent run; :meth:`write` does everything else.

    Args:
        client: of the store.
        experiment_id: where the runs are.
        search_id: of the search.
        after: what is done after it, whose single run then takes the parent's place; None: the search itself.

    """

    def __init__(self, client: MlflowClient, experiment_id: str, search_id: str, after: After | None = None) -> None:
        self._client = client
        self._experiment_id = experiment_id
        self._search_id = search_id
        self._after = after
        self._run_id = ""
        # What is recorded already is looked up before the first write: thousands of runs take seconds to list.
        self._scanned = False
        self._children: dict[str, _Child] = {}
        self._trainings: dict[str, _Child] = {}
        """By what is trained, which is their role."""
        self._trained: dict[str, int] = {}
        """When trainings ended."""
        self._unsure: set[str] = set()
        self._points: set[tuple[str, str, int]] = set()
        self._shown = False
        """Whether the candidates that a finished search shows are chosen."""

    def open(self, run_name: str, params: Mapping[str, object], tags: Mapping[str, str]) -> str:
        """Make the parent run, or open it again when it exists. Returns its id."""
        of_search = f"tags.`{ROLE}` = 'search'"
        own = {SEARCH_ID: self._search_id, ROLE: "search"}
        if self._after is None:
            run = next(self._search(of_search), None)
        else:
            run = next(self._search(f"tags.`{ROLE}` = '{self._after.job}' and tags.`{KEY}` = '{self._after.key}'"), None)
            own |= {ROLE: self._after.job, KEY: self._after.key}
            if (parent := next(self._search(of_search), None)) is not None:  # it may be recorded elsewhere
                own[MLFLOW_PARENT_RUN_ID] = parent.info.run_id
        if run is None:
            run = self._client.create_run(self._experiment_id, run_name=run_name, tags={**tags, **own})
        else:
            self._client.update_run(run.info.run_id, status="RUNNING")
        values = {name: text(value) for name, value in params.items()}
        for name, old in run.data.params.items():
            if name in values and not _same(values[name], old):
                log.warning("MLflow keeps %s=%s of the first start; it is now %s", name, old, values[name])
        fresh = [Param(name, value) for name, value in values.items() if name not in run.data.params]
        self._client.log_batch(run.info.run_id, params=fresh)
        self._run_id = run.info.run_id
        return self._run_id

    def write(self, record: Record) -> None:
        """Write a record. What is in the store already is left alone."""
        if not self._scanned:
            self._scan()
            self._scanned = True
        getattr(self, f"_write_{record.kind}")(**record.values)

    # --- finding ---

    def _search(self, condition: str) -> Iterator[Run]:
        """Runs of this search that meet ``condition``, oldest first (page tokens are offsets: the order must not change)."""
        token: str | None = None
        while True:
            page = self._client.search_runs(
                [self._experiment_id],
                f"tags.`{SEARCH_ID}` = '{self._search_id}' and {condition}",
                max_results=_PAGE,
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
            yield from page
            token = page.token
            if not token:
                return

    def _scan(self) -> None:
        """Learn what an earlier start recorded; of two runs for one candidate the complete or else the older one stays."""
        children: dict[str, _Child] = {}
        surplus: list[str] = []
        for run in self._search(f"tags.`{ROLE}` = 'candidate'") if self._after is None else ():
            child = _Child(run.info.run_id, complete=run.info.status in ("FINISHED", "FAILED"))
            self._shown |= SHOWN in run.data.tags
            known = children.setdefault(run.data.tags[KEY], child)
            if known is not child:
                if child.complete and not known.complete:
                    children[run.data.tags[KEY]], child = child, known
                surplus.append(child.run_id)
        trainings: dict[str, Run] = {}
        of_one = [*(f"= '{role}'" for role in TRAININGS), f"LIKE '{BASELINE}%'"]
        for condition in of_one if self._after is None else ():
            for run in self._search(f"tags.`{ROLE}` {condition}"):
                if trainings.setdefault(run.data.tags[ROLE], run) is not run:
                    surplus.append(run.info.run_id)
        for run_id in surplus:
            self._client.delete_run(run_id)
        points: set[tuple[str, str, int]] = set()
        for role, run in [("search", self._client.get_run(self._run_id)), *trainings.items()]:
            for name in run.data.metrics:
                if not name.startswith(SYSTEM):  # of these, only a point that is the same in all can come again
                    points |= {(role, name, p.step) for p in self._client.get_metric_history(run.info.run_id, name)}
        self._trainings = {role: _Child(run.info.run_id, run.info.status == "FINISHED") for role, run in trainings.items()}
        self._children, self._points = children, points

    def _run_of(self, role: str) -> str:
        """Id of the parent run (``search``) or of a training's, which is made when it is missing."""
        if role == "search":
            return self._run_id
        if role not in self._trainings and role in self._unsure:
            for run in self._search(f"tags.`{ROLE}` = '{role}'"):  # the answer to an earlier create_run was lost
                self._trainings[role] = _Child(run.info.run_id, complete=False)
        if role not in self._trainings:
            self._unsure.add(role)
            tags = {SEARCH_ID: self._search_id, MLFLOW_PARENT_RUN_ID: self._run_id, ROLE: role}
            run = self._client.create_run(self._experiment_id, tags=tags, run_name=role)
            self._trainings[role] = _Child(run.info.run_id, complete=False)
        return self._trainings[role].run_id

    # --- one method for each kind of record ---

    def _write_candidate(self, **values: Any) -> None:
        record = ChildRun(**values)
        if record.key in self._unsure and record.key not in self._children:
            # The answer to an earlier create_run was lost: the run may exist.
            for run in self._search(f"tags.`{KEY}` = '{record.key}'"):
                self._children[record.key] = _Child(run.info.run_id, complete=False)
        child = self._children.get(record.key)
        metrics, tags = record.metrics, {SEARCH_ID: self._search_id, MLFLOW_PARENT_RUN_ID: self._run_id, **record.tags}
        if child is None:
            self._unsure.add(record.key)
            run = self._client.create_run(self._experiment_id, record.start, tags=tags, run_name=record.key)
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

    def _write_points(self, *, run: str, values: dict[str, float], time: int, step: int) -> None:
        fresh = [Metric(name, value, time, step) for name, value in values.items() if (run, name, step) not in self._points]
        if fresh:
            self._client.log_batch(self._run_of(run), metrics=fresh)
            self._points |= {(run, point.key, step) for point in fresh if not point.key.startswith(SYSTEM)}

    def _write_dataset(
        self, *, run: str, name: str, digest: str, context: str, source: str, profile: dict[str, object]
    ) -> None:
        dataset = Dataset(name, digest, "local", json.dumps({"uri": source}), profile=json.dumps(profile))
        self._client.log_inputs(self._run_of(run), [DatasetInput(dataset, [InputTag("mlflow.data.context", context)])])

    def _write_params(self, *, run: str, params: dict[str, str]) -> None:
        run_id = self._run_of(run)
        found = self._client.get_run(run_id)
        if found.info.status != "RUNNING":  # ended by a killed search, which now goes on
            self._client.update_run(run_id, status="RUNNING")
        logged = found.data.params
        fresh = [Param(name, value) for name, value in params.items() if name not in logged]
        self._client.log_batch(run_id, params=fresh)

    def _write_file(self, *, path: str) -> None:
        self._client.log_artifact(self._run_id, path)

    def _write_tags(self, *, tags: dict[str, str]) -> None:
        self._client.log_batch(self._run_id, tags=[RunTag(name, value) for name, value in tags.items()])

    def _write_marks(self, *, keys: list[str], tags: dict[str, str]) -> None:
        for key in keys:
            if key in self._children:
                self._client.log_batch(self._children[key].run_id, tags=[RunTag(name, value) for name, value in tags.items()])

    def _write_shown(self, *, runs: list[dict[str, str]]) -> None:
        for told in (Shown(**values) for values in runs):
            if told.key in self._children:
                run_id = self._children[told.key].run_id
                self._client.log_batch(run_id, tags=[RunTag(SHOWN, "true"), RunTag(RUN_COLOR, told.color)])
                if told.name != told.key:
                    self._client.update_run(run_id, name=told.name)
        self._shown = True

    def _write_view(self, *, key: str, value: str) -> None:  # as version 0.1.0 left it in a spool
        self._client.set_experiment_tag(self._experiment_id, key, value)

    def _write_search_view(self, *, key: str, name: str, params: list[str], axes: list[str], finished: bool) -> None:
        if finished or not self._shown:  # else a finished search was opened again
            view = search_view(self._search_id, name, params=params, axes=axes, finished=finished)
            self._client.set_experiment_tag(self._experiment_id, key, view)

    def _write_model(
        self,
        *,
        name: str,
        key: str,
        folder: str,
        tags: dict[str, str],
        alias: str | None,
        about_model: str = "",  # here and below: records of 0.1.0 that still wait have none
        about: str = "",
    ) -> None:
        own = {SEARCH_ID: self._search_id, KEY: key}
        condition = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in own.items())
        found = self._client.search_model_versions(f"name = '{name}' and {condition}")
        if found:
            version = found[0].version
        else:
            # The champion is the search's own result: the UI shows "Registered models" on the page of the run that has it.
            of_search = alias is not None or key not in self._children
            run_id = self._run_id if of_search else self._children[key].run_id
            self._client.log_artifacts(run_id, folder, "model")
            self._open_model(name, about_model)
            source = f"{self._client.get_run(run_id).info.artifact_uri}/model"
            link = f"[the search](#/experiments/{self._experiment_id}/runs/{self._run_id})"
            description = f"{about}\n\nFound by {link}." if about else ""
            version = self._client.create_model_version(
                name, source, run_id, {**tags, **own}, description=description, await_creation_for=0
            ).version
        if alias is not None:
            self._client.set_registered_model_alias(name, alias, version)
        shutil.rmtree(folder, ignore_errors=True)

    def _open_model(self, name: str, about: str) -> None:
        """Make the registered model, or describe one that nobody has described."""
        try:
            self._client.create_registered_model(name, description=about or None)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            if about and not self._client.get_registered_model(name).description:
                self._client.update_registered_model(name, about)

    def _write_end_of_training(self, *, time: int, run: str = "supernet") -> None:  # records of 0.1.0 name no other
        self._trained[run] = time
        training = self._trainings.get(run)
        if training is not None and not training.complete:
            self._client.set_terminated(training.run_id, "FINISHED", time)
            training.complete = True

    def _write_end(self, *, status: str) -> None:
        for run, time in self._trained.items():
            self._write_end_of_training(time=time, run=run)
        for child in [*self._children.values(), *self._trainings.values()]:
            if not child.complete:
                self._client.set_terminated(child.run_id, "KILLED")
        self._client.set_terminated(self._run_id, status)


def _same(first: str, second: str) -> bool:
    """Whether two params are equal, as numbers where they are some: 30 and 30.0 are."""
    try:
        return first == second or float(first) == float(second)
    except ValueError:
        return False
