"""One search: an algorithm proposes, Tune runs a thin trial for each candidate, the pool scores it."""

from __future__ import annotations

import json
import logging
import tempfile
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import ray
from ray import tune
from ray.exceptions import RayError, RayTaskError
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from raysearch.distributed.cluster import LOST, answer
from raysearch.distributed.restarts import Restarts
from raysearch.distributed.scoring import ScoringService
from raysearch.distributed.searcher import TrialError, TuneSearcher
from raysearch.search.candidate import Candidate
from raysearch.search.informative import Informative
from raysearch.search.protocol import Failure, Result, SearchAlgorithm, outcome_from_dict
from raysearch.search.racing import Part, Race, RacingConfig
from raysearch.space import Architecture
from raysearch.space.cost import Cost
from raysearch.space.problem import SearchProblem

log = logging.getLogger(__name__)

A = TypeVar("A", bound=Architecture)

SEARCH_SPLIT = "search"


class SearchRun(Generic[A]):
    """A search in progress, on the driver.

    Candidates are handed to the pool as soon as the algorithm names them (a whole generation, or its look-ahead) and their
    outcomes are told to the algorithm in the order asked, whatever the order of completion: the sequence of candidates does
    not depend on evaluators, speed or crashes. Outcomes that a journal knows are told at once, so a resumed search replays
    itself without scoring anything twice.

    With informative images (:mod:`raysearch.search.informative`), the first candidates are scored on all images and the search
    waits for them; what each later one is scored on is decided when it is asked.

    With racing, a candidate runs against the algorithm's threshold at the time it is asked: its outcome is decided then,
    whoever scores it and when.

    Args:
        algorithm: proposes candidates.
        cost: closed-form cost of a candidate.
        known: outcomes of an earlier run, by architecture id.
        on_candidate: called with every candidate, in the order asked.
        racing: whether candidates race, and how; they do not when not given.
        seed: of the order in which racing candidates see the images.
        informative: which images candidates are scored on; all when not given.
        enough: whether to ask for no more candidates than those that were asked for, of which there are some then.

    """

    def __init__(
        self,
        algorithm: SearchAlgorithm,
        *,
        cost: Callable[[A], Cost],
        known: Mapping[str, Result | Failure],
        on_candidate: Callable[[Candidate], None],
        racing: RacingConfig | None = None,
        seed: int = 0,
        informative: Informative | None = None,
        enough: Callable[[], bool] = lambda: False,
    ) -> None:
        self.enough, self._ended = enough, False
        self.algorithm, self.cost, self.known, self.on_candidate = algorithm, cost, known, on_candidate
        self.racing, self.seed = racing or RacingConfig(enabled=False), seed
        self.informative = informative
        self.candidates: list[Candidate] = []
        self._waiting: deque[A] = deque()
        """Asked, not told; in the order asked."""
        self._outcomes: dict[A, Result | Failure] = {}
        """Of waiting candidates whose turn has not come."""
        self._races: dict[A, Part | None] = {}
        """Of waiting candidates that must be scored."""
        self._queue: deque[A] = deque()
        """Without outcome and not yet a trial."""

    @property
    def finished(self) -> bool:
        """True when the algorithm asks nothing more, or it is enough."""
        return (self.algorithm.finished or self._ended) and not self._waiting

    def advance(self) -> dict[A, Part | None]:
        """Ask for all candidates that can be asked now. Returns those that must be scored, in order, each with its part."""
        fresh: dict[A, Part | None] = {}
        self._ended = self._ended or (bool(self.candidates or self._waiting) and self.enough())
        asked = not self._ended
        while asked:
            asked = False
            # An algorithm asks members of its own space, which its protocol does not name.
            while not self._holds() and (arch := cast("A | None", self.algorithm.ask())) is not None:
                asked = True
                self._waiting.append(arch)
                if (outcome := self.known.get(arch.id)) is not None:
                    self._outcomes[arch] = outcome
                else:
                    fresh[arch] = self._races[arch] = self._part(arch)
            self._settle()  # outcomes that are known let the algorithm go on
        self._queue.extend(fresh)
        return fresh

    def _holds(self) -> bool:
        told = len(self.candidates)
        return self.informative is not None and self.informative.holds(told + len(self._waiting), told)

    def _part(self, arch: A) -> Part | None:
        """What a candidate that is asked now is scored on: images against an incumbent, or some of them; None: all."""
        sample = None if self.informative is None else self.informative.sample
        incumbent = self.algorithm.threshold if self.racing.enabled else None
        if incumbent is None:
            return sample
        scored = self.candidates[self.algorithm.proposal(incumbent).index].result
        assert scored is not None  # it competes
        if scored.sample not in (None, sample and sample.id):
            return sample  # it was scored on other images than these, and cannot be raced against on them
        draw = f"{self.seed}/race/{incumbent.id}/{arch.id}"
        return Race(incumbent.id, draw, error=self.racing.error, block=self.racing.block, sample=sample)

    def restart(self) -> dict[A, Part | None]:
        """Begin again with the candidates that have no outcome, in the order asked; returns them with what they are scored on.

        For when whoever had taken some of them by :meth:`next` is gone.
        """
        left = {arch: self._races[arch] for arch in self._waiting if arch not in self._outcomes}
        self._queue = deque(left)
        return left

    def next(self) -> A | None:
        """The next candidate to score; None when all are under way."""
        return self._queue.popleft() if self._queue else None

    def complete(self, arch: A, outcome: Result | Failure) -> None:
        """Take the outcome of a candidate from :meth:`next`."""
        self._outcomes[arch] = outcome
        self._settle()

    def _settle(self) -> None:
        while self._waiting and self._waiting[0] in self._outcomes:
            arch = self._waiting.popleft()
            outcome = self._outcomes.pop(arch)
            self._races.pop(arch, None)
            self.algorithm.tell(arch, outcome)
            candidate = Candidate(self.algorithm.proposal(arch), self.cost(arch), outcome)
            self.candidates.append(candidate)
            if self.informative is not None:
                self.informative.tell(outcome)
                if not self._waiting:
                    self.informative.settle(len(self.candidates))
            self.on_candidate(candidate)


