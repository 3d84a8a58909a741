"""The searcher in experiments of somebody else: any algorithm, any trainable, interrupted and restored."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray
import toy
import tuned
from ray import tune
from ray.cluster_utils import Cluster

from raysearch.distributed import TuneSearcher


@pytest.fixture(autouse=True)
def _travels(cluster: Cluster) -> None:
    """Workers cannot import the tests' modules: what is defined there travels by value."""
    for module in (toy, tuned, sys.modules[__name__]):
        ray.cloudpickle.register_pickle_by_value(module)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tune saves after every step."""
    monkeypatch.setenv("TUNE_GLOBAL_CHECKPOINT_S", "0")


# --- in a tuner ---


@pytest.mark.parametrize(("name", "concurrent"), [*((name, 4) for name in tuned.CONFIGS), ("ageing", 1)])
def test_any_algorithm_searches_in_anybodys_tuner(name: str, concurrent: int, tmp_path: Path) -> None:
    expected, state = tuned.undisturbed(name)
    searcher = TuneSearcher(tuned.algorithm(name), metric="score")
    results = tuned.tuner(tmp_path, searcher, concurrent=concurrent).fit()
    assert not results.errors
    assert tuned.asked(results) == expected
    assert searcher.algorithm.state_dict() == state


def train(config: dict[str, Any]) -> None:
    """A loss, reported twice; some candidates have trouble."""
    arch = toy.SPACE.from_params(config)
    assert arch == toy.SPACE.architecture.from_dict(config["arch"])
    trouble = config["trouble"].get(config["id"])
    if trouble == "error":
        raise RuntimeError("out of memory")
    error = -toy.toy_score(arch)
    tune.report({"errors": {"last": 100.0}, "entropy": 1.0})
    match trouble:
        case "silence":
            tune.report({"entropy": 1.0})
        case "nan" | "inf":
            tune.report({"errors": {"last": float(trouble)}, "entropy": 1.0})
        case "words":
            tune.report({"errors": {"last": "none"}, "entropy": 1.0})
        case _:
            tune.report({"errors": {"last": error}, "entropy": 0.5})


def test_a_trial_in_trouble_is_a_failure_with_a_reason_and_the_search_goes_on(tmp_path: Path) -> None:
    search = tuned.algorithm("random")
    ids = tuned.undisturbed("random")[0]
    trouble = dict(zip(ids[1:], ("error", "silence", "nan", "inf", "words"), strict=False))
    results = tune.Tuner(
        tune.with_resources(train, {"cpu": 0.1}),
        param_space={"trouble": trouble},
        tune_config=tune.TuneConfig(
            search_alg=TuneSearcher(search, metric="errors/last", mode="min", loss="entropy"),
            num_samples=8,
            max_concurrent_trials=4,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(name="search", storage_path=str(tmp_path), verbose=0),
    ).fit()
    assert tuned.asked(results) == ids[:8]
    outcomes = [candidate[-1] for candidate in search.state_dict()["candidates"]][:8]
    assert [outcome.get("reason") for outcome in outcomes] == [
        None,
        "the trial ended in an error",
        "the trial did not report errors/last",
        "the trial reported errors/last = nan",
        "the trial reported errors/last = inf",
        "the trial reported errors/last = 'none', which is no number",
        None,
        None,
    ]
    archs = [toy.ToyArchitecture.from_dict(candidate[0]) for candidate in search.state_dict()["candidates"]]
    for arch, outcome in zip(archs, outcomes, strict=False):
        if "reason" not in outcome:
            cost = toy.cost(arch)
            found = [outcome[name] for name in ("score", "loss", "params", "macs")]
            assert found == [toy.toy_score(arch), 0.5, cost.params, cost.macs]


def test_what_the_searcher_decides_is_nobody_elses_parameter(tmp_path: Path) -> None:
    searcher = TuneSearcher(tuned.algorithm("random"), metric="score")
    run = tune.RunConfig(name="search", storage_path=str(tmp_path), verbose=0)
    config = tune.TuneConfig(search_alg=searcher)
    with pytest.raises(ValueError, match=r"param_space has heads\.1, which the searcher decides"):
        tune.Tuner(tuned.Scored, param_space={"heads.1": 3, "rate": 0.1}, tune_config=config, run_config=run).fit()


# --- interrupted ---


@pytest.mark.usefixtures("often")
def test_a_killed_experiment_goes_on_where_it_was(cluster: Cluster, tmp_path: Path) -> None:
    """Six candidates are done and four under way: those keep their trials, and the rest is as if nothing had happened."""
    expected, state = tuned.undisturbed("ageing")
    tuned.hold(tmp_path, expected[6:10])
    (tmp_path / "fuse").touch()
    code = "import sys, tuned; tuned.interrupted(sys.argv[1], 'ageing', address=sys.argv[2])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    driver = subprocess.run([sys.executable, "-c", code, str(tmp_path), cluster.address], env=environment, check=False)
    assert driver.returncode == -signal.SIGKILL
    running = tuned.saved(tmp_path)["running"]
    assert [toy.ToyArchitecture.from_dict(arch).id for arch in running.values()] == expected[6:10]

    tuned.release(tmp_path)
    results = tune.Tuner.restore(str(tmp_path / "search"), tuned.Scored).fit()
    assert not results.errors
    assert sorted(tuned.asked(results)) == sorted(expected)
    trials = tuned.by_trial(results)
    assert [trials[trial_id] for trial_id in running] == expected[6:10]
    assert tuned.saved(tmp_path) == {"algorithm": state, "running": {}, "lost": []}


def interrupt(folder: Path, *, concurrent: int) -> list[str]:
    """An evolution that ends in an error when all its running trials are of the second generation. Returns their ids."""
    expected, _ = tuned.undisturbed("evolution")
    folder.mkdir()
    tuned.hold(folder, expected[4:8])
    (folder / "fuse").touch()
    callback = tuned.Interruption(folder / "fuse", ended=4, running=concurrent, kill=False)
    searcher = TuneSearcher(tuned.algorithm("evolution"), metric="score")
    with pytest.raises(InterruptedError):
        tuned.tuner(folder, searcher, concurrent=concurrent, callbacks=[callback]).fit()
    return list(tuned.saved(folder)["running"])


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("concurrent", [1, 4])
def test_candidates_of_trials_that_are_not_resumed_are_asked_again(concurrent: int, tmp_path: Path) -> None:
    """Nothing runs after the restore, and the algorithm waits for what ran before it."""
    expected, state = tuned.undisturbed("evolution")
    folder = tmp_path / "run"
    running = interrupt(folder, concurrent=concurrent)
    results = tune.Tuner.restore(str(folder / "search"), tuned.Scored, resume_unfinished=False).fit()
    trials = tuned.by_trial(results)
    assert trials.keys().isdisjoint(running)
    assert sorted(trials.values()) == sorted(expected)
    assert tuned.saved(folder) == {"algorithm": state, "running": {}, "lost": []}


@pytest.mark.usefixtures("often")
def test_candidates_of_trials_that_tune_forgot_are_asked_again(tmp_path: Path) -> None:
    """The table of trials is older than the searcher's state: two of its trials stand in it, two do not."""
    expected, state = tuned.undisturbed("evolution")
    folder = tmp_path / "run"
    running = interrupt(folder, concurrent=4)
    table = max((folder / "search").glob("experiment_state-*.json"))
    content = json.loads(table.read_text())
    content["trial_data"] = [entry for entry in content["trial_data"] if json.loads(entry[0])["trial_id"] not in running[1:3]]
    table.write_text(json.dumps(content))
    results = tune.Tuner.restore(str(folder / "search"), tuned.Scored).fit()
    trials = tuned.by_trial(results)
    assert [trials.get(trial_id) for trial_id in running] == [expected[4], None, None, expected[7]]
    assert sorted(trials.values()) == sorted(expected)
    assert tuned.saved(folder) == {"algorithm": state, "running": {}, "lost": []}
