import itertools
import math
import statistics
from collections import Counter
from collections.abc import Sequence

import pytest
from algorithm_contract import BAND, SearchAlgorithmContract
from toy_space import Toy, drive, large_problem, noise, result, small_problem, toy_cost, toy_score

from raysearch.search import Evolution, EvolutionConfig, Failure, RandomConfig, RandomSearch, Result, SearchProblem


class TestEvolution(SearchAlgorithmContract):
    def make(
        self,
        problem: SearchProblem[Toy],
        *,
        seed: int,
        candidates: int = 120,
        initial: Sequence[Toy] = (),
    ) -> Evolution[Toy]:
        config = EvolutionConfig(
            population=20, generations=math.ceil(candidates / 20), parents=5, mutations=10, crossovers=6, max_tries=20
        )
        return Evolution(problem, config, seed=seed, initial=initial)


def generations(evolution: Evolution[Toy], asked: list[Toy]) -> list[list[Toy]]:
    by_generation = itertools.groupby(asked, key=lambda arch: evolution.proposal(arch).generation)
    return [list(members) for _, members in by_generation]


def origins(evolution: Evolution[Toy], members: list[Toy]) -> Counter[str]:
    return Counter(evolution.proposal(arch).origin for arch in members)


def test_published_generations():
    evolution = Evolution(large_problem(BAND), seed=0)
    asked = drive(evolution, lambda arch: result(arch, score=noise(arch)))
    per_generation = [origins(evolution, members) for members in generations(evolution, asked)]
    assert per_generation[0] == {"random": 50}
    assert per_generation[1:] == [{"mutation": 25, "crossover": 25}] * 19
    assert len(asked) == evolution.total == 1000


def test_random_candidates_take_the_places_left():
    evolution = Evolution(large_problem(), EvolutionConfig(20, 4, parents=5, mutations=8, crossovers=5), seed=0)
    per_generation = [origins(evolution, members) for members in generations(evolution, drive(evolution))]
    assert per_generation[1:] == [{"mutation": 8, "crossover": 5, "random": 7}] * 3


def test_parents_are_the_ten_best_ever_ranked_by_score_loss_and_size():
    def outcome(arch: Toy) -> Result | Failure:
        # Coarse scores and losses: every tie-break decides.
        draw = noise(arch)
        return Failure("lost") if draw < 0.1 else result(arch, round(draw * 4) / 4, loss=round(draw * 40) % 3)

    evolution = Evolution(large_problem(BAND), EvolutionConfig(generations=6), seed=1)
    asked = drive(evolution, outcome)

    def best_of(members: list[Toy]) -> list[Toy]:
        scored = [(arch, told) for arch in members if isinstance(told := outcome(arch), Result)]
        key = {arch: (-told.score, told.loss, told.params, asked.index(arch)) for arch, told in scored}
        return sorted(key, key=key.__getitem__)[:10]

    seen: list[Toy] = []
    for members in generations(evolution, asked):
        used = {parent for arch in members for parent in evolution.proposal(arch).parents}
        assert used <= {arch.id for arch in best_of(seen)}
        assert not seen or len(used) >= 8
        seen += members
    assert list(evolution.parents) == best_of(asked), "the last generation is ranked too"


def values(arch: Toy) -> list[tuple[float, float]]:
    return list(zip(arch.num_heads, arch.mlp_ratio, strict=True))


@pytest.mark.parametrize(("rates", "whole", "block"), [("code", 0.4, 0.2), ("paper", 0.2, 0.4)])
def test_mutants_differ_from_their_parent_at_the_published_rates(rates: str, whole: float, block: float):
    config = EvolutionConfig(population=500, generations=5, mutations=500, crossovers=0, rates=rates)
    evolution = Evolution(large_problem(), config, seed=2)
    asked = drive(evolution, lambda arch: result(arch, score=noise(arch)))
    by_id = {arch.id: arch for arch in asked}
    changed, expected, variance = Counter[str](), Counter[str](), Counter[str]()
    for child in asked[500:]:
        proposal = evolution.proposal(child)
        assert proposal.origin == "mutation"
        parent = by_id[proposal.parents[0]]
        # A redraw returns one of three options. A mutant equal to its parent is not new and never asked.
        new = 1 - (1 - whole * 2 / 3) ** 2 * (1 - block * 2 / 3) ** (2 * parent.depth)
        observed = {"depth": [child.depth != parent.depth], "embed_dim": [child.embed_dim != parent.embed_dim]}
        if child.depth >= parent.depth:
            pairs = list(zip(values(parent), values(child), strict=False))
            observed["num_heads"] = [a[0] != b[0] for a, b in pairs]
            observed["mlp_ratio"] = [a[1] != b[1] for a, b in pairs]
        for name, differs in observed.items():
            p = (whole if name in ("depth", "embed_dim") else block) * 2 / 3
            if name in ("depth", "embed_dim"):
                p /= new
            elif child.depth == parent.depth:
                same_depth = 1 - (1 - whole * 2 / 3) * (1 - block * 2 / 3) ** (2 * parent.depth)
                p /= same_depth
            changed[name] += sum(differs)
            expected[name] += p * len(differs)
            variance[name] += p * (1 - p) * len(differs)
    assert set(changed) == {"depth", "embed_dim", "num_heads", "mlp_ratio"}
    for name in changed:
        assert abs(changed[name] - expected[name]) < 4 * math.sqrt(variance[name]), name


