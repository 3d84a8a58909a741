"""One process's share of supernet training: which architecture a step trains, the step, the state between epochs."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Self, TypeVar

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from raysearch.errors import UserError
from raysearch.nn.drop_path import part_of_batch
from raysearch.nn.precision import autocast
from raysearch.space import Architecture, Cost
from raysearch.store.summary import EpochRecord
from raysearch.tasks.task import Batches, Task
from raysearch.training.checkpoint import with_prefix, without_prefix
from raysearch.training.config import TrainingConfig
from raysearch.training.distillation import distillation_loss
from raysearch.training.draws import Draws
from raysearch.training.fsdp import divide, divided_as, own_part, processes, whole
from raysearch.training.groups import LR_SCALE, parameter_groups
from raysearch.training.shards import Chance, Shards
from raysearch.training.strategy import Pass, Strategy

A = TypeVar("A", bound=Architecture)


LOOK_EVERY = 10
"""Steps between two looks at how many were skipped in a row, where looking makes the device wait."""


class TrainingDivergedError(UserError):
    """Loss or gradients are no longer finite, on all processes alike."""


@dataclass(frozen=True, slots=True)
class Within:
    """How far an epoch is that is not finished."""

    step: int
    """Steps done of it."""
    totals: list[tuple[float, float]]
    """By process, sum of the losses and number of the images so far."""
    skipped: int
    """Steps that were skipped."""
    seconds: float
    """That it took so far."""

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of :func:`dataclasses.asdict`, through JSON."""
        totals = [(losses, images) for losses, images in values["totals"]]
        return cls(values["step"], totals, values["skipped"], values["seconds"])


@dataclass(slots=True)
class _Part:
    """One shard of a step."""

    images: Tensor
    targets: Tensor
    soft: Tensor | None
    """Logits of whoever teaches."""


