"""Experiments of somebody else: trainables, tuners and interruptions that the searcher is tested with."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
import toy
from ray import tune
from ray.tune.experiment import Trial

from raysearch.distributed import TuneSearcher
from raysearch.search import (
    AgeingConfig,
    AlgorithmConfig,
    EvolutionConfig,
    Failure,
    NSGA2Config,
    PredictorConfig,
    RandomConfig,
    Result,
    SearchAlgorithm,
    SearchProblem,
    make_algorithm,
)
from raysearch.space import Architecture
from raysearch.space.cost import Constraint

CONFIGS: dict[str, AlgorithmConfig] = {
    "evolution": EvolutionConfig(population=4, generations=2, parents=2, mutations=2, crossovers=1),
    "ageing": AgeingConfig(candidates=12, population=4, sample=2, look_ahead=4),
    "nsga2": NSGA2Config(population=4, generations=2),
    "predictor": PredictorConfig(population=4, generations=2, parents=3, inner_population=8, inner_generations=2),
    "random": RandomConfig(candidates=8, batch=4),
}
"""Eight or twelve candidates each, of which four may run at once."""


def algorithm(name: str) -> SearchAlgorithm:
    return make_algorithm(CONFIGS[name], SearchProblem(toy.SPACE, toy.cost, Constraint()), seed=0)


def outcome(arch: Architecture) -> Result | Failure:
    """What the searcher makes of the numbers of :class:`Scored`."""
    assert isinstance(arch, toy.ToyArchitecture)
    return Result(toy.toy_score(arch), 0, toy.cost(arch).params, toy.cost(arch).macs)


def undisturbed(name: str) -> tuple[list[str], dict[str, Any]]:
    """The ids that an algorithm asks without Tune, in order, and its state at the end."""
    search, told = algorithm(name), list[str]()
    while not search.finished:
        batch: list[Architecture] = []
        while (arch := search.ask()) is not None:
            batch.append(arch)
        for arch in batch:
            search.tell(arch, outcome(arch))
            told.append(arch.id)
    return told, search.state_dict()


def hold(folder: Path, ids: Sequence[str]) -> None:
    """Let the trials of these candidates wait."""
    for arch_id in ids:
        os.mkfifo(folder / f"{arch_id}.pipe")


def release(folder: Path) -> None:
    """Let all trials go on, those that come too."""
    for pipe in folder.glob("*.pipe"):
        # A reader that waits gets the end of the file; one that is not there yet must not find the pipe.
        writer = os.open(pipe, os.O_RDWR)
        pipe.unlink()
        os.close(writer)


class Scored(tune.Trainable):
    """Reports a candidate's score, unless it is held back."""

    def setup(self, config: dict[str, Any]) -> None:
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.candidate = new_config
        return True

    def step(self) -> dict[str, Any]:
        pipe = Path(self.candidate["folder"]) / f"{self.candidate['id']}.pipe"
        if pipe.exists():
            pipe.read_bytes()
        return {"score": toy.toy_score(toy.SPACE.architecture.from_dict(self.candidate["arch"])), "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing to keep."""

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing was kept."""


class Interruption(tune.Callback):
    """Ends the experiment, once, when so many trials have ended and all that may run at once do: by an error or by SIGKILL.

    What Tune has saved by then is whole: it copies its files while it writes the next ones, so the end waits for a save that
    no other overlaps.
    """

    def __init__(self, fuse: Path, *, ended: int, running: int, kill: bool) -> None:
        self.fuse, self.ended, self.running, self.kill = fuse, ended, running, kill
        self.steps = 0

    def on_step_begin(self, iteration: int, trials: Sequence[Trial], **info: Any) -> None:
        states = [trial.status for trial in trials]
        there = states.count(Trial.TERMINATED) >= self.ended and states.count(Trial.RUNNING) == self.running
        if not there or not self.fuse.exists():
            return
        for thread in threading.enumerate():
            if thread.name.endswith("(entrypoint)"):  # Tune's, that copies to the storage path
                thread.join()
        self.steps += 1
        if self.steps == 2:
            self.fuse.unlink()
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            release(self.fuse.parent)  # or else Tune would wait for its trials before it lets the error go on
            raise InterruptedError("the disk is full")


def tuner(
    folder: Path, searcher: TuneSearcher, *, concurrent: int, callbacks: Sequence[tune.Callback] = (), trainable: Any = Scored
) -> tune.Tuner:
    return tune.Tuner(
        tune.with_resources(trainable, {"cpu": 0.1}),
        param_space={"folder": str(folder)},
        tune_config=tune.TuneConfig(search_alg=searcher, num_samples=-1, max_concurrent_trials=concurrent, reuse_actors=True),
        run_config=tune.RunConfig(
            name="search",
            storage_path=str(folder),
            verbose=0,
            callbacks=list(callbacks),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )


def asked(results: tune.ResultGrid) -> list[str]:
    """Ids of the candidates, in the order of their trials."""
    return [result.config["id"] for result in results if result.config is not None]


def by_trial(results: tune.ResultGrid) -> dict[str, str]:
    """Ids of the candidates that have a result, by trial id."""
    return {r.metrics["trial_id"]: r.config["id"] for r in results if r.metrics and "score" in r.metrics and r.config}


def saved(folder: Path) -> dict[str, Any]:
    """What the searcher last saved with the experiment."""
    return json.loads(max((folder / "search").glob("searcher-state-*.pkl")).read_text())


def interrupted(output: str, name: str, *, address: str) -> None:
    """The driver of an experiment that gets itself killed: six candidates are done, four wait."""
    ray.init(address=address, log_to_driver=False)
    for module in (toy, sys.modules[__name__]):
        ray.cloudpickle.register_pickle_by_value(module)
    folder = Path(output)
    tuner(
        folder,
        TuneSearcher(algorithm(name), metric="score"),
        concurrent=4,
        callbacks=[Interruption(folder / "fuse", ended=6, running=4, kill=True)],
    ).fit()