def test_children_of_crossover_hold_values_of_two_parents_of_equal_depth():
    evolution = Evolution(large_problem(BAND), EvolutionConfig(generations=8, mutations=0, crossovers=40), seed=3)
    asked = drive(evolution, lambda arch: result(arch, score=noise(arch)))
    by_id = {arch.id: arch for arch in asked}
    children = [arch for arch in asked if evolution.proposal(arch).origin == "crossover"]
    assert len(children) > 200
    for child in children:
        one, two = (by_id[parent] for parent in evolution.proposal(child).parents)
        assert one.depth == two.depth == child.depth
        assert child.embed_dim in (one.embed_dim, two.embed_dim)
        assert all(h in heads for h, *heads in zip(child.num_heads, one.num_heads, two.num_heads, strict=True))
        assert all(r in ratios for r, *ratios in zip(child.mlp_ratio, one.mlp_ratio, two.mlp_ratio, strict=True))


def test_finds_the_known_optimum_that_random_search_misses():
    config = EvolutionConfig(generations=12)
    evolved = [drive(Evolution(large_problem(), config, seed=seed)) for seed in range(3)]
    drawn = [drive(RandomSearch(large_problem(), RandomConfig(600, 50), seed=seed)) for seed in range(3)]
    best = [max(map(toy_score, asked)) for asked in evolved]
    assert statistics.median(best) == 1
    assert min(best) > max(max(map(toy_score, asked)) for asked in drawn)


def test_results_decide_the_next_generation_only():
    first, second = (Evolution(large_problem(), EvolutionConfig(generations=3), seed=4) for _ in range(2))
    one, two = drive(first), drive(second, lambda arch: result(arch, score=noise(arch)))
    assert one[:50] == two[:50]
    assert one[50:100] != two[50:100]


def test_a_lone_parent_has_mutants_only():
    evolution = Evolution(large_problem(), EvolutionConfig(20, 3, parents=1, mutations=10, crossovers=10), seed=0)
    asked = drive(evolution)
    assert origins(evolution, asked[20:40]) == {"mutation": 10, "random": 10}
    assert max(asked, key=lambda arch: (toy_score(arch), -toy_cost(arch).params)) == evolution.parents[0]


def test_parents_of_unequal_depth_are_paired_when_no_two_agree():
    problem = small_problem()
    wanted = {Toy(16, (1,), (2,)), Toy(32, (2, 2), (4, 4))}
    evolution = Evolution(problem, EvolutionConfig(10, 2, parents=2, mutations=0, crossovers=5), seed=0, initial=tuple(wanted))
    asked = drive(evolution, lambda arch: result(arch, score=float(arch in wanted)))
    assert origins(evolution, asked[10:])["crossover"] == 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"population": 0}, "population is 0"),
        ({"generations": 0}, "generations is 0"),
        ({"crossovers": -1}, "crossovers is -1"),
        ({"population": 40, "mutations": 30}, "30 mutations and 20 crossovers do not fit into a population of 40"),
    ],
)
def test_settings_that_make_no_search_are_refused(settings: dict[str, int], message: str):
    with pytest.raises(ValueError, match=message):
        EvolutionConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "shares"), [({}, (25, 25)), ({"population": 25}, (12, 13)), ({"population": 8, "crossovers": 2}, (4, 2))]
)
def test_mutations_and_crossovers_follow_the_population_unless_given(settings: dict[str, int], shares: tuple[int, int]):
    assert EvolutionConfig(**settings).shares == shares
