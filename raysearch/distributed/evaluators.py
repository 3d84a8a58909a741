"""Evaluators, long-lived actors, and the pool that keeps all of them busy.

What they run, the scorer, brings its own libraries: nothing here imports PyTorch, which takes a process seconds and 300 MiB.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import ray
from ray.exceptions import RayError, RayTaskError

from raysearch.bounds import Count, Positive, check_numbers
from raysearch.distributed.cluster import Actor, beside_caller, brief, told
from raysearch.distributed.deadline import DeadlineConfig, Deadlines, OverdueError
from raysearch.distributed.files import NodeFile
from raysearch.distributed.growth import instead, share_of
from raysearch.distributed.losses import LOST_STARTS, LOST_WITHIN, LostStarts, ended_by_itself, node_of
from raysearch.distributed.metrics import PoolMetrics, run_of
from raysearch.distributed.room import Need, NoNodeError, Waiting, check_room, node_lives
from raysearch.distributed.usage import Span, UsageLog
from raysearch.errors import UserError
from raysearch.nn.precision import Precision
from raysearch.nodes import NodesConfig
from raysearch.search.protocol import Failure, Result, outcome_from_dict, outcome_to_dict
from raysearch.search.racing import Part, Race
from raysearch.space import Architecture
from raysearch.store.journal import Journal
from raysearch.store.predictions import Predictions

T = TypeVar("T")

log = logging.getLogger(__name__)

ATTEMPTS = 3
"""How many evaluators may be lost while scoring a candidate until that is its fault."""
TRIES = 10
"""How many evaluators may be lost in all: with nodes that go away, too, which is no candidate's fault."""
HANGS = 2
"""How many evaluators may take too long over a candidate until that is its fault."""
LOOK = 5.0
"""Seconds between two looks at how long a candidate takes: what is usual changes meanwhile."""


@dataclass(frozen=True, slots=True)
class EvaluatorConfig:
    """The processes that score candidates."""

    batch_size: Count = 250
    """Images per forward pass."""
    precision: Precision = "auto"
    cpus: Positive = 1.0
    """Processors of each evaluator where there are no GPUs; a fraction puts several on one."""
    compile: bool = False
    """Compile the blocks of subnets (torch.compile): seconds per kind of block and evaluator, for long searches on GPUs."""
    max_evaluators: Count | None = None
    """Most evaluators at a time; as many as the cluster holds, or starts nodes for, when not given."""
    nodes: NodesConfig = field(default_factory=NodesConfig)
    """Machines that a cluster starts for them."""
    deadline: DeadlineConfig = field(default_factory=DeadlineConfig)
    """How long a candidate may take."""

    def __post_init__(self) -> None:
        """Raises UserError for sizes and counts that cannot be."""
        check_numbers(self)


def plan_evaluators(config: EvaluatorConfig) -> tuple[int, Need]:
    """How many evaluators there shall be in the cluster as it is and may grow, and what each asks for."""
    share = share_of("evaluation", config.nodes)
    # Rounded down, so that as many as were counted find room.
    resources = share.asks(cpus=math.floor(1e4 * config.cpus) / 1e4)
    remedy = "" if share.accelerated else "give --evaluators.cpus {most} or less"
    return share.wanted(resources, given=config.max_evaluators), share.need("evaluator", resources, remedy)


def check_evaluators(config: EvaluatorConfig) -> None:
    """Raises UserError, with the flag, when no node of the cluster could ever hold an evaluator."""
    _, need = plan_evaluators(config)
    check_room(need)


class Scorer(Protocol):
    """What an evaluator runs."""

    def score(self, arch: Architecture, images: NodeFile, part: Part | None = None) -> Result | Failure:
        """Score one architecture on the cached images, or on a part of them."""
        ...


@runtime_checkable
class Predictor(Protocol):
    """A scorer that can also say what a network makes of each image."""

    def predict(self, arch: Architecture, images: NodeFile) -> Predictions | None:
        """What one architecture says of each cached image; None where the task is no classification."""
        ...


class Evaluator:
    """Hosts one scorer."""

    def open(self, make_scorer: Callable[[], Scorer]) -> None:
        """Build the scorer. Not in the constructor: an error here is a bug to be shown, not a lost actor."""
        self.scorer = make_scorer()

    def ping(self) -> str:
        """Answer with the id of the node, if the process lives."""
        return ray.get_runtime_context().get_node_id()

    def score(self, arch: Architecture, images: NodeFile, part: Part | None) -> dict[str, Any]:
        """The outcome as JSON values."""
        outcome = self.scorer.score(arch, images, part)
        _return_free_memory()
        return outcome_to_dict(outcome)

    def predict(self, arch: Architecture, images: NodeFile) -> Predictions | None:
        """As the scorer does; None of one that does not."""
        return self.scorer.predict(arch, images) if isinstance(self.scorer, Predictor) else None


