"""Ray Tune's view of a search algorithm: for trainables of one's own, and for the product's search."""

from __future__ import annotations

import json
import logging
import math
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from raysearch.errors import UserError
from raysearch.search.protocol import Failure, Result
from raysearch.space import Architecture, SearchSpace
from raysearch.space.problem import SearchProblem
from raysearch.store.folder import write_json

log = logging.getLogger(__name__)

# Nothing here imports raysearch.distributed.cluster: it sets how often Tune saves a run of the product, which is none of the
# business of somebody else's run.

MakeConfig = Callable[[Architecture], dict[str, Any]]
"""What the trial of an architecture is given, as JSON values."""

ReadOutcome = Callable[[Architecture, Mapping[str, Any]], Result | Failure]
"""What became of an architecture, by the last result that its trial reported (nested names joined by ``/``)."""


class AskTell(Protocol):
    """The part of a :class:`~raysearch.search.SearchAlgorithm` that a searcher uses."""

    @property
    def problem(self) -> SearchProblem[Any]:
        """The space that candidates come from, and what they cost."""
        ...

    def ask(self) -> Architecture | None:
        """The next candidate; None while results are awaited."""
        ...

    def tell(self, arch: Architecture, outcome: Result | Failure) -> None:
        """The outcome of a candidate that was asked."""
        ...

    @property
    def finished(self) -> bool:
        """True when nothing is left to ask and every asked candidate has been told."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that continues the search, as JSON values."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        ...


@dataclass(frozen=True, slots=True)
class TrialError(Failure):
    """The trial itself ended in an error; Tune keeps the traceback."""


class TuneSearcher(Searcher):
    """Any search algorithm of raysearch as a searcher of Ray Tune, for any trainable and any number of concurrent trials.

    A trial's configuration holds ``arch``, the architecture as JSON values (``space.architecture.from_dict(config["arch"])``
    makes it one), ``id``, its id, and its decisions by the names of :attr:`SearchSpace.param_space`, as
    :func:`~raysearch.distributed.param_space.architecture_from` takes them (a choice named ``arch`` gives way).
    ``num_samples=-1`` lets the algorithm say when the search is over.

    While an algorithm waits for the last results of a generation (its barrier) no trial starts; ageing evolution has none.
    Results are told as they come. Which candidates are asked depends on that as little as the algorithm's own contract allows:
    on seed and results alone.

    A trial that ends in an error, and one that does not report its numbers or reports NaN or infinity, is told as a
    :class:`Failure` with its reason. A trial that a scheduler stops counts with its last result.

    Tune saves it with the experiment: the algorithm's state and the candidates that are running. ``Tuner.restore`` goes on with
    the same candidates. Those whose trials Tune runs on keep their trial; those whose trials are lost are asked again; the
    algorithm is told about each once.

    Args:
        algorithm: proposes candidates and is told about them.
        metric: the name under which trials report the score.
        mode: ``min`` where a lower score is better; its negative is told then.
        loss: the name under which trials report a loss that tells candidates of equal score apart; lower is better.
        latency: the name under which trials report milliseconds, for algorithms that weigh them.
        outcome: reads the whole outcome of a candidate instead of these numbers; not with ``metric``.
        config: makes a trial's configuration, where it should hold other things than the above.

    Raises:
        UserError: neither or both of ``metric`` and ``outcome``, no such mode.

    """

    def __init__(
        self,
        algorithm: AskTell,
        *,
        metric: str | None = None,
        mode: Literal["max", "min"] = "max",
        loss: str | None = None,
        latency: str | None = None,
        outcome: ReadOutcome | None = None,
        config: MakeConfig | None = None,
    ) -> None:
        # Without metric and mode: Tune ends the whole run when a trial does not report the metric of its searcher.
        super().__init__()
        if (metric is None) == (outcome is None):
            raise UserError('give metric, the name of the reported score as metric="accuracy", or else outcome')
        if mode not in ("max", "min"):
            raise UserError(f"mode is {mode!r}; give max or min")
        self.algorithm = algorithm
        self._config: MakeConfig = config or _Decisions(algorithm.problem.space)
        self._outcome: ReadOutcome = outcome or _Numbers(
            algorithm.problem, score=cast(str, metric), sign=1 if mode == "max" else -1, loss=loss, latency=latency
        )
        self._max_concurrent = math.inf
        self._running: dict[str, Architecture] = {}
        """By trial id, in the order asked."""
        self._latest: dict[str, Mapping[str, Any]] = {}
        """The last result of running trials that report more than one."""
        self._lost: deque[Architecture] = deque()
        """Asked by an interrupted run whose trials for them are gone."""
        self._unconfirmed: set[str] = set()
        """Trials of an interrupted run that Tune has not yet shown to run on."""
        self._waited = False
        """Whether Tune was told to wait since an interrupted run was restored."""

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """What Tune makes of its own settings; nothing here comes from them.

        Raises UserError for a parameter of ``param_space`` that the searcher decides.
        """
        decided = self._config(self.algorithm.problem.space.largest())  # which lacks no block
        if taken := sorted(decided.keys() & config.keys()):
            raise UserError(f"param_space has {', '.join(taken)}, which the searcher decides; rename it there")
        return False  # Tune refuses a param_space that leaves anything else to the searcher

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Keep to so many trials at once.

        Tune's own limiter would count the trials that an interrupted run lost for ever.
        """
        self._max_concurrent = max_concurrent
        return True

    def suggest(self, trial_id: str) -> Any:
        """A configuration; None while results are awaited or enough trials run; ``FINISHED`` at the end."""
        arch = self._next()
        if arch is None and self._unconfirmed:
            # Tune asks once between two saves, and again only when it has nothing to run: it waits for a suggestion then, and
            # saves nothing before there is one.
            if self._waited:
                self._ask_again(self._unconfirmed)
                arch = self._next()
            self._waited = True
        if arch is None:
            return Searcher.FINISHED if self.algorithm.finished else None
        self._running[trial_id] = arch
        return self._config(arch)

    def _next(self) -> Architecture | None:
        if len(self._running) >= self._max_concurrent:
            return None
        return self._lost.popleft() if self._lost else self.algorithm.ask()

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Keep the result: of a paused trial that a scheduler stops, Tune does not repeat it."""
        if trial_id in self._running:
            self._latest[trial_id] = result

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the algorithm. A trial whose candidate was asked again, or told before, says nothing more."""
        arch = self._running.pop(trial_id, None)
        latest = self._latest.pop(trial_id, None)
        self._unconfirmed.discard(trial_id)
        if arch is None:
            return
        outcome = TrialError("the trial ended in an error") if error else self._outcome(arch, result or latest or {})
        self.algorithm.tell(arch, outcome)

    # --- an interrupted run ---

    def save(self, checkpoint_path: str) -> None:
        """Write the algorithm's state and the candidates that are running to a file, whole or not at all."""
        path = Path(checkpoint_path)
        self._confirm(path.parent)
        state = {
            "algorithm": self.algorithm.state_dict(),
            "running": {trial_id: arch.to_dict() for trial_id, arch in self._running.items()},
            "lost": [arch.to_dict() for arch in self._lost],
        }
        write_json(path, state)

    def restore(self, checkpoint_path: str) -> None:
        """Continue from what :meth:`save` wrote. Raises UserError for another file, and for a search of other settings."""
        architecture = self.algorithm.problem.space.architecture
        try:
            state = json.loads(Path(checkpoint_path).read_text())
            running = {str(trial_id): architecture.from_dict(arch) for trial_id, arch in state["running"].items()}
            lost = [architecture.from_dict(arch) for arch in state["lost"]]
            algorithm = state["algorithm"]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{checkpoint_path} is no state of this search ({error}); start the search anew") from None
        self.algorithm.load_state_dict(algorithm)
        self._running, self._lost, self._latest = running, deque(lost), {}
        self._unconfirmed, self._waited = set(running), False

    def _confirm(self, folder: Path) -> None:
        """Find out, at the first save after a restore, which of the restored trials run on.

        Tune copies the table of its trials and the searcher's state one after the other, so one may be older than the other;
        and it may be told not to run unfinished trials on. It tells the searcher in neither case, but the table that it writes
        before it saves the searcher does.
        """
        tables = sorted(folder.glob("experiment_state-*.json"))
        if not self._unconfirmed or not tables:
            return
        trials = [json.loads(trial) for trial, _ in json.loads(tables[-1].read_text())["trial_data"]]
        alive = {trial["trial_id"] for trial in trials if trial["status"] not in (Trial.TERMINATED, Trial.ERROR)}
        self._ask_again(self._unconfirmed - alive)
        self._unconfirmed = set()

    def _ask_again(self, trial_ids: Collection[str]) -> None:
        gone = [trial_id for trial_id in self._running if trial_id in trial_ids]
        if gone:
            log.info("%d candidates are asked again: Tune does not continue their trials", len(gone))
        self._lost.extend(self._running.pop(trial_id) for trial_id in gone)
        self._unconfirmed = self._unconfirmed.difference(gone)


