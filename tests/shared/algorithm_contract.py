"""The suite that every search algorithm passes. Inherit it and say how the algorithm is made."""

import importlib
import json
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest
from toy_space import Toy, drive, large_problem, noise, result, small_problem, toy_cost, toy_score, toy_space

from raysearch.search import (
    Failure,
    InfeasibleError,
    RandomConfig,
    RandomSearch,
    Result,
    SearchAlgorithm,
    SearchProblem,
)
from raysearch.space.cost import Constraint

BAND = Constraint(min_params=18_000, max_params=45_000)
"""Holds about half of the large problem's space."""


def ids_of_a_whole_search(module: str, suite: str) -> list[str]:
    """What a suite's algorithm asks; called in a fresh process."""
    contract = getattr(importlib.import_module(module), suite)()
    return [arch.id for arch in drive(contract.make(large_problem(BAND), seed=3))]


class SearchAlgorithmContract:
    """Inherited as ``class TestMine(SearchAlgorithmContract)``."""

    optimum_within = 300
    """So many candidates find the best of 648 members, whatever the seed."""

    def make(
        self,
        problem: SearchProblem[Toy],
        *,
        seed: int,
        candidates: int = 120,
        initial: Sequence[Toy] = (),
    ) -> SearchAlgorithm:
        """An algorithm that asks ``candidates`` candidates and lets 8 to 20 be scored at once."""
        raise NotImplementedError

    def test_same_seed_same_candidates(self):
        asked = drive(self.make(large_problem(BAND), seed=3))
        assert asked == drive(self.make(large_problem(BAND), seed=3))
        assert asked != drive(self.make(large_problem(BAND), seed=4))

    def test_a_fresh_process_asks_the_same(self):
        code = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); import algorithm_contract as c; "
        code += "print(json.dumps(c.ids_of_a_whole_search(sys.argv[2], sys.argv[3])))"
        command = [sys.executable, "-c", code, json.dumps(sys.path), type(self).__module__, type(self).__name__]
        hash_seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
        done = subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": hash_seed}, check=True, capture_output=True)
        assert json.loads(done.stdout) == [arch.id for arch in drive(self.make(large_problem(BAND), seed=3))]

    def test_global_chance_is_neither_used_nor_moved(self):
        random.seed(1)
        before = random.getstate()
        asked = drive(self.make(large_problem(BAND), seed=3))
        assert random.getstate() == before
        random.seed(2)
        assert asked == drive(self.make(large_problem(BAND), seed=3))

    @pytest.mark.parametrize("evaluators", [2, 4, 50])
    def test_neither_evaluators_nor_order_of_completion_change_the_candidates(self, evaluators: int):
        alone = drive(self.make(large_problem(BAND), seed=3))
        many = drive(self.make(large_problem(BAND), seed=3), evaluators=evaluators, completion=Random(evaluators))
        assert alone == many

    def test_evaluators_find_work(self):
        algorithm = self.make(large_problem(BAND), seed=3)
        assert all(algorithm.ask() is not None for _ in range(8))

    @pytest.mark.parametrize("before", [0, 1, 17, 61, 119])
    def test_restored_state_continues_identically(self, before: int):
        whole = drive(self.make(large_problem(BAND), seed=3))
        first = self.make(large_problem(BAND), seed=3)
        assert drive(first, stop_after=before) == whole[:before]
        awaited = [arch for _ in range(3) if (arch := first.ask()) is not None]  # asked, not told: the killed driver's work
        for arch in awaited[1:]:
            first.tell(arch, result(arch))
        second = self.make(large_problem(BAND), seed=3)
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert second.state_dict() == first.state_dict()
        assert second.finished == first.finished
        assert second.threshold == first.threshold
        for arch in awaited[:1]:
            assert second.proposal(arch) == first.proposal(arch)
            second.tell(arch, result(arch))
        assert [*whole[:before], *awaited, *drive(second)] == whole
        assert second.finished

    def test_state_of_another_search_is_refused(self):
        state = self.make(large_problem(BAND), seed=3).state_dict()
        with pytest.raises(ValueError, match="seed = 3, this one 4"):
            self.make(large_problem(BAND), seed=4).load_state_dict(state)
        with pytest.raises(ValueError, match="constraint"):
            self.make(large_problem(), seed=3).load_state_dict(state)
        with pytest.raises(ValueError, match="space"):
            self.make(small_problem(), seed=3).load_state_dict(self.make(large_problem(), seed=3).state_dict())

    def test_candidates_are_new_members_of_the_band_and_know_their_origin(self):
        algorithm, problem = self.make(large_problem(BAND), seed=5), large_problem(BAND)
        asked = drive(algorithm)
        assert len(asked) == len(set(asked)) == algorithm.total == 120
        assert all(problem.space.contains(arch) and 18_000 <= toy_cost(arch).params <= 45_000 for arch in asked)
        proposals = [algorithm.proposal(arch) for arch in asked]
        assert [p.index for p in proposals] == list(range(120))
        assert [p.generation for p in proposals] == sorted(p.generation for p in proposals)
        earlier = {p.arch.id: p.generation for p in proposals}
        assert all(earlier[parent] < p.generation for p in proposals for parent in p.parents)

    def test_failures_are_candidates_too(self):
        def outcome(arch: Toy):
            return Failure("out of memory") if noise(arch) < 0.4 else result(arch)

        for broken in (outcome, lambda arch: Failure("always")):
            algorithm = self.make(large_problem(BAND), seed=3)
            asked = drive(algorithm, broken)
            assert len(set(asked)) == len(asked) == 120
            assert algorithm.finished
            assert algorithm.ask() is None

    def test_excluded_candidates_have_no_offspring(self):
        def outcome(arch: Toy) -> Result:
            return (
                replace(result(arch), excluded="raced" if noise(arch) < 0.3 else "slow") if noise(arch) < 0.6 else result(arch)
            )

        algorithm = self.make(large_problem(BAND), seed=3)
        asked = drive(algorithm, outcome)
        assert len(set(asked)) == len(asked) == 120
        excluded = {arch.id for arch in asked if outcome(arch).excluded}
        assert excluded.isdisjoint(parent for arch in asked for parent in algorithm.proposal(arch).parents)

    def test_threshold_is_a_candidate_that_competes(self):
        def outcome(arch: Toy) -> Result | Failure:
            draw = noise(arch)
            return Failure("lost") if draw < 0.1 else replace(result(arch), excluded="raced" if draw < 0.3 else None)

        algorithm = self.make(large_problem(BAND), seed=3)
        assert algorithm.threshold is None
        told: set[Toy] = set()
        while (arch := algorithm.ask()) is not None:
            assert isinstance(arch, Toy)
            threshold = algorithm.threshold
            assert threshold is None or (threshold in told and outcome(threshold) == result(threshold))
            told.add(arch)
            algorithm.tell(arch, outcome(arch))
        assert len(told) == 120

    def test_errors_are_judged_as_their_negatives(self):
        """Scores below zero are scores: a shift of all of them changes no candidate."""
        shares = drive(self.make(large_problem(BAND), seed=3))
        errors = drive(self.make(large_problem(BAND), seed=3), lambda arch: result(arch, toy_score(arch) - 4))
        assert shares == errors

    def test_initial_architectures_open_the_search(self):
        problem = large_problem(BAND)
        given = drive(RandomSearch(problem, RandomConfig(3, 3), seed=9))
        algorithm = self.make(problem, seed=0, initial=[*given, given[0]])
        asked = drive(algorithm)
        assert asked[:3] == given
        assert [algorithm.proposal(arch).origin for arch in asked[:5]] == ["seed"] * 3 + ["random"] * 2
        assert len(set(asked)) == len(asked) == 120
        with pytest.raises(ValueError, match="initial"):
            self.make(problem, seed=0).load_state_dict(algorithm.state_dict())
        with pytest.raises(ValueError, match="not in the space"):
            self.make(problem, seed=0, initial=[Toy(17, (1,) * 6, (2,) * 6)])
        with pytest.raises(ValueError, match=r"not within 18,000 <= params <= 45,000"):
            self.make(problem, seed=0, initial=[problem.space.largest()])
        many = drive(RandomSearch(problem, RandomConfig(60, 60), seed=9))
        with pytest.raises(ValueError, match="60 initial architectures, but a generation holds"):
            self.make(problem, seed=0, initial=many)

    def test_the_known_optimum_is_found(self):
        problem = SearchProblem(toy_space(3, ratios=(2, 4)), toy_cost, Constraint())
        best = max(map(toy_score, problem.space))
        for seed in range(2):
            assert best in map(toy_score, drive(self.make(problem, seed=seed, candidates=self.optimum_within)))

    @pytest.mark.parametrize("constraint", [Constraint(), Constraint(max_params=5_000), Constraint(max_params=1_696)])
    def test_small_space_is_asked_whole_and_ends(self, constraint: Constraint):
        problem = small_problem(constraint)
        members = {arch for arch in problem.space if constraint.admits(toy_cost(arch))}
        algorithm = self.make(problem, seed=0)
        asked = drive(algorithm, evaluators=3)
        assert len(asked) == len(members)
        assert set(asked) == members
        assert algorithm.finished
        assert algorithm.ask() is None

    def test_finds_at_least_what_random_search_finds(self):
        def best(algorithm: SearchAlgorithm) -> float:
            return max(toy_score(arch) for arch in drive(algorithm))

        mine = [best(self.make(large_problem(), seed=seed, candidates=300)) for seed in range(3)]
        chance = [best(RandomSearch(large_problem(), RandomConfig(300, 20), seed=seed)) for seed in range(3)]
        assert statistics.mean(mine) >= statistics.mean(chance)

    def test_only_awaited_outcomes_are_taken(self):
        algorithm = self.make(large_problem(BAND), seed=3)
        second = drive(self.make(large_problem(BAND), seed=3), stop_after=2)[1]
        first = algorithm.ask()
        assert isinstance(first, Toy)
        for stranger in (second, large_problem().space.largest()):  # one is planned but not asked yet
            with pytest.raises(ValueError, match="never asked"):
                algorithm.tell(stranger, result(stranger))
            with pytest.raises(KeyError):
                algorithm.proposal(stranger)
        with pytest.raises(ValueError, match="score nan"):
            algorithm.tell(first, result(first, score=float("nan")))
        algorithm.tell(first, result(first))
        with pytest.raises(ValueError, match="told before"):
            algorithm.tell(first, result(first))

    def test_infeasible_band_raises_before_anything_is_asked(self):
        with pytest.raises(InfeasibleError, match="it offers 1,696 to 20,800 params"):
            self.make(small_problem(Constraint(max_params=1_000)), seed=0)

    def test_work_per_candidate_does_not_grow(self):
        """Function calls from one result to the next candidate, at the start and after a history of 500."""
        algorithm = self.make(large_problem(), seed=3, candidates=600)
        calls: list[int] = []

        def count(*_: object) -> None:
            calls[-1] += 1

        asked: list[Toy] = []
        while not algorithm.finished:
            calls.append(0)
            sys.setprofile(count)
            arch = algorithm.ask()
            sys.setprofile(None)
            assert isinstance(arch, Toy)
            asked.append(arch)
            outcome = result(arch, score=noise(arch))  # no structure: the search does not converge to what it has seen
            sys.setprofile(count)
            algorithm.tell(arch, outcome)
            sys.setprofile(None)
        assert len(asked) == 600
        assert sum(calls[-100:]) < 1.5 * sum(calls[100:200])