class SupernetTrainer(Generic[A]):
    """Trains the subnets of a supernet, or one subnet alone; knows nothing of Ray.

    What a step trains is a function of (seed, step) (:mod:`raysearch.training.strategy`), so all processes train the same
    architectures and a resumed run repeats itself. Gradients of weights outside the trained subnets are zero where a tensor is
    used in part, so those entries move on with Adam's momentum and decay, and None where a block is not used at all, so that
    block rests. Both are as published.

    A step whose loss or gradients are not finite on any process is skipped on all of them: weights, moments and step counts
    stay as they are, and the next step goes on. After more such steps in a row than ``config.max_skipped_steps``, training
    ends.

    Args:
        supernet: the network, called with images and an architecture; already on ``device``.
        space: where architectures are drawn from.
        batches: the training split; :class:`~raysearch.training.shards.Shards` where the processes that share a step may become
            fewer or more.
        config: the recipe.
        task: gives the loss.
        outputs: numbers that the network gives for one item; for Mixup and CutMix.
        seed: of draws and augmentation.
        device: where to compute.
        rank: of this process; augmentation depends on it, and the draws where ``config.arch_per_rank`` says so.
        undecayed: last parts of the names of parameters that weight decay leaves alone although they have several dimensions;
            those of one, as biases and norms, are never decayed.
        parallel: wraps the network for gradient averaging between processes.
        cost: of an architecture, in closed form; needed for the strategy ``multi``.
        teacher: logits of a frozen network for a step's inputs as they are trained on, mixed ones too. It teaches every pass,
            whatever ``config.distill.source`` says; called without gradients, in the training's precision.
        soft_labels: logits of the teacher by number of the shard, epoch and place of the batch in it, where they are known
            beforehand; instead of ``teacher``.

    """

    def __init__(
        self,
        supernet: nn.Module,
        space: Draws[A],
        batches: Batches | Shards,
        config: TrainingConfig,
        *,
        task: Task,
        outputs: int,
        seed: int,
        device: torch.device,
        rank: int = 0,
        undecayed: Collection[str] = (),
        parallel: Callable[[nn.Module], nn.Module] | None = None,
        cost: Callable[[A], Cost] | None = None,
        teacher: Callable[[Tensor], Tensor] | None = None,
        soft_labels: Callable[[int, int, int], Tensor] | None = None,
    ) -> None:
        self.supernet, self.config = supernet, config
        self.shards = batches if isinstance(batches, Shards) else Shards.whole(batches, shard=rank)
        self.chance = Chance(seed, self.shards.mine, device)
        self.task, self.seed, self.device, self.rank = task, seed, device, rank
        self.strategy = Strategy(space, config, seed=seed, rank=rank, cost=cost)
        assert config.distill.source != "teacher" or teacher or soft_labels, "nobody teaches"
        self.teacher, self.soft_labels = teacher, soft_labels
        self.averaged = _averaged(supernet, config.ema) if config.ema is not None else None
        """Moving average of the weights (timm's ModelEmaV3)."""
        self._divided = config.fsdp and processes() > 1
        if self._divided:
            if self.shards.of % self.shards.world_size:
                raise UserError(
                    f"with fsdp every process needs equally many of the {self.shards.of} parts of a step, but "
                    f"{self.shards.world_size} share them; give another number of train.workers"
                )
            for network in (supernet, *([] if self.averaged is None else [self.averaged.module])):
                divide(network, device)
        self.model = parallel(supernet) if parallel and not self._divided else supernet
        groups = parameter_groups(
            supernet, weight_decay=config.weight_decay, undecayed=undecayed, layer_decay=config.layer_decay
        )
        self.optimizer = torch.optim.AdamW(groups, lr=config.lr, fused=True)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "float16")
        """Keeps small gradients of float16 above what that format holds; does nothing for other formats."""
        self.mix = task.mix(mixup=config.mixup, cutmix=config.cutmix, label_smoothing=config.label_smoothing, outputs=outputs)
        self._in_a_row = torch.zeros((), device=device)
        """Steps skipped since the last that was taken."""

    @property
    def steady(self) -> bool:
        """Whether the last step was taken: weights after skipped steps may be those that all further steps fail with."""
        return not self._in_a_row

    def train_epoch(
        self,
        epoch: int,
        *,
        begun: Within | None = None,
        on_step: Callable[[int], object] = lambda _: None,
        wanted: Callable[[int], bool] = lambda _: False,
        keep: Callable[[Within], object] = lambda _: None,
    ) -> EpochRecord:
        """Train one epoch (0-based).

        Raises TrainingDivergedError on every process when too many steps in a row were skipped, or all of the epoch.

        Args:
            epoch: its number.
            begun: how far it is; None: it begins.
            on_step: called with the number of steps done after each.
            wanted: whether the training shall be able to go on after so many steps; the same answer in every process.
            keep: called where it shall, unless the last step was skipped; :meth:`state` is then what belongs to it.

        """
        begun = begun or Within(0, [], 0, 0.0)
        started = time.perf_counter() - begun.seconds
        self.model.train()
        # Sum of losses and number of images; those of processes that are fewer now are added up by one each.
        totals = begun.totals[self.rank :: processes()]
        total = torch.tensor(totals or [(0.0, 0.0)], dtype=torch.float64).sum(0).to(self.device)
        skipped = torch.tensor(float(begun.skipped), device=self.device)
        lr = 0.0
        for i, batches in enumerate(self.shards.epoch(epoch, begun.step), begun.step):
            step = epoch * self.shards.steps_per_epoch + i
            self.chance.begin(step)
            lr = self.config.learning_rate(step, steps_per_epoch=self.shards.steps_per_epoch)
            loss, bad = self._step({s: self._part(s, batch, epoch, i) for s, batch in batches.items()}, step=step, lr=lr)
            count = sum(len(images) for images, _ in batches.values())
            of_step = torch.stack((loss.double() * count, torch.full_like(loss, count, dtype=torch.float64)))
            total += torch.where(bad > 0, torch.zeros_like(of_step), of_step)
            skipped += bad
            self._in_a_row = (self._in_a_row + bad) * bad
            if self.device.type == "cpu" or (i + 1) % LOOK_EVERY == 0:
                self._look(epoch, lr)
            on_step(i + 1)
            if wanted(i + 1) and self.steady:
                seconds = time.perf_counter() - started
                keep(Within(i + 1, _of_all_processes(total), int(skipped), seconds))
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(total)
        self._look(epoch, lr)
        if not total[1]:
            raise TrainingDivergedError(f"no step of epoch {epoch + 1} had a finite loss and gradient; {_calmer(lr)}")
        loss = float(total[0] / total[1])
        return EpochRecord(epoch, loss, lr, time.perf_counter() - started, skipped=int(skipped))

    def _part(self, shard: int, batch: tuple[Tensor, Tensor], epoch: int, place: int) -> _Part:
        """One shard of a step on the device, with the teacher's logits where they are known."""
        images, targets = (part.to(self.device, non_blocking=True) for part in batch)
        soft = None
        if self.soft_labels is not None:
            soft = self.soft_labels(shard, epoch, place).to(self.device, non_blocking=True)
        return _Part(images, targets, soft)

    def _look(self, epoch: int, lr: float) -> None:
        """Raises TrainingDivergedError after too many skipped steps in a row; on all processes at the same step."""
        if (in_a_row := int(self._in_a_row)) > self.config.max_skipped_steps:
            raise TrainingDivergedError(
                f"{in_a_row} training steps in a row, to epoch {epoch + 1}, had no finite loss and gradient; {_calmer(lr)}"
            )

    def step(
        self, images: Tensor, targets: Tensor, *, step: int, lr: float, soft: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """One update; returns the detached mean loss, and 1 where the update was skipped, else 0, on the device.

        Args:
            images: inputs of this process on the device.
            targets: their labels.
            step: number of the step in the whole training (0-based).
            lr: learning rate.
            soft: a teacher's logits for ``images``, where they are known.

        """
        (shard,) = self.shards.mine
        return self._step({shard: _Part(images, targets, soft)}, step=step, lr=lr)

    def _step(self, parts: Mapping[int, _Part], *, step: int, lr: float) -> tuple[Tensor, Tensor]:
        """One update from the parts of all shards of this process; the loss is the mean over them."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get(LR_SCALE, 1.0)
        self.optimizer.zero_grad(set_to_none=True)
        size = max(len(part.images) for part in parts.values())
        passes = self.strategy.passes(step, of=self.config.epochs * self.shards.steps_per_epoch, images=size)
        # Without a teacher of its own, the largest subnet teaches the others: in a sandwich by what it gave as it learned.
        largest = None
        for shard, part in parts.items():
            with self.chance.of(shard):
                if self.mix is not None:
                    part.images, part.targets = self.mix(part.images, part.targets)
                if part.soft is None and self.teacher is not None:
                    part.soft = self._logits(self.teacher, part.images)
                if part.soft is not None or self.config.distill.source != "largest":
                    continue
                largest = self.strategy.draws.largest()
                if self.config.strategy != "sandwich" and any(one.arch != largest for one in passes):
                    part.soft = self._logits(partial(self.supernet, arch=largest), part.images)
        seen = sum(len(one.rows) for one in passes)
        mean = torch.zeros((), device=self.device)
        for one in passes:
            for shard, part in parts.items():
                with self.chance.of(shard):
                    outputs, mean = self._pass(
                        one,
                        part,
                        None if one.arch == largest else part.soft,
                        mean=mean,
                        seen=seen,
                        last=shard == next(reversed(parts)),
                    )
                if one.arch == largest and part.soft is None:
                    part.soft = outputs
        if self.scaler.is_enabled():
            self.scaler.unscale_(self.optimizer)
        if self.config.clip_grad is not None:
            norm = whole(nn.utils.clip_grad_norm_(self.supernet.parameters(), self.config.clip_grad)).to(self.device)
        else:
            gradients = [own_part(p.grad) for p in self.supernet.parameters() if p.grad is not None]
            gradients = [gradient for gradient in gradients if gradient.numel()]  # a small weight leaves some process nothing
            norm = nn.utils.get_total_norm(gradients, norm_type=float("inf"))
        bad = (~(torch.isfinite(mean) & torch.isfinite(norm))).float()
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(bad, op=torch.distributed.ReduceOp.MAX)
        # By this attribute, torch.amp.GradScaler too has a fused optimiser leave everything as it is, not asking the device.
        setattr(self.optimizer, "found_inf", bad)  # noqa: B010  # its class does not declare it
        self.optimizer.step()
        self.scaler.update()  # lowers the scale after a step whose gradients it made too large, which is one that is skipped
        if self.averaged is not None:
            self.averaged.update(self.supernet, step=step + 1)
        return mean / len(parts), bad

    def _pass(
        self, one: Pass[A], part: _Part, soft: Tensor | None, *, mean: Tensor, seen: int, last: bool
    ) -> tuple[Tensor, Tensor]:
        """Forward and backward of one architecture on one shard; returns its detached outputs, and ``mean`` plus its loss.

        ``seen``: images of all passes of the step together, by which the sum of the losses becomes a mean. ``last``: of the
        shards of this process.
        """
        outputs: list[Tensor] = []
        for rows in self._parts(one.rows):
            # Processes average gradients once for each architecture: weights that the last backward pass of a step does not
            # use, but an earlier one did, would stay as they are on each process (DistributedDataParallel).
            with nullcontext() if last and rows.stop == one.rows.stop else self._unaveraged():
                with autocast(self.device, self.config.precision):
                    logits = self.model(part.images[rows], one.arch)
                    loss = self._loss(logits, part.targets[rows], None if soft is None else soft[rows])
                    loss = loss / (seen / len(logits))
                self.scaler.scale(loss * self.shards.weight).backward()
            mean = mean + loss.detach()
            outputs.append(logits.detach())
        return torch.cat(outputs), mean

    def _loss(self, outputs: Tensor, targets: Tensor, soft: Tensor | None) -> Tensor:
        """Of the labels, of a teacher's logits, or of both in their shares."""
        config = self.config.distill
        share = 0.0 if soft is None else config.share
        if soft is None or share == 0:
            return self.task.loss(outputs, targets, label_smoothing=self.config.label_smoothing)
        distilled = distillation_loss(config, outputs, soft)
        if share == 1:
            return distilled
        labelled = self.task.loss(outputs, targets, label_smoothing=self.config.label_smoothing)
        return share * distilled + (1 - share) * labelled

    @torch.no_grad()
    def _logits(self, network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """What a network that learns nothing from it gives for the images of a step, in parts as a training pass."""
        with autocast(self.device, self.config.precision):
            return torch.cat([network(images[rows]) for rows in self._parts(range(len(images)))])

    def _parts(self, rows: range) -> Iterator[slice]:
        """The images of one forward pass after the other, each beginning with the chance that the whole would begin with.

        Stochastic depth in it draws for the whole and gives the part its own, so that it drops the same in parts.
        """
        size = self.config.micro_batch or len(rows)
        if size >= len(rows):
            yield slice(rows.start, rows.stop)
            return
        chance = self._chance()
        for start in range(0, len(rows), size):
            self._take_chance(chance)
            with part_of_batch(start, len(rows)):
                yield slice(rows.start + start, min(rows.start + start + size, rows.stop))

    def _unaveraged(self) -> AbstractContextManager[None]:
        """Gradients stay with this process for now."""
        return self.model.no_sync() if isinstance(self.model, DistributedDataParallel) else nullcontext()

    def _chance(self) -> Tensor:
        """State of the generator that stochastic depth draws from."""
        return torch.get_rng_state() if self.device.type == "cpu" else torch.cuda.get_rng_state(self.device)

    def _take_chance(self, state: Tensor) -> None:
        if self.device.type == "cpu":
            torch.set_rng_state(state)
        else:
            torch.cuda.set_rng_state(state, self.device)

    def state(self) -> dict[str, Tensor]:
        """Weights and optimiser state by name: everything that the next epoch depends on.

        All processes ask for it at once: where they share the weights, they gather them, and the first alone gets any.
        """
        named: dict[Tensor, str] = {parameter: name for name, parameter in self.supernet.named_parameters()}
        moments = {
            f"{named[parameter]}/{key}": value
            for parameter, values in self.optimizer.state.items()
            for key, value in values.items()
        }
        state = with_prefix("model/", self.supernet.state_dict()) | with_prefix("optimizer/", moments)
        if self.averaged is not None:
            state |= with_prefix("ema/", self.averaged.module.state_dict())
        state |= {f"scaler/{name}": torch.tensor(value) for name, value in self.scaler.state_dict().items()}
        if not self._divided:
            return state
        kept: dict[str, Tensor] = {}
        for name, tensor in state.items():
            gathered = whole(tensor)
            if self.rank == 0:
                kept[name] = gathered
        return kept

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from :meth:`state`."""
        _load(self.supernet, without_prefix("model/", state))
        if self.averaged is not None:
            _load(self.averaged.module, without_prefix("ema/", state))
        if self.scaler.is_enabled():
            self.scaler.load_state_dict({name: value.item() for name, value in without_prefix("scaler/", state).items()})
        moments = without_prefix("optimizer/", state)
        parameters: dict[str, Any] = dict(self.supernet.named_parameters())
        for name, value in moments.items():
            owner, key = name.rsplit("/", 1)
            # The fused AdamW keeps its step counts beside the parameters too.
            self.optimizer.state[parameters[owner]][key] = divided_as(parameters[owner], value)


def trained(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights that a training is for, of its :meth:`~SupernetTrainer.state`: their moving average where there is one."""
    return without_prefix("ema/", state) or without_prefix("model/", state)


def _load(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Whole weights into a network that may be divided."""
    held: Mapping[str, Tensor] = network.state_dict()
    network.load_state_dict({name: divided_as(held[name], value) if name in held else value for name, value in weights.items()})


def _of_all_processes(total: Tensor) -> list[tuple[float, float]]:
    """The two numbers of each process."""
    if not torch.distributed.is_initialized():
        gathered = [total]
    else:
        gathered = [torch.empty_like(total) for _ in range(processes())]
        torch.distributed.all_gather(gathered, total)
    return [(float(each[0]), float(each[1])) for each in gathered]


def _averaged(network: nn.Module, decay: float) -> Any:
    from timm.utils.model_ema import ModelEmaV3  # seconds to import, for the trainings that use it

    # Warmed up: in a short training the average would else be that of the initial weights.
    return ModelEmaV3(network, decay=decay, use_warmup=True)


def _calmer(lr: float) -> str:
    """What helps against divergence."""
    return f"the learning rate was {lr:.2g}: lower train.lr, raise train.warmup-epochs or set train.clip-grad"