_runs: dict[str, tuple[SearchRun[Any], ScoringService]] = {}
"""Searches of this process and who scores for them, by pool name: Tune pickles its searcher, which holds a name only."""


@dataclass(frozen=True, slots=True)
class _PooledSearch:
    """A :class:`SearchRun` of this process as Tune's searcher asks and tells it; pickles as the name of its pool."""

    pool_name: str

    @property
    def problem(self) -> SearchProblem[Any]:
        """The algorithm's."""
        return _runs[self.pool_name][0].algorithm.problem

    def ask(self) -> Architecture | None:
        """The next candidate, queued at the pool with all others that can be asked now."""
        run, service = _runs[self.pool_name]
        _hand_over(run, service)
        arch = run.next()
        if arch is None and run.finished:
            raise _SearchEnded
        return arch

    def tell(self, arch: Architecture, outcome: Result | Failure) -> None:
        """Take the outcome. A trial that ended in an error is a bug: Tune stops and :func:`run_search` raises it."""
        if not isinstance(outcome, TrialError):
            _runs[self.pool_name][0].complete(arch, outcome)

    @property
    def finished(self) -> bool:
        """Never seen to be: :meth:`ask` ends Tune's loop."""
        return False

    def state_dict(self) -> dict[str, Any]:
        """Nothing: a search resumes from its journal."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing: see :meth:`state_dict`."""

    def config(self, arch: Architecture) -> dict[str, Any]:
        """What a :class:`CandidateTrial` is given, and the architecture for those who look at Tune's trials."""
        return {"pool": self.pool_name, "id": arch.id, "arch": arch.to_json()}

    def outcome(self, arch: Architecture, result: Mapping[str, Any]) -> Result | Failure:
        """What the pool answered to a :class:`CandidateTrial`."""
        return outcome_from_dict(json.loads(result["outcome"]))


def _hand_over(run: SearchRun[Any], service: ScoringService) -> None:
    """Queue at the pool whatever the algorithm can name now; back when it is queued, so that trials find it there."""
    if fresh := run.advance():
        service.prefetch(SEARCH_SPLIT, fresh)


class _SearchEnded(Exception):
    """Ends Tune's loop when the search is over.

    Tune's own end writes the state of every trial to a file that nobody reads: measured 2 ms for each candidate.
    """