def _return_free_memory() -> None:
    """Give the pages of the last subnet and its activations back to the system, which glibc would keep (1 ms)."""
    c_library = ctypes.CDLL(None)
    if hasattr(c_library, "malloc_trim"):
        c_library.malloc_trim(0)


class Pool:
    """Hands candidates to whichever evaluator is free, and writes every outcome to the journal before telling it.

    The number of evaluators follows the cluster: one for each GPU, or for each share of the CPUs where there are none; nodes
    that join are used, evaluators that are lost are replaced and their candidates scored elsewhere.

    Args:
        make_scorer: builds an evaluator's scorer, in its process.
        config: the evaluators' size and number.
        journal: path of the journal, on this node.
        weights: digest of the weights that are scored.
        calibration: digest of the calibration inputs, for families that need them.

    """

    def __init__(
        self,
        make_scorer: Callable[[], Scorer],
        config: EvaluatorConfig,
        journal: Path,
        weights: str,
        calibration: str | None = None,
    ) -> None:
        self.make_scorer, self.config = make_scorer, config
        self.journal = Journal(journal, weights=weights, calibration=calibration)
        self.metrics = PoolMetrics(run_of(journal), self.journal.outcomes)
        self.busy = 0
        """Evaluators that score a candidate."""
        self.images: dict[str, NodeFile] = {}
        self.futures: dict[tuple[str, str], asyncio.Future[Result | Failure]] = {}
        self.free: asyncio.Queue[Actor] = asyncio.Queue()
        self.evaluators: set[Actor] = set()
        self.there: set[Actor] = set()
        """Of ``evaluators`` those that found room and answer."""
        self.fewer = asyncio.Event()
        """That one was lost."""
        self.working: set[Actor] = set()
        """Of these those that can score."""
        self.usage_log = UsageLog()
        self.lost_starts = LostStarts()
        self.no_more_until = float("-inf")
        """Until when no more evaluators are started than there are, as too many ended while they started."""
        self.deadlines = Deadlines(config.deadline)
        self.hung = 0
        """Evaluators that were ended over a candidate since one was scored."""
        self.unknown: set[str] = set()
        """Splits of which it was said that nobody knows how long a candidate takes."""
        self.said: list[str] = []
        """Lines for the user, in order."""
        self.tasks: set[asyncio.Task[Any]] = set()
        self.broken: asyncio.Future[None] = asyncio.get_event_loop().create_future()
        self._watched(self._follow_cluster())

    def _spawn(self, coroutine: Any) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def _watched(self, coroutine: Any) -> None:
        """Run a coroutine that nobody waits for: its error ends the search, which would wait for ever without it."""

        def look(task: asyncio.Task[Any]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                self._break(error if isinstance(error, Exception) else RuntimeError(repr(error)))

        self._spawn(coroutine).add_done_callback(look)

    # --- evaluators ---

    async def _follow_cluster(self) -> None:
        waiting: Waiting | None = None
        while True:
            wanted, need = await asyncio.to_thread(plan_evaluators, self.config)
            if time.monotonic() < self.no_more_until:
                wanted = min(wanted, max(1, len(self.evaluators)))
            await asyncio.to_thread(check_room, need)
            for _ in range(wanted - len(self.evaluators)):
                evaluator: Actor = ray.remote(**need.options)(Evaluator).remote()
                self.evaluators.add(evaluator)
                self._watched(self._open(evaluator))
            if waiting is None or waiting.need != need:
                waiting = Waiting(need, self.said.append)
            try:
                await asyncio.to_thread(waiting.look, len(self.evaluators) - len(self.there), of=len(self.evaluators))
            except NoNodeError as error:
                self.config = replace(self.config, nodes=instead(self.config.nodes, error, self.said.append))
                for evaluator in self.evaluators - self.there:
                    self.evaluators.discard(evaluator)
                    ray.kill(evaluator)
                continue
            self.metrics.now(queue=self.usage_log.waiting, evaluators=len(self.working), busy=self.busy)
            with suppress(TimeoutError):
                await asyncio.wait_for(self.fewer.wait(), 2)
            self.fewer.clear()

    async def _open(self, evaluator: Actor) -> None:
        try:
            await evaluator.ping.remote()
            self.there.add(evaluator)
            await evaluator.open.remote(self.make_scorer)
        except RayTaskError as error:  # a bug, or what the user can mend; kept, and raised to every caller of result
            self._break(told(error))
        except RayError as error:
            if evaluator not in self.evaluators:
                return  # nobody waits for it any more
            if await self._lose(evaluator, error, starting=True):
                self._count_lost_start()
        else:
            self.usage_log.arrived(evaluator, time.monotonic())
            self.working.add(evaluator)
            self.free.put_nowait(evaluator)

    def _count_lost_start(self) -> None:
        now = time.monotonic()
        if (words := self.lost_starts.another(now, of=len(self.evaluators))) is None:
            return
        words += ": is the memory of their nodes too small?"
        if not self.working:
            self._break(UserError(f"{words} give fewer with --evaluators.max-evaluators, then --resume continues"))
            return
        if now >= self.no_more_until:
            others = f"other starts wait for {LOST_WITHIN / 60:.0f} min"
            self.said.append(f"{words} the search goes on with the {len(self.working)} that work; {others}")
        self.no_more_until = now + LOST_WITHIN

    def _break(self, error: Exception) -> None:
        if not self.broken.done():
            self.broken.set_exception(error)

    async def _lose(self, evaluator: Actor, error: Exception, *, starting: bool = False) -> bool:
        """Let go of an evaluator, which is replaced. Returns whether its process ended by itself.

        It did not where its node went away with it. Of one that is out of reach nobody knows at once: of one that was
        ``starting`` it is found out, while others do its work; of any other it is not supposed.
        """
        self.said.append(f"an evaluator was lost and is replaced: {brief(error)}")
        self.evaluators.discard(evaluator)
        self.there.discard(evaluator)
        self.working.discard(evaluator)
        self.fewer.set()
        self.metrics.lost()
        self.usage_log.left(evaluator, time.monotonic())
        own, node = await asyncio.to_thread(lambda: (ended_by_itself(evaluator), node_of(evaluator)))
        ray.kill(evaluator)  # one that is only out of reach must not come back
        for _ in range(30 if own is None and starting else 0):
            if not await asyncio.to_thread(node_lives, node):
                return False
            await asyncio.sleep(2)
        return starting if own is None else own

    async def _in_time(self, asked: Any, split: str, arch: Architecture) -> Any:
        """What an evaluator answers to ``asked``. Raises OverdueError when it takes longer than it may."""
        begin, answering = time.monotonic(), asyncio.ensure_future(asked)
        while True:
            limit, usual, gone = self.deadlines.limit(split), self.deadlines.median(split), time.monotonic() - begin
            if limit is not None and gone >= limit:
                answering.cancel()
                raise OverdueError(f"it hung over {arch.id} for {gone:.0f} s, where the median is {usual:.3g} s")
            if limit is None and gone >= 60 * self.config.deadline.minutes and split not in self.unknown:
                self.unknown.add(split)
                self.said.append(f"no candidate of {split} was scored in {gone:.0f} s: before one is, none is taken to hang")
            await asyncio.wait([answering], timeout=LOOK if limit is None else min(LOOK, limit - gone))
            if answering.done():
                return answering.result()

    def _count_hang(self) -> None:
        self.hung += 1
        if self.hung >= LOST_STARTS + len(self.evaluators):
            self._break(
                UserError(
                    f"{self.hung} evaluators in turn hung while they scored, and none did score: does a file system or a "
                    "device not answer? --evaluators.deadline waits longer; --resume continues"
                )
            )

    async def news(self, known: int) -> list[str]:
        """Lines for the user, after the first ``known``."""
        return self.said[known:]

    async def check(self) -> None:
        """Raise what ended the scoring, if anything did: a watcher's error, or that of a candidate."""
        if self.broken.done():
            self.broken.result()
        for future in self.futures.values():
            if future.done():
                future.result()

    async def wait_for(self, evaluators: int) -> None:
        """Return when so many evaluators are free. Raises the error of one that cannot start."""
        while self.free.qsize() < evaluators:
            await asyncio.wait([self.broken], timeout=0.1)
            if self.broken.done():
                self.broken.result()

    # --- candidates ---

    async def add_images(self, split: str, images: NodeFile) -> None:
        """Name the images of a split, which must come before its candidates."""
        self.images[split] = images

    async def prefetch(self, split: str, candidates: dict[Architecture, Part | None]) -> None:
        """Queue candidates in this order, each with what it is scored on; each is scored once, however often it is asked for.

        The incumbent of a race was scored on all items of the race.
        """
        for arch, part in candidates.items():
            key = (split, arch.id)
            if key in self.futures:
                continue
            if (known := self.journal.outcomes.get(key)) is not None:
                self.futures[key] = asyncio.get_event_loop().create_future()
                self.futures[key].set_result(known)
            else:
                self.usage_log.queued(1, time.monotonic())
                self.futures[key] = self._spawn(self._score(split, arch, part))

    async def result(self, split: str, arch_id: str) -> dict[str, Any]:
        """The outcome of a queued candidate, as JSON values, when it is known. Raises the error of a scorer."""
        return outcome_to_dict(await self._unless_broken(self.futures[split, arch_id]))

    async def _unless_broken(self, future: asyncio.Future[T]) -> T:
        """What ``future`` comes to. Raises what ended the scoring when that comes first: then it may never come."""
        await asyncio.wait([future, self.broken], return_when=asyncio.FIRST_COMPLETED)
        if not future.done():
            self.broken.result()
        return future.result()

    async def predict(self, split: str, arch: Architecture) -> Predictions | None:
        """What an architecture says of each image of a split; None where there is nothing to say.

        None, too, where evaluators are lost over it again and again: what is shown is no reason to lose a search. Raises what
        keeps evaluators from starting, when there is none to ask.
        """
        for _ in range(ATTEMPTS):
            evaluator = await self._next_free()
            try:
                asked = evaluator.predict.remote(arch, self.images[split])
                found: Predictions | None = await self._in_time(asked, split, arch)
            except RayTaskError as error:  # as in scoring
                self.free.put_nowait(evaluator)
                raise told(error) from None
            except (RayError, OverdueError) as error:
                await self._lose(evaluator, error)
                continue
            self.free.put_nowait(evaluator)
            return found
        self.said.append(f"no predictions of {split}: {ATTEMPTS} evaluators in turn ended over them")
        return None

    async def _next_free(self) -> Actor:
        """The next evaluator that is free. Raises what ended the scoring when that comes first."""
        taking = asyncio.ensure_future(self.free.get())
        try:
            return await self._unless_broken(taking)
        finally:
            taking.cancel()  # nothing, where it was taken

    async def usage(self, split: str, part: Span) -> dict[str, Any] | None:
        """See :meth:`~raysearch.distributed.usage.UsageLog.usage`; as JSON values."""
        usage = self.usage_log.usage(split, part=part)
        return None if usage is None else asdict(usage)

    async def _score(self, split: str, arch: Architecture, part: Part | None) -> Result | Failure:
        if isinstance(part, Race):
            incumbent = self.journal.outcomes[split, part.incumbent]
            assert isinstance(incumbent, Result)
            assert incumbent.competes
            part = replace(part, outcomes=incumbent.outcomes, kind=incumbent.kind)
        outcome: Result | Failure
        tries = lost = hung = 0
        while tries < TRIES and lost < ATTEMPTS and hung < HANGS:
            evaluator = await self.free.get()
            try:
                await evaluator.ping.remote()
            except RayError as error:  # lost while it was idle: no candidate's fault
                await self._lose(evaluator, error)
                continue
            begin = time.monotonic()
            tries += 1
            self.usage_log.queued(-1, begin)
            try:
                self.busy += 1
                asked = evaluator.score.remote(arch, self.images[split], part)
                outcome = outcome_from_dict(await self._in_time(asked, split, arch))
            except RayTaskError as error:  # a bug in the scorer, or what the user can mend; the evaluator lives
                self.free.put_nowait(evaluator)
                raise told(error) from None
            except RayError as error:  # the process, its node, or what it was sent: another one may have more luck
                self.usage_log.queued(1, time.monotonic())
                lost += await self._lose(evaluator, error)
                continue
            except OverdueError as error:
                self.usage_log.queued(1, time.monotonic())
                await self._lose(evaluator, error)
                self._count_hang()
                hung += 1
                continue
            finally:
                self.busy -= 1
            end = time.monotonic()
            self.usage_log.scored(split, evaluator, begin, end)
            self.hung = 0
            if isinstance(outcome, Result) and not outcome.partial:
                self.deadlines.took(split, end - begin)
            self.free.put_nowait(evaluator)
            break
        else:
            self.usage_log.queued(-1, time.monotonic())
            outcome = Failure(
                f"{HANGS} evaluators hung while scoring it"
                if hung == HANGS
                else f"{tries} evaluators were lost while scoring it"
            )
        self.journal.append((split, arch.id), outcome)
        self.metrics.outcome(split, outcome)
        return outcome


def start_pool(
    make_scorer: Callable[[], Scorer],
    config: EvaluatorConfig,
    *,
    name: str,
    journal: Path,
    weights: str,
    calibration: str | None = None,
) -> Actor:
    """Start a pool on this node, under a name by which trials find it."""
    arguments = (make_scorer, config, journal.resolve(), weights, calibration)
    return beside_caller(Pool, *arguments, name=name, max_concurrency=10_000)
