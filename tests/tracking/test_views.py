"""What MLflow's UI opens on: of a finished search champion, front and an even sample, whatever the scores."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

from mlflow import MlflowClient
from tracked_search import arch, candidate, children, settings

from raysearch.search import pareto_front
from raysearch.search.candidate import Candidate
from raysearch.search.protocol import Result
from raysearch.store.palette import CHAMPION, FRONT
from raysearch.tracking import Tracker, shown


def tied(count: int) -> list[Candidate]:
    """A search whose later two thirds have one and the same best score."""
    found: list[Candidate] = []
    for i in range(count):
        told = candidate(i)
        if isinstance(told.outcome, Result):
            told = replace(told, outcome=replace(told.outcome, score=min(1.0, 0.5 + 1.5 * i / count)))
        found.append(told)
    return found


def view(uri: str, tracker: Tracker) -> dict[str, Any]:
    tags = MlflowClient(uri).get_experiment(tracker.experiment_id).tags
    return json.loads(json.loads(tags["mlflow.sharedViewState.raysearch-tied"])["state"])


def test_a_search_whose_best_tie_opens_on_all_of_its_course() -> None:
    candidates = tied(600)
    front = [c.proposal.arch.id for c in pareto_front(candidates)]
    champion = next(c.proposal.arch.id for c in candidates if c.result and c.result.score == 1.0)
    found = shown(candidates, front=front, champion=champion)
    by_id = {c.proposal.arch.id: c for c in candidates}
    keys = [run.key for run in found]
    assert len(set(keys)) == len(keys) == 100  # what MLflow loads at once
    assert keys[0] == champion
    assert all(by_id[key].status == "scored" for key in keys)
    scores = [by_id[key].result.score for key in keys[1:]]
    assert min(scores) < 0.55
    assert 0.5 < sum(score == 1.0 for score in scores) / len(scores) < 0.8  # as in the search, two thirds
    asked = sorted(by_id[run.key].proposal.index for run in found if run.name == run.key)
    assert max(later - earlier for earlier, later in pairwise(asked)) < 12
    named = {run.name.partition(" ")[0]: run.color for run in found if run.name != run.key}
    assert named == {"champion": CHAMPION, "front": FRONT}
    assert len({run.color for run in found} - {CHAMPION, FRONT}) > 20  # pale to dark


def test_a_long_front_is_shown_evenly_along_it_whatever_was_asked_first() -> None:
    candidates = [c for c in tied(400) if c.status == "scored"]
    keys = [c.proposal.arch.id for c in candidates[:101]]
    along = Random(0).sample(keys, len(keys))
    found = [run.key for run in shown(candidates, front=along, champion=candidates[-1].proposal.arch.id)]
    places = [along.index(key) for key in found if key in along][:24]
    assert (places[0], places[-1]) == (0, 100)
    assert {later - earlier for earlier, later in pairwise(places)} == {4, 5}


def test_a_small_search_is_shown_whole() -> None:
    candidates = tied(12)
    champion = candidates[11].proposal.arch.id
    found = shown(candidates, front=[champion, candidates[0].proposal.arch.id], champion=champion)
    assert {run.key for run in found} == {c.proposal.arch.id for c in candidates if c.status == "scored"}


def test_the_view_names_and_colours_what_it_opens_on(database: Path) -> None:
    uri, told = f"sqlite:///{database}", settings("", "tied")
    candidates = [candidate(i) for i in range(8)]
    with Tracker(**{**told, "uri": uri}, axes=("depth",)) as tracker:
        for c in candidates:
            tracker.log_candidate(c)
    while_it_runs = view(uri, tracker)
    assert (while_it_runs["orderByKey"], while_it_runs["orderByAsc"]) == ("attributes.start_time", False)
    assert "shown" not in while_it_runs["searchFilter"]
    with Tracker(**{**told, "uri": uri}, axes=("depth",)) as tracker:
        tracker.show(shown(candidates, front=[arch(0).id, arch(5).id], champion=arch(7).id))
    with Tracker(**{**told, "uri": uri}, axes=("depth",)) as tracker:  # a finished search that is opened again
        pass
    opened = view(uri, tracker)
    runs = {run.data.tags["raysearch.key"]: run for run in children(uri, tracker.run_id)}
    assert opened["orderByKey"] == "metrics.`score`"
    found = MlflowClient(uri).search_runs([tracker.experiment_id], opened["searchFilter"])
    names = {run.data.tags["raysearch.key"]: run.info.run_name for run in found}
    scored = {c.proposal.arch.id for c in candidates if c.status == "scored"}
    assert names.keys() == scored
    assert names[arch(7).id] == f"champion {arch(7).id}"
    assert {key for key, name in names.items() if name.startswith("front ")} == {arch(0).id, arch(5).id}
    assert runs[arch(7).id].data.tags["mlflow.runColor"] == CHAMPION