class _NextTrial(TrialScheduler):
    """Starts the trial that was added last, in the same time however many there were.

    Tune's own scheduler, and its question whether all trials are finished, look through every trial there ever was.
    """

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Let Tune forget the trials that ended well: their outcomes are told."""
        trials: list[Trial] = tune_controller.get_trials()
        trials[:] = [trial for trial in trials if trial.status != Trial.TERMINATED]

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """The trial that waits, if one does."""
        return next((trial for trial in tune_controller.get_live_trials() if trial.status == Trial.PENDING), None)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Trials have one result."""
        return TrialScheduler.CONTINUE

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Nothing to do."""

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Nothing to do: a trial that ended in an error ends the search."""

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """Nothing to do."""

    def debug_string(self) -> str:
        """What Tune shows of it."""
        return "one trial at a time"


class CandidateTrial(tune.Trainable):
    """One candidate: waits for its outcome."""

    def setup(self, config: dict[str, Any]) -> None:
        """Find the pool."""
        self.pool = ray.get_actor(config["pool"])
        self.id = config["id"]

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Serve the next candidate with the same actor."""
        self.id = new_config["id"]
        return True

    def step(self) -> dict[str, Any]:
        """The outcome."""
        outcome: dict[str, Any] = answer(self.pool.result.remote(SEARCH_SPLIT, self.id))
        return {"score": outcome.get("score", float("nan")), "outcome": json.dumps(outcome), "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing to keep."""

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing was kept."""


class ScoringError(RuntimeError):
    """A candidate could not be scored because of an error in our code or in a space's."""


def run_search(run: SearchRun[Any], service: ScoringService, *, say: Callable[[str], None] = log.warning) -> None:
    """Run a search to its end.

    One trial waits at a time while all evaluators work: the pool holds the whole generation (measured: 9-16 ms per trial,
    where concurrent trials with reused actors fall back to one at each generation's end). A trial or a pool that is lost is
    started again, and ``say`` gets a line; what it changes is the time that the search takes. Raises ScoringError for a bug,
    UserError for what the user can mend, OSError when a disk is full.
    """
    restarts = Restarts("the trial of the search", say)
    left: Mapping[Any, Part | None] = {}
    while True:
        try:
            service.prefetch(SEARCH_SPLIT, left)
            _hand_over(run, service)
            if run.finished:
                return
            lost = _run_trials(run, service)
            if lost is None:
                return
            service.check()
            if isinstance(lost, RayTaskError) and not isinstance(lost.cause, RayError):
                raise lost  # the trial's own bug
            restarts.another(lost)
        except RayTaskError as error:
            raise ScoringError(f"a candidate could not be scored: {_cause(error)}") from error
        except LOST as error:
            service.revive(error)
        left = run.restart()


def _run_trials(run: SearchRun[Any], service: ScoringService) -> Exception | None:
    """Have Tune run trials to the end of the search: None. Or until one ends in an error, which is returned."""
    name = service.name
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what ended a trial is said by whoever starts another
    # On this node, which keeps its processors for evaluators, and may have none.
    here = f"node:{ray.util.get_node_ip_address()}"
    trial = tune.with_resources(CandidateTrial, tune.PlacementGroupFactory([{here: 0.001}]))
    _runs[name] = (run, service)
    search = _PooledSearch(name)
    try:
        with tempfile.TemporaryDirectory(prefix="raysearch-tune-", ignore_cleanup_errors=True) as folder:
            results = tune.Tuner(
                trial,
                param_space={},
                tune_config=tune.TuneConfig(
                    search_alg=TuneSearcher(search, outcome=search.outcome, config=search.config),
                    scheduler=_NextTrial(),
                    num_samples=-1,
                    max_concurrent_trials=1,
                    reuse_actors=True,
                ),
                run_config=tune.RunConfig(
                    name=name,
                    storage_path=folder,
                    verbose=0,
                    failure_config=tune.FailureConfig(max_failures=0, fail_fast=True),
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                ),
            ).fit()
    except _SearchEnded:
        return None
    finally:
        del _runs[name]
    return results.errors[0] if results.errors else RuntimeError("Tune ended before the search did")


def _cause(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
