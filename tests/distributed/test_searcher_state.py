"""What the searcher suggests, tells and saves, in whatever order trials end and wherever they are interrupted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
import toy
import tuned
from ray.tune.search import Searcher

from raysearch.distributed import TuneSearcher
from raysearch.search import NSGA2, Failure, NSGA2Config, RandomConfig, RandomSearch, Result, SearchProblem
from raysearch.space import Architecture
from raysearch.space.cost import Constraint

PROBLEM = SearchProblem(toy.SPACE, toy.cost, Constraint())


class Trials:
    """What Tune does with a searcher: it asks once, or until it has something to run, lets a trial end, and saves.

    Four trials run at a time, and chance says which of them ends next.
    """

    def __init__(self, name: str, folder: Path, chance: Random) -> None:
        self.searcher = TuneSearcher(tuned.algorithm(name), metric="score")
        self.searcher.set_max_concurrency(4)
        self.folder, self.chance = folder, chance
        self.running: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []

    def start(self) -> bool:
        """Start what can be started; whether the search goes on."""
        while True:
            trial_id = f"{self.chance.randrange(2**32):08x}"
            config = self.searcher.suggest(trial_id)
            if config is None or config == Searcher.FINISHED:
                return config is None
            self.running[trial_id] = config
            self.asked.append(config["id"])

    def end(self, trial_id: str) -> None:
        """End a trial with its score."""
        arch = toy.SPACE.architecture.from_dict(self.running.pop(trial_id)["arch"])
        self.searcher.on_trial_complete(trial_id, {"score": toy.toy_score(arch)})

    def save(self) -> None:
        """Save the table of trials, as far as a searcher reads it, and the searcher."""
        table = [[json.dumps({"trial_id": trial_id, "status": "RUNNING"}), "{}"] for trial_id in self.running]
        (self.folder / "experiment_state-1.json").write_text(json.dumps({"trial_data": table}))
        self.searcher.save(str(self.folder / "state"))

    def run(self, *, ends: int = 1000) -> None:
        """Until the search is over or so many trials have ended."""
        while self.start() and ends > 0:
            if self.running:
                self.end(self.chance.choice(sorted(self.running)))
                ends -= 1
                self.save()


@pytest.mark.parametrize("name", tuned.CONFIGS)
def test_the_order_in_which_trials_end_changes_nothing(name: str, tmp_path: Path) -> None:
    expected, state = tuned.undisturbed(name)
    for seed in range(5):
        trials = Trials(name, tmp_path, Random(seed))
        trials.run()
        assert trials.asked == expected
        assert trials.searcher.algorithm.state_dict() == state


@pytest.mark.parametrize("name", tuned.CONFIGS)
def test_restored_anywhere_it_goes_on_with_the_same_candidates(name: str, tmp_path: Path) -> None:
    """Some of the trials that ran are continued, the others are lost, even where one of those is heard of after all."""
    expected, state = tuned.undisturbed(name)
    for ends in range(13):
        chance = Random(ends)
        before = Trials(name, tmp_path, chance)
        before.run(ends=ends)
        before.save()

        after = Trials(name, tmp_path, chance)
        after.searcher.restore(str(tmp_path / "state"))
        lost = [trial_id for trial_id in before.running if chance.random() < 0.5]
        after.running = {trial_id: config for trial_id, config in before.running.items() if trial_id not in lost}
        after.run()
        for trial_id in lost:
            after.searcher.on_trial_complete(trial_id, {"score": 1000.0})
        assert sorted(after.asked) == sorted([*expected[len(before.asked) :], *(before.running[t]["id"] for t in lost)])
        assert after.searcher.algorithm.state_dict() == state


def test_candidates_that_wait_to_be_asked_again_survive_the_next_interruption(tmp_path: Path) -> None:
    expected, state = tuned.undisturbed("evolution")
    first = Trials("evolution", tmp_path, Random(0))
    first.start()
    first.save()
    second = Trials("evolution", tmp_path, Random(1))
    second.searcher.set_max_concurrency(1)
    second.searcher.restore(str(tmp_path / "state"))
    second.start()
    assert second.asked == []  # perhaps the four trials run
    second.start()
    assert second.asked == expected[:1]  # they do not, or else Tune would not have asked before it saved
    second.save()
    third = Trials("evolution", tmp_path, Random(2))
    third.searcher.restore(str(tmp_path / "state"))
    third.run()
    assert sorted(third.asked) == sorted(expected)
    assert third.searcher.algorithm.state_dict() == state


@pytest.mark.parametrize("content", ["", "{", "[]", '{"running": {}, "lost": []}', '{"running": {"a": {}}, "lost": []}'])
def test_a_file_that_is_no_state_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "state").write_text(content)
    with pytest.raises(ValueError, match="state is no state of this search") as refused:
        TuneSearcher(tuned.algorithm("random"), metric="score").restore(str(tmp_path / "state"))
    assert "\n" not in str(refused.value)


def test_the_state_of_another_search_is_refused(tmp_path: Path) -> None:
    TuneSearcher(tuned.algorithm("random"), metric="score").save(str(tmp_path / "state"))
    another = TuneSearcher(RandomSearch(PROBLEM, RandomConfig(8, 4), seed=1), metric="score")
    with pytest.raises(ValueError, match="the stored search has seed = 0, this one 1"):
        another.restore(str(tmp_path / "state"))


def test_a_trial_that_a_scheduler_stops_counts_with_its_last_result() -> None:
    """Of a paused one Tune repeats nothing; of one that never reported there is nothing to say."""
    searcher = TuneSearcher(tuned.algorithm("random"), metric="score")
    for trial_id in ("stopped", "silent"):
        searcher.suggest(trial_id)
    searcher.on_trial_result("stopped", {"score": 1.0})
    searcher.on_trial_result("stopped", {"score": 3.0})
    searcher.on_trial_complete("stopped")
    searcher.on_trial_complete("silent")
    told = [candidate[-1] for candidate in searcher.algorithm.state_dict()["candidates"]]
    assert told[0]["score"] == 3.0
    assert told[1] == {"reason": "the trial did not report score"}


def test_a_latency_that_trials_measure_is_an_objective() -> None:
    search = NSGA2(PROBLEM, NSGA2Config(population=2, generations=1, objectives=("score", "latency")), seed=0)
    searcher = TuneSearcher(search, metric="score", latency="ms")
    for trial_id, latency in (("one", 5.0), ("two", float("nan"))):
        searcher.suggest(trial_id)
        searcher.on_trial_complete(trial_id, {"score": 1, "ms": latency})
    one, two = (candidate[-1] for candidate in search.state_dict()["candidates"])
    assert one["latency_ms"] == 5.0
    assert two == {"reason": "the trial reported ms = nan"}


def test_a_configuration_and_an_outcome_of_ones_own() -> None:
    def read(arch: Architecture, result: dict[str, Any]) -> Result | Failure:
        cost = toy.cost(arch)  # pyright: ignore[reportArgumentType]
        return Result(result["right"] / 10, 10, cost.params, cost.macs, excluded="slow" if result["ms"] > 3 else None)

    searcher = TuneSearcher(tuned.algorithm("random"), outcome=read, config=lambda arch: {"net": arch.to_json()})
    expected, _ = tuned.undisturbed("random")
    for trial_id, arch_id, milliseconds in (("one", expected[0], 2.0), ("two", expected[1], 4.0)):
        config = searcher.suggest(trial_id)
        assert config.keys() == {"net"}
        assert toy.ToyArchitecture.from_json(config["net"]).id == arch_id
        searcher.on_trial_complete(trial_id, {"right": 7, "ms": milliseconds})
    told = [candidate[-1] for candidate in searcher.algorithm.state_dict()["candidates"]][:2]
    assert [(outcome["score"], outcome.get("excluded")) for outcome in told] == [(0.7, None), (0.7, "slow")]


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({}, 'give metric, the name of the reported score as metric="accuracy"'),
        ({"metric": "score", "outcome": print}, "give metric"),
        ({"metric": "score", "mode": "maximum"}, "mode is 'maximum'; give max or min"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        TuneSearcher(tuned.algorithm("random"), **settings)


def test_naming_the_searcher_neither_sets_how_tune_runs_nor_imports_pytorch() -> None:
    code = (
        "import os, sys; before = dict(os.environ); from raysearch.distributed import TuneSearcher;"
        "changed = {k for k in os.environ if k.startswith(('TUNE', 'RAY_')) and os.environ[k] != before.get(k)};"
        "sys.exit(str(changed) if changed else 'torch' in sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TUNE")}
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
