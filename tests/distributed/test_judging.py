"""Networks with weights of their own are scored once each by processes of the cluster, and timed where that is asked for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ray.cluster_utils import Cluster

from raysearch.distributed.evaluators import EvaluatorConfig
from raysearch.distributed.files import serve, share
from raysearch.distributed.judging import JudgingJob, judge
from raysearch.distributed.network_file import NetworkFile
from raysearch.distributed.training import write_weights
from raysearch.nodes import NodesConfig
from raysearch.scoring.latency import LatencyConfig, LatencyRule, device_name
from raysearch.search import Result
from raysearch.space import Cost
from raysearch.spaces import build_subnet
from raysearch.spaces.stock import STOCK, StockNetwork
from raysearch.tasks.images import DIGITS, ImageClassification


def test_a_network_of_timms_is_scored_and_timed(cluster: Cluster, tmp_path: Path) -> None:
    task, server = ImageClassification(DIGITS), serve()
    sizes = {"img_size": 8, "patch_size": 4, "in_chans": 1, "num_classes": 10, "embed_dim": 16, "depth": 1, "num_heads": 1}
    arch = StockNetwork("vit_tiny_patch16_224", json.dumps(sizes))
    network = build_subnet(STOCK, {}, arch.to_dict()).eval()
    write_weights(tmp_path / "network.safetensors", network.state_dict())
    items = task.splits().search.subset(range(40))
    task.write_cache(items, tmp_path / "images.arrow")
    here = LatencyRule(LatencyConfig(), device=device_name(torch.device("cpu")), max_ms=None)
    job = JudgingJob(
        network=NetworkFile(STOCK, {}, arch, share(tmp_path / "network.safetensors", server=server)),
        cost=Cost(1, 2),
        task=task,
        config=EvaluatorConfig(precision="float32", nodes=NodesConfig(most=0)),
        images={"search": share(tmp_path / "images.arrow", server=server)},
        latency=here,
    )
    elsewhere = replace(job, latency=replace(here, device="another processor"))
    found = judge({"here": job, "elsewhere": elsewhere, "not asked": replace(job, latency=None)})
    with torch.no_grad():
        (inputs,) = task.evaluation_inputs(items)
        right = float((network(inputs).argmax(1) == torch.tensor(items.labels)).float().mean())
    for judgement in found.values():
        outcome = judgement.outcomes["search"]
        assert isinstance(outcome, Result)
        assert outcome.score == pytest.approx(right)
    assert (found["elsewhere"].latency_ms, found["not asked"].latency_ms) == (None, None)
    milliseconds = found["here"].latency_ms
    assert milliseconds is not None
    assert milliseconds > 0