@dataclass(frozen=True, slots=True)
class _Decisions:
    """The configuration that :class:`TuneSearcher` describes."""

    space: SearchSpace[Any]

    def __call__(self, arch: Architecture) -> dict[str, Any]:
        return {**self.space.to_params(arch), "arch": arch.to_dict(), "id": arch.id}


@dataclass(frozen=True, slots=True)
class _Numbers:
    """Reads an outcome from the numbers that a trial reports under these names; its cost is the problem's."""

    problem: SearchProblem[Any]
    score: str
    sign: int
    loss: str | None
    latency: str | None

    def __call__(self, arch: Architecture, result: Mapping[str, Any]) -> Result | Failure:
        numbers: dict[str, float] = {}
        for name in (self.score, self.loss, self.latency):
            if name is None:
                continue
            if name not in result:
                return Failure(f"the trial did not report {name}")
            try:
                numbers[name] = float(result[name])
            except (OverflowError, TypeError, ValueError):
                return Failure(f"the trial reported {name} = {result[name]!r}, which is no number")
            if not math.isfinite(numbers[name]):
                return Failure(f"the trial reported {name} = {numbers[name]}")
        cost = self.problem.cost(arch)
        return Result(
            self.sign * numbers[self.score],
            0,  # how many images or other items it was judged on is the trial's own business
            cost.params,
            cost.macs,
            loss=None if self.loss is None else numbers[self.loss],
            latency_ms=None if self.latency is None else numbers[self.latency],
        )
