"""Every choice of a space with stages, words, switches and blocks that may be left out is seen in MLflow."""

import json
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest
from mlflow import MlflowClient
from staged_space import Staged, staged_space
from tracked_search import children, settings

from raysearch.search.candidate import Candidate
from raysearch.search.protocol import Proposal, Result
from raysearch.space import Architecture
from raysearch.space.cost import Cost
from raysearch.tracking import Tracker, architecture_params
from raysearch.tracking.child_run import child_run
from raysearch.tracking.views import Axes

SPACE = staged_space()
ARCHS = list(dict.fromkeys([SPACE.smallest(), SPACE.largest(), *(SPACE.sample(Random(i)) for i in range(20))]))


def candidate(arch: Architecture, index: int) -> Candidate:
    cost = Cost(1000 + index, 5000)
    result = Result(index / 32, 100, cost.params, cost.macs, 1.0)
    return Candidate(Proposal(arch, index, generation=0, origin="random"), cost, result)


def choices_shown(params: dict[str, str]) -> dict[str, str]:
    """The names of the space's own flat form, from those of a run."""
    parts = {name: name.split(".") for name in params}
    return {".".join([field, *(str(int(place)) for place in places)]): params[name] for name, (field, *places) in parts.items()}


@pytest.mark.parametrize("arch", ARCHS)
def test_a_run_shows_every_choice_and_nothing_else(arch: Staged) -> None:
    params = child_run(candidate(arch, 3)).params
    assert json.loads(params.pop("architecture")) == arch.to_dict()
    assert [params.pop(name) for name in ("index", "generation", "origin")] == ["3", "0", "random"]
    decided = SPACE.to_params(arch)
    left_out = [name for name, value in decided.items() if name.startswith("skip.") and value]
    assert int(params.pop("skipped")) == len(left_out)
    assert int(params.pop("depth")) == sum(value for name, value in decided.items() if name.startswith("depth."))
    for field in ("width", "kernel"):
        numbers = [value for name, value in decided.items() if name.startswith(f"{field}.")]
        assert float(params.pop(f"{field}_mean")) == pytest.approx(sum(numbers) / len(numbers))
    assert choices_shown(params) == {name: str(value) for name, value in decided.items() if not name.startswith("skip.")}


def test_what_has_nothing_left_or_a_taken_name_is_shown_too() -> None:
    @dataclass(frozen=True)
    class Odd(Architecture):
        origin: str
        heads: tuple[int | None, ...]
        mixer: tuple[str | None, ...]

    shown = architecture_params(Odd("conv", (None, None), (None, None)))
    assert json.loads(shown.pop("architecture")) == {"origin": "conv", "heads": [None, None], "mixer": [None, None]}
    assert shown == {"arch.origin": "conv", "heads_mean": "0", "skipped": "2"}


def parallel_axes(client: MlflowClient, tracker: Tracker, search_id: str) -> tuple[list[str], list[str]]:
    """Axes of the parallel chart and columns of the table, as the view in the store names them."""
    view = client.get_experiment(tracker.experiment_id).tags[f"mlflow.sharedViewState.raysearch-{search_id}"]
    state: dict[str, Any] = json.loads(json.loads(view)["state"])
    (chart,) = [chart for chart in state["compareRunCharts"] if chart["type"] == "PARALLEL"]
    return chart["selectedParams"], state["selectedColumns"]


def test_the_view_has_the_axes_that_all_scored_runs_have(database: Path) -> None:
    """For MLflow hides a run that lacks one."""
    uri = f"sqlite:///{database}"
    wished = ("norm", "depth", "depth.01", "gated.00", "width_mean", "kernel_mean", "kernel.00.01", "mixer.01.02", "skipped")
    client = MlflowClient(uri)
    for _ in range(2):  # a search that goes on comes to the same view
        with Tracker(**settings(uri, "staged"), axes=wished) as tracker:
            for index, arch in enumerate(ARCHS):
                tracker.log_candidate(candidate(arch, index))
        assert tracker.close() == 0
        axes, columns = parallel_axes(client, tracker, "staged")
        assert axes == ["norm", "depth", "depth.01", "gated.00", "width_mean", "kernel_mean", "skipped"]
        assert {f"params.`{name}`" for name in wished} <= set(columns)
    runs = children(uri, tracker.run_id)
    assert len(runs) == len(ARCHS)
    assert {run.data.params["norm"] for run in runs} == {"layer", "batch"}
    assert all(axis in run.data.params for run in runs for axis in axes)
    assert any("kernel.00.01" not in run.data.params for run in runs)
    assert {Staged.from_json(run.data.params["architecture"]) for run in runs} == set(ARCHS)


def test_an_axis_is_of_numbers_or_of_words_and_only_given_up_where_it_would_hide_a_run() -> None:
    axes = Axes(["norm", "window", "depth"])
    assert not axes.admit({"norm": "layer", "window": "7", "depth": "3", "more": "x"})
    assert axes.admit({"norm": "batch", "window": "global", "depth": "4"})
    assert axes.names == ["norm", "depth"]
    assert not axes.admit({"norm": "layer", "window": "7", "depth": "3"})
    assert axes.admit({"norm": "layer"})
    assert axes.names == ["norm"]
