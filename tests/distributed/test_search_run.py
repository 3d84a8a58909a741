"""The search's machinery on a real cluster: Tune, the pool, its evaluators, and their deaths."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import idle_cluster
import numpy as np
import psutil
import pytest
import ray
import torch
import toy
from ray.cluster_utils import Cluster
from ray.exceptions import RayActorError, RayTaskError
from torch import Tensor, nn

from raysearch.distributed.deadline import DeadlineConfig
from raysearch.distributed.evaluators import EvaluatorConfig, check_evaluators
from raysearch.distributed.files import NodeFile, local_path, node_folder, serve, share
from raysearch.distributed.losses import LOST_STARTS, ended_by_itself, node_of
from raysearch.distributed.restarts import RESTARTS, Restarts
from raysearch.distributed.scoring import ScoringService
from raysearch.distributed.search_run import SEARCH_SPLIT, ScoringError, SearchRun, run_search
from raysearch.errors import UserError
from raysearch.scoring.score import score
from raysearch.search import Candidate, Failure, Informative, InformativeConfig, Part, RacingConfig, Result
from raysearch.space import Architecture
from raysearch.store.predictions import Predictions
from raysearch.tasks.images import DIGITS, ArrayImages, Normalisation, open_cache, write_cache
from raysearch.tasks.images.classification import ImageClassification
from raysearch.tasks.images.device import DeviceImages


@pytest.fixture(scope="session", autouse=True)
def _toy_travels(cluster: Cluster) -> None:
    """Workers cannot import the tests' modules: what is defined there travels by value."""
    for module in (toy, idle_cluster, sys.modules[__name__]):
        ray.cloudpickle.register_pickle_by_value(module)


class Rendezvous:
    """Lets callers of a round go on when all have arrived."""

    def __init__(self, parties: int) -> None:
        import asyncio

        self.parties, self.arrived, self.opened = parties, dict[int, int](), dict[int, asyncio.Event]()

    async def meet(self, round_number: int) -> None:
        import asyncio

        event = self.opened.setdefault(round_number, asyncio.Event())
        self.arrived[round_number] = self.arrived.get(round_number, 0) + 1
        if self.arrived[round_number] == self.parties:
            event.set()
        await event.wait()


@pytest.fixture
def images(cluster: Cluster, tmp_path: Path) -> NodeFile:
    path = tmp_path / "images"
    path.write_bytes(b"pixels")
    return share(path, server=serve())


def _service(
    make_scorer: object,
    config: EvaluatorConfig,
    folder: Path,
    images: NodeFile,
    say: Callable[[str], None] = lambda line: None,
) -> ScoringService:
    service = ScoringService(
        make_scorer,  # pyright: ignore[reportArgumentType]
        config,
        name=f"pool-{folder.name}",
        journal=folder / "journal.jsonl",
        weights="w",
        say=say,
    )
    service.add_images(SEARCH_SPLIT, images)
    return service


