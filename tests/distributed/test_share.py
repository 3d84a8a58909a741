"""How many processes a cluster's configuration allows, and what follows when no node comes."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import ray
import yaml
from ray.cluster_utils import Cluster

from raysearch.distributed.evaluators import EvaluatorConfig, Pool
from raysearch.distributed.growth import Share, growth_of, instead
from raysearch.distributed.room import EVERY, FIRST, Need, NoNodeError, Waiting, check_room
from raysearch.errors import UserError
from raysearch.nodes import NodesConfig
from raysearch.recipes.autoformer import DIGITS_RECIPE, IMAGENET_TINY, IMAGES_RECIPE

HEAD = {"CPU": 4.0}
GPU_YAML = yaml.safe_load((Path(__file__).parents[2] / "cluster" / "gpu.yaml").read_text())


def share(work: str = "evaluation", config: NodesConfig | None = None, **settings: object) -> Share:
    """Of a cluster that has a head alone and may grow as cluster/gpu.yaml says."""
    growth = growth_of(GPU_YAML)
    made = Share(work, config or NodesConfig(), (HEAD,), (HEAD,), growth, work, accelerated=True)  # pyright: ignore[reportArgumentType]
    return replace(made, **settings)


def test_a_search_wants_what_the_configuration_allows_and_less_where_less_is_asked_for() -> None:
    evaluation, training = share(), share("training")
    asks = evaluation.asks()
    assert asks == {"GPU": 1.0, "evaluation": 1}
    assert evaluation.wanted(asks, given=None) == 6
    assert training.wanted(training.asks(), given=None) == 8  # one node of eight
    assert evaluation.wanted(asks, given=2) == 2
    assert evaluation.wanted(asks, given=100) == 6
    few = share(config=NodesConfig(most=2))
    assert few.wanted(asks, given=None) == 2
    assert few.wanted(asks, given=4) == 4  # a number that was given stands
    node = {"CPU": 8.0, "GPU": 1.0, "evaluation": 1.0}
    there = share(config=NodesConfig(most=2), present=(HEAD, *4 * [node]))
    assert there.wanted(asks, given=None) == 4  # what is there is used
    assert evaluation.wanted({"GPU": 1.0, "evaluation": 1, "TPU": 1.0}, given=None) == 1


def test_nodes_of_all_types_together_are_no_more_than_the_cluster_s_limit() -> None:
    growth = growth_of({**GPU_YAML, "max_workers": 4})
    assert share(growth=growth).ever({"GPU": 1.0}) == 8 + 3
    assert share(growth=growth).ever({"GPU": 1.0, "evaluation": 1.0}) == 4


def test_nodes_without_gpus_may_be_kept_for_evaluation() -> None:
    types = {"cpu_eval": {"resources": {"CPU": 8, "evaluation": 8}, "max_workers": 3}, "head": {"resources": HEAD}}
    growth = growth_of({"max_workers": 3, "head_node_type": "head", "available_node_types": types})
    kept = share(growth=growth, accelerated=False)
    assert kept.asks(cpus=2.0) == {"CPU": 2.0, "evaluation": 1}
    assert kept.wanted(kept.asks(cpus=2.0), given=None) == 12


def test_where_the_configuration_cannot_be_read_the_number_must_be_given() -> None:
    said = share(growth=None, config=NodesConfig(offer="kept-gpu"))
    need = said.need("evaluator", said.asks())
    assert said.wanted(need.resources, given=6) == 6
    assert need.comes
    with pytest.raises(UserError, match=r"evaluators\.nodes\.offer .* give --evaluators\.max-evaluators, a number"):
        said.wanted(need.resources, given=None)


def test_small_recipes_ask_for_no_gpu_nodes_and_published_ones_for_all() -> None:
    assert [DIGITS_RECIPE.train.nodes.most, DIGITS_RECIPE.evaluators.nodes.most] == [0, 0]
    assert [IMAGES_RECIPE.train.nodes.most, IMAGES_RECIPE.evaluators.nodes.most] == [1, 2]
    assert [IMAGENET_TINY.train.nodes.most, IMAGENET_TINY.evaluators.nodes.most] == [None, None]


def test_nodes_that_are_asked_for_are_waited_for_with_words_and_an_end(cluster: Cluster) -> None:
    times, said = [0.0], list[str]()
    need = Need("evaluator", {"GPU": 1.0, "evaluation": 1.0}, "", comes=True, wait=100)
    check_room(need)  # none has one, but some may come
    waiting = Waiting(need, said.append, clock=lambda: times[-1])
    for seconds in (0, FIRST, 40, FIRST + EVERY, 99):
        times.append(seconds)
        waiting.look(6, of=6)
    line = "0 of 6 evaluators: waiting for GPU nodes"
    assert said == [f"{line} (asked 5 s ago)", f"{line} (asked 65 s ago)"]
    times.append(99.5)
    waiting.look(5, of=6)
    times.append(150)
    waiting.look(6, of=6)  # that one was lost
    times.append(249)
    waiting.look(6, of=6)
    times.append(250)
    with pytest.raises(
        NoNodeError, match=r"no GPU node came within 100 s for evaluators: .*nodes\.wait.*--resume continues"
    ) as e:
        waiting.look(6, of=6)
    with pytest.raises(NoNodeError):
        instead(NodesConfig(otherwise="end"), e.value, said.append)
    assert instead(NodesConfig(otherwise="present"), e.value, said.append) == NodesConfig(otherwise="present", most=0)
    assert said[-1].startswith("no GPU node came within 100 s for evaluators: going on with the nodes that are there")


def test_an_evaluator_that_no_node_comes_for_is_started_on_the_nodes_that_are_there(cluster: Cluster, tmp_path: Path) -> None:
    nodes = NodesConfig(offer="gpu", wait=FIRST, otherwise="present")
    config = EvaluatorConfig(max_evaluators=1, nodes=nodes)
    pool = ray.remote(num_cpus=0)(Pool).remote(object, config, tmp_path / "journal", "w")
    ray.get(pool.wait_for.remote(1))
    lines: list[str] = ray.get(pool.news.remote(0))
    assert [re.sub(r"\d+ s", "N s", line) for line in lines] == [
        "no GPU node came within N s for evaluators: going on with the nodes that are there, as nodes.otherwise says"
    ]
    ray.kill(pool)