def _search(
    service: ScoringService,
    *,
    seed: int = 0,
    racing: RacingConfig | None = None,
    informative: Informative | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[Candidate]:
    run = SearchRun(
        toy.evolution(seed=seed),
        cost=toy.cost,
        known=service.known(SEARCH_SPLIT),
        on_candidate=lambda candidate: None,
        racing=racing,
        informative=informative,
    )
    run_search(run, service, say=say)
    return run.candidates


def _expected(seed: int = 0) -> list[str]:
    """The same search without Ray."""
    algorithm, told = toy.evolution(seed=seed), list[str]()
    while not algorithm.finished:
        batch = []
        while (arch := algorithm.ask()) is not None:
            batch.append(arch)
        for arch in batch:
            algorithm.tell(arch, Result(toy.toy_score(arch), 1, toy.cost(arch).params, toy.cost(arch).macs))
            told.append(arch.id)
    return told


@pytest.mark.parametrize("evaluators", [1, 2, 4])
def test_all_evaluators_work_at_once_in_every_generation_and_change_nothing(
    evaluators: int, tmp_path: Path, images: NodeFile
) -> None:
    """Each round of scores waits until every evaluator takes part in it: with one of them idle it would never end."""
    rendezvous = ray.remote(num_cpus=0)(Rendezvous).remote(evaluators)
    counts = tmp_path / "counts"
    counts.mkdir()
    scorer = partial(toy.CountingScorer, counts, together=evaluators, rendezvous=rendezvous)
    with _service(scorer, EvaluatorConfig(cpus=2 / evaluators), tmp_path, images) as service:
        candidates = _search(service)

    assert [c.proposal.arch.id for c in candidates] == _expected()
    by_process = toy.counted(counts)
    assert len(by_process) == evaluators
    assert {len(scored) for scored in by_process.values()} == {24 // evaluators}
    ray.kill(rendezvous)


class DyingScorer:
    """Ends its process in the middle of the first score after the fifth, once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def score(self, arch: Architecture, images: NodeFile, part: Part | None = None) -> Result | Failure:
        done = sum(len(scored) for scored in toy.counted(self.folder / "counts").values())
        fuse = self.folder / "fuse"
        if done >= 5 and fuse.exists():
            fuse.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return toy.CountingScorer(self.folder / "counts", together=1, rendezvous=None).score(arch, images)


def test_a_killed_evaluator_costs_nothing_but_its_candidates_second_scoring(tmp_path: Path, images: NodeFile) -> None:
    (tmp_path / "counts").mkdir()
    (tmp_path / "fuse").touch()
    with _service(partial(DyingScorer, tmp_path), EvaluatorConfig(), tmp_path, images) as service:
        candidates = _search(service)

    assert not (tmp_path / "fuse").exists()
    assert [c.proposal.arch.id for c in candidates] == _expected()
    assert all(c.result is not None for c in candidates)
    scored = [arch_id for ids in toy.counted(tmp_path / "counts").values() for arch_id in ids]
    assert sorted(scored) == sorted(_expected())


class DeadlyScorer:
    """One candidate ends every evaluator that touches it, one never lets it go, and one only the first."""

    def __init__(self, folder: Path, deadly: str, endless: str, slow: str) -> None:
        self.folder, self.deadly, self.endless, self.slow = folder, deadly, endless, slow

    def score(self, arch: Architecture, images: NodeFile, part: Part | None = None) -> Result | Failure:
        if arch.id == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        if arch.id == self.endless or (arch.id == self.slow and not (self.folder / "hung").exists()):
            (self.folder / ("hung" if arch.id == self.slow else "endless")).touch()
            threading.Event().wait()
        assert isinstance(arch, toy.ToyArchitecture)
        return Result(toy.toy_score(arch), 1, toy.cost(arch).params, toy.cost(arch).macs)


def test_candidates_that_end_or_hold_every_evaluator_are_recorded_as_failed(tmp_path: Path, images: NodeFile) -> None:
    deadly, endless, slow = _expected()[3:6]
    said: list[str] = []
    config = EvaluatorConfig(deadline=DeadlineConfig(minutes=0.05))
    scorer = partial(DeadlyScorer, tmp_path, deadly, endless, slow)
    with _service(scorer, config, tmp_path, images, say=said.append) as service:
        candidates = _search(service)

    assert len(candidates) == 24
    reasons = {c.proposal.arch.id: c.outcome.reason for c in candidates if isinstance(c.outcome, Failure)}
    assert reasons == {
        deadly: "3 evaluators were lost while scoring it",
        endless: "2 evaluators hung while scoring it",
    }
    assert (tmp_path / "hung").exists()
    for arch_id, times in ((endless, 2), (slow, 1)):
        told = f"an evaluator was lost and is replaced: it hung over {arch_id} for .* s, where the median is .* s"
        assert len([line for line in said if re.fullmatch(told, line)]) == times


class FatalScorer:
    """Ends its process while it is built, as one that runs out of memory."""

    def __init__(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def test_evaluators_that_end_while_loading_end_the_search(tmp_path: Path, images: NodeFile) -> None:
    with (
        _service(FatalScorer, EvaluatorConfig(), tmp_path, images) as service,
        pytest.raises(UserError, match=r"8 evaluators were lost while they loaded the supernet.*--evaluators\.max-evaluators"),
    ):
        _search(service)


class CrowdedScorer:
    """Has room in one process: any other ends while it is built. The one scores as soon as so many others have ended."""

    def __init__(self, folder: Path, others: int) -> None:
        self.folder, self.others = folder, others
        try:
            (folder / "first").touch(exist_ok=False)
        except FileExistsError:
            (folder / f"ended{os.getpid()}").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def score(self, arch: Architecture, images: NodeFile, part: Part | None = None) -> Result | Failure:
        pulse = threading.Event()
        while len(list(self.folder.glob("ended*"))) < self.others:
            pulse.wait(0.05)
        assert isinstance(arch, toy.ToyArchitecture)
        return Result(toy.toy_score(arch), 1, toy.cost(arch).params, toy.cost(arch).macs)


def test_evaluators_that_end_while_loading_end_no_search_that_another_goes_on_with(tmp_path: Path, images: NodeFile) -> None:
    said: list[str] = []
    scorer = partial(CrowdedScorer, tmp_path, LOST_STARTS)
    with _service(scorer, EvaluatorConfig(), tmp_path, images, say=said.append) as service:
        candidates = _search(service)
    assert [c.proposal.arch.id for c in candidates] == _expected()
    told = r"8 evaluators were lost while they loaded the supernet, within .* goes on with the 1 that work; .* wait for 10 min"
    assert len([line for line in said if re.fullmatch(told, line)]) == 1


class Loading:
    """An actor that is never built to its end, or never does what it is asked."""

    def __init__(self, begun: Path, *, built: bool) -> None:
        self.begun = begun
        if not built:
            self.load()

    def load(self) -> None:
        self.begun.write_text(str(os.getpid()))
        threading.Event().wait()


def test_actors_that_a_node_takes_along_are_told_from_those_that_end_by_themselves(cluster: Cluster, tmp_path: Path) -> None:
    node = cluster.add_node(resources={"lost": 2})
    begun = [tmp_path / name for name in ("starting", "loading", "lone")]
    actor = ray.remote(num_cpus=0)(Loading)
    on_node = actor.options(resources={"lost": 1})
    actors = [on_node.remote(begun[0], built=False), on_node.remote(begun[1], built=True), actor.remote(begun[2], built=True)]
    asked = [each.load.remote() for each in actors]
    pulse = threading.Event()
    while not all(path.exists() and path.read_text() for path in begun):
        pulse.wait(0.05)

    os.kill(int(begun[2].read_text()), signal.SIGKILL)
    with pytest.raises(RayActorError):
        ray.get(asked[2])
    while (own := ended_by_itself(actors[2])) is None:
        pulse.wait(0.05)
    assert own

    assert [node_of(each) for each in actors[:2]] == [node.node_id] * 2
    cluster.remove_node(node, allow_graceful=False)  # as a spot instance goes
    for lost, reference in zip(actors[:2], asked[:2], strict=True):
        with pytest.raises(RayActorError):
            ray.get(reference)
        while (own := ended_by_itself(lost)) is None:  # the cluster finds out in its own time
            pulse.wait(0.05)
        assert not own


class FragileScorer:
    """As long as the folder ``fuses`` has files, something is killed: four evaluators that start, the pool, the trial."""

    def __init__(self, folder: Path, run: int) -> None:
        self.folder, self.run = folder, run
        if self.burnt("evaluator"):
            os.kill(os.getpid(), signal.SIGKILL)

    def burnt(self, name: str) -> bool:
        """Whether one of the fuses of that name was there; it is gone then."""
        for fuse in (self.folder / "fuses").glob(f"{name}*"):
            with contextlib.suppress(FileNotFoundError):
                fuse.unlink()
                return True
        return False

    def score(self, arch: Architecture, images: NodeFile, part: Part | None = None) -> Result | Failure:
        outcome = toy.CountingScorer(self.folder / "counts", together=1, rendezvous=None).score(arch, images)
        done = sum(len(scored) for scored in toy.counted(self.folder / "counts").values())
        for name, after in (("Pool", 5), ("CandidateTrial", 14)):
            there = idle_cluster.actors(psutil.Process(self.run), name)
            if done >= after and there and self.burnt(name):
                there[-1].kill()
        return outcome


def test_a_search_that_loses_evaluators_its_pool_and_its_trial_ends_as_if_nothing_had_happened(
    tmp_path: Path, images: NodeFile
) -> None:
    (tmp_path / "counts").mkdir()
    (tmp_path / "fuses").mkdir()
    for name in ("evaluator0", "evaluator1", "evaluator2", "evaluator3", "Pool", "CandidateTrial"):
        (tmp_path / "fuses" / name).touch()
    said: list[str] = []
    with _service(
        partial(FragileScorer, tmp_path, os.getpid()), EvaluatorConfig(), tmp_path, images, say=said.append
    ) as service:
        candidates = _search(service, say=said.append)

    assert list((tmp_path / "fuses").iterdir()) == []
    assert [c.proposal.arch.id for c in candidates] == _expected()
    assert all(c.result is not None and c.result.score == toy.toy_score(c.proposal.arch) for c in candidates)
    pool, trial = [[line for line in said if line.startswith(what)] for what in ("the pool of", "the trial of")]
    assert [line.partition(":")[0] for line in pool] == ["the pool of evaluators was lost and is started again (1 of 5)"]
    assert [line.partition(":")[0] for line in trial] == ["the trial of the search was lost and is started again (1 of 5)"]


def test_what_is_lost_too_often_ends_the_search(cluster: Cluster) -> None:
    said: list[str] = []
    restarts = Restarts("the pool of evaluators", said.append)
    for _ in range(RESTARTS):
        restarts.another(RuntimeError("gone"))
    assert len(said) == RESTARTS
    with pytest.raises(UserError, match=r"was lost 6 times, now: gone; .*--resume continues"):
        restarts.another(RuntimeError("gone"))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (EvaluatorConfig(cpus=4), r"each asks for 4 CPUs, the largest node has 2 CPUs; give --evaluators\.cpus 2 or less"),
    ],
)
def test_evaluators_that_no_node_can_hold_end_the_search_with_the_flag(
    config: EvaluatorConfig, message: str, tmp_path: Path, images: NodeFile
) -> None:
    """Raised where the pool follows the cluster: what goes wrong there ends the search, which would wait for ever."""
    with pytest.raises(UserError, match=message):
        check_evaluators(config)
    with _service(FatalScorer, config, tmp_path, images) as service, pytest.raises(UserError, match=message):
        _search(service)


def test_a_full_disk_ends_the_search_with_the_path_and_is_continued_when_there_is_room(
    cluster: Cluster, tmp_path: Path, images: NodeFile
) -> None:
    counts = tmp_path / "counts"
    counts.mkdir()
    scorer = partial(toy.CountingScorer, counts, together=1, rendezvous=None)
    with _service(scorer, EvaluatorConfig(), tmp_path, images) as service:
        for pool in idle_cluster.actors(psutil.Process(), "Pool"):  # the nearest that any user can come to a full disk
            pool.rlimit(psutil.RLIMIT_FSIZE, (1000, psutil.RLIM_INFINITY))
        with pytest.raises(OSError, match=r"journal\.jsonl") as raised:
            _search(service)
    assert raised.value.errno == errno.EFBIG
    kept = (tmp_path / "journal.jsonl").read_text()
    assert kept.endswith("\n")
    assert len(kept.splitlines()) > 2

    with _service(scorer, EvaluatorConfig(), tmp_path, images) as service:
        assert len(service.known(SEARCH_SPLIT)) == len(kept.splitlines()) - 1
        candidates = _search(service)
    assert [c.proposal.arch.id for c in candidates] == _expected()
    assert (tmp_path / "journal.jsonl").read_text().startswith(kept)


class FaultyScorer:
    """Has a bug that one candidate brings to light, as long as the file ``bug`` is there."""

    def __init__(self, folder: Path, arch_id: str) -> None:
        self.folder, self.arch_id = folder, arch_id

    def score(self, arch: Architecture, images: NodeFile, part: Part | None = None) -> Result | Failure:
        if arch.id == self.arch_id and (self.folder / "bug").exists():
            raise RuntimeError("shapes do not match")
        return toy.CountingScorer(self.folder / "counts", together=1, rendezvous=None).score(arch, images)


def test_a_bug_stops_the_search_and_the_journal_continues_it(tmp_path: Path, images: NodeFile) -> None:
    (tmp_path / "counts").mkdir()
    (tmp_path / "bug").touch()
    make_scorer = partial(FaultyScorer, tmp_path, _expected()[12])
    with (
        _service(make_scorer, EvaluatorConfig(), tmp_path, images) as service,
        pytest.raises(ScoringError, match="shapes do not match"),
    ):
        _search(service)

    (tmp_path / "bug").unlink()
    with _service(make_scorer, EvaluatorConfig(), tmp_path, images) as service:
        assert len(service.known(SEARCH_SPLIT)) >= 12
        candidates = _search(service)
    assert [c.proposal.arch.id for c in candidates] == _expected()
    scored = [arch_id for ids in toy.counted(tmp_path / "counts").values() for arch_id in ids]
    assert sorted(scored) == sorted(_expected())


class BrokenScorer:
    """Cannot be built."""

    def __init__(self) -> None:
        raise RuntimeError("no such weights")


def test_evaluators_that_cannot_start_end_the_search_with_their_reason(tmp_path: Path, images: NodeFile) -> None:
    with (
        _service(BrokenScorer, EvaluatorConfig(), tmp_path, images) as service,
        pytest.raises(ScoringError, match="no such weights"),
    ):
        _search(service)


def test_predictions_do_not_wait_for_evaluators_that_cannot_start(tmp_path: Path, images: NodeFile) -> None:
    with (
        _service(BrokenScorer, EvaluatorConfig(), tmp_path, images) as service,
        pytest.raises(RayTaskError, match="no such weights"),
    ):
        service.predict(SEARCH_SPLIT, toy.SPACE.smallest())


class PassingScorer:
    """Ends its process when it is asked for predictions. Once the file ``last`` is there, no other can be built."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if (folder / "last").exists():
            raise RuntimeError("no such weights")

    def score(self, arch: Architecture, images: NodeFile, part: Part | None = None) -> Result | Failure:
        raise NotImplementedError

    def predict(self, arch: Architecture, images: NodeFile) -> Predictions | None:
        if images.path.endswith("last"):
            (self.folder / "last").touch()
        os.kill(os.getpid(), signal.SIGKILL)
        return None


def test_predictions_that_end_the_last_evaluator_end_too(tmp_path: Path, images: NodeFile) -> None:
    scorer, config = partial(PassingScorer, tmp_path), EvaluatorConfig(max_evaluators=1)
    with (
        _service(scorer, config, tmp_path, replace(images, path="last")) as service,
        pytest.raises(RayTaskError, match="no such weights"),
    ):
        service.predict(SEARCH_SPLIT, toy.SPACE.smallest())


def test_what_the_pool_says_last_is_passed_on(tmp_path: Path, images: NodeFile) -> None:
    said: list[str] = []
    scorer, config = partial(PassingScorer, tmp_path), EvaluatorConfig(max_evaluators=2)
    with _service(scorer, config, tmp_path, images, say=said.append) as service:
        assert service.predict(SEARCH_SPLIT, toy.SPACE.smallest()) is None
    *lost, last = [line.partition(":")[0] for line in said]
    assert lost == 3 * ["an evaluator was lost and is replaced"]
    assert last == "no predictions of search"


class ReadingScorer(toy.CountingScorer):
    """Reads the file that it scores on from its node, and writes down which node's it was and what it held."""

    def score(self, arch: Architecture, images: NodeFile, part: Part | None = None) -> Result | Failure:
        path = local_path(images)
        context = ray.get_runtime_context()
        (self.folder.parent / "read" / f"{context.get_node_id()} {os.getpid()}").write_text(f"{path}\n{path.read_text()}")
        return super().score(arch, images, part)


def test_evaluators_follow_the_cluster_and_files_reach_new_nodes(cluster: Cluster, tmp_path: Path) -> None:
    """Two evaluators on the first node; the round of four ends only when a second node has joined."""
    original = tmp_path / "images"
    original.write_text(f"pixels of {tmp_path}")  # which no earlier run left on this machine
    images = share(original, server=serve())
    rendezvous = ray.remote(num_cpus=0)(Rendezvous).remote(4)
    counts, read = tmp_path / "counts", tmp_path / "read"
    counts.mkdir()
    read.mkdir()
    scorer = partial(ReadingScorer, counts, together=4, rendezvous=rendezvous)
    with _service(scorer, EvaluatorConfig(), tmp_path, images) as service:
        node = cluster.add_node(num_cpus=2)
        candidates = _search(service)
        assert len(toy.counted(counts)) == 4
        assert [c.proposal.arch.id for c in candidates] == _expected()
    fetched = node_folder() / "files" / images.digest
    paths = {images.node_id: original, node.node_id: fetched}
    assert sorted(path.name.split()[0] for path in read.iterdir()) == sorted([*paths, *paths])
    for path in read.iterdir():
        assert path.read_text() == f"{paths[path.name.split()[0]]}\npixels of {tmp_path}"
    cluster.remove_node(node)
    ray.kill(rendezvous)
    for leftover in fetched.parent.glob(f"{images.digest}*"):
        leftover.unlink()


class PlaceScorer:
    """Writes down its node and GPUs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def score(self, arch: Architecture, images: NodeFile, part: Part | None = None) -> Result | Failure:
        context = ray.get_runtime_context()
        place = f"{context.get_node_id()} {','.join(map(str, ray.get_gpu_ids()))}\n"
        with (self.folder / str(os.getpid())).open("a") as file:
            file.write(place)
        assert isinstance(arch, toy.ToyArchitecture)
        return Result(toy.toy_score(arch), 1, toy.cost(arch).params, toy.cost(arch).macs)


def test_where_there_are_gpus_each_evaluator_asks_for_one_of_those_kept_for_it(
    cluster: Cluster, tmp_path: Path, images: NodeFile
) -> None:
    places = tmp_path / "places"
    places.mkdir()
    training = cluster.add_node(num_cpus=1, num_gpus=2, resources={"training": 2})
    evaluation = cluster.add_node(num_cpus=2, num_gpus=2, resources={"evaluation": 2})
    with _service(partial(PlaceScorer, places), EvaluatorConfig(), tmp_path, images) as service:
        candidates = _search(service)

    assert [c.proposal.arch.id for c in candidates] == _expected()
    by_process = [set(path.read_text().splitlines()) for path in places.iterdir()]
    assert all(len(lines) == 1 for lines in by_process)  # a process keeps its GPU
    assert {line for lines in by_process for line in lines} <= {f"{evaluation.node_id} 0", f"{evaluation.node_id} 1"}
    for node in (training, evaluation):
        cluster.remove_node(node)


class Pupil(nn.Module):
    """Answers 0, which is right, where an image is easier than its skill; which images are hard differs from pupil to pupil."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.skill = toy.toy_score(arch) / 10 + 0.5
        self.taste = torch.rand(256, generator=torch.Generator().manual_seed(int(arch.id[:8], 16)))

    def forward(self, images: Tensor) -> Tensor:
        pixels = (255 * images[:, 0, 0]).round().long()
        right = 0.9 * pixels[:, 0] / 255 + 0.1 * self.taste[pixels[:, 1]] < self.skill
        return torch.stack([right, ~right], dim=1).float()


class RacingScorer:
    """Lets pupils answer 400 images."""

    def score(self, arch: Architecture, images: NodeFile, part: Part | None = None) -> Result | Failure:
        return score(
            Pupil(arch),
            DeviceImages(open_cache(local_path(images)), torch.device("cpu"), room_bytes=0),
            task=ImageClassification(),
            cost=toy.cost(arch),  # pyright: ignore[reportArgumentType]
            normalise=Normalisation((0.0,), (1.0,)),
            batch_size=50,
            precision="float32",
            part=part,
        )


@pytest.mark.parametrize("informative", [None, InformativeConfig(images=80, pilots=6, check=8)])
def test_races_depend_neither_on_the_evaluators_nor_on_an_interruption(
    cluster: Cluster, tmp_path: Path, informative: InformativeConfig | None
) -> None:
    """On all images, and on those that tell candidates apart."""
    pixels = np.random.default_rng(0).integers(0, 256, (400, 1, 2, 2), dtype=np.uint8)
    path = tmp_path / "images.arrow"
    write_cache(ArrayImages(pixels, np.zeros(400, np.int64)), path, replace(DIGITS, img_size=2))
    images = share(path, server=serve())
    racing = RacingConfig(enabled=True, block=20)

    def outcomes(evaluators: int, folder: Path) -> list[tuple[str, str, Result]]:
        config = EvaluatorConfig(max_evaluators=evaluators)
        with _service(RacingScorer, config, folder, images) as service:
            chosen = informative and Informative(informative, seed=0)
            candidates = _search(service, racing=racing, informative=chosen)
        return [(c.proposal.arch.id, c.status, replace(c.result, seconds=0)) for c in candidates if c.result is not None]

    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    whole.mkdir()
    resumed.mkdir()
    expected = outcomes(2, whole)
    assert len(expected) == 24
    raced = [result for _, status, result in expected if status == "raced"]
    if informative is None:
        assert len(raced) >= 4
        assert {result.sample for _, _, result in expected} == {None}
    else:  # a candidate is out of a race of fewer images less often
        assert [result.sample for _, _, result in expected[:6]] == [None] * 6
        assert len({result.sample for _, _, result in expected[6:]} - {None}) >= 1
        assert all(result.items_seen < 160 for _, _, result in expected if result.sample is not None)
    assert all(result.items_seen < 400 for result in raced)
    assert {status for _, status, _ in expected[:8]} == {"scored"}  # nobody to beat in the first generation

    lines = (whole / "journal.jsonl").read_text().splitlines(keepends=True)
    (resumed / "journal.jsonl").write_text("".join(lines[:14]))
    assert outcomes(1, resumed) == expected
