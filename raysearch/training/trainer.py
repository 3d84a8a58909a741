"""One process's share of supernet training: which architecture a step trains, the step, the state between epochs."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection
from random import Random
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
import torch.distributed
from torch import Tensor, nn

from raysearch.errors import UserError
from raysearch.nn.precision import autocast
from raysearch.space import Architecture
from raysearch.store.summary import EpochRecord
from raysearch.tasks.task import Batches, Task
from raysearch.training.checkpoint import with_prefix, without_prefix
from raysearch.training.config import TrainingConfig

A = TypeVar("A", bound=Architecture)
A_co = TypeVar("A_co", bound=Architecture, covariant=True)


LOOK_EVERY = 10
"""Steps between two looks at how many were skipped in a row, where looking makes the device wait."""


class TrainingDivergedError(UserError):
    """Loss or gradients are no longer finite, on all processes alike."""


class Draws(Protocol[A_co]):
    """Where the architecture of each step comes from: a search space, or :class:`~raysearch.training.alone.Only`."""

    def sample(self, rng: Random) -> A_co:
        """The architecture of a step, a function of the generator's state."""
        ...


class SupernetTrainer(Generic[A]):
    """Trains the subnets of a supernet, one draw per step; knows nothing of Ray.

    The draw of a step is a function of (seed, step), so all processes train the same architecture and a resumed run repeats
    itself. Gradients of weights outside the drawn subnet are zero where a tensor is used in part, so those entries move on
    with Adam's momentum and decay, and None where a block is not used at all, so that block rests. Both are as published.

    A step whose loss or gradients are not finite on any process is skipped on all of them: weights, moments and step counts
    stay as they are, and the next step goes on. After more such steps in a row than ``config.max_skipped_steps``, training
    ends.

    Args:
        supernet: the network, called with images and an architecture; already on ``device``.
        space: where architectures are drawn from.
        batches: the training split.
        config: the recipe.
        task: gives the loss.
        outputs: numbers that the network gives for one item; for Mixup and CutMix.
        seed: of draws and augmentation.
        device: where to compute.
        rank: of this process; only augmentation depends on it.
        undecayed: last parts of the names of parameters that weight decay leaves alone although they have several dimensions;
            those of one, as biases and norms, are never decayed.
        parallel: wraps the network for gradient averaging between processes.

    """

    def __init__(
        self,
        supernet: nn.Module,
        space: Draws[A],
        batches: Batches,
        config: TrainingConfig,
        *,
        task: Task,
        outputs: int,
        seed: int,
        device: torch.device,
        rank: int = 0,
        undecayed: Collection[str] = (),
        parallel: Callable[[nn.Module], nn.Module] | None = None,
    ) -> None:
        self.supernet, self.space, self.batches, self.config = supernet, space, batches, config
        self.task, self.seed, self.device, self.rank = task, seed, device, rank
        self.model = parallel(supernet) if parallel else supernet
        decayed = {name: p.ndim > 1 and name.rpartition(".")[2] not in undecayed for name, p in supernet.named_parameters()}
        groups = [
            {"params": [p for name, p in supernet.named_parameters() if decayed[name] == decay], "weight_decay": rate}
            for decay, rate in ((True, config.weight_decay), (False, 0.0))
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=config.lr, fused=True)
        self.mix = task.mix(mixup=config.mixup, cutmix=config.cutmix, label_smoothing=config.label_smoothing, outputs=outputs)
        self._in_a_row = torch.zeros((), device=device)
        """Steps skipped since the last that was taken."""

    @property
    def steady(self) -> bool:
        """Whether the last step was taken: weights after skipped steps may be those that all further steps fail with."""
        return not self._in_a_row

    def train_epoch(self, epoch: int, *, on_step: Callable[[int], object] = lambda _: None) -> EpochRecord:
        """Train one epoch (0-based). ``on_step`` is called with the number of steps done after each.

        Raises TrainingDivergedError on every process when too many steps in a row were skipped, or all of the epoch.
        """
        started = time.perf_counter()
        self.model.train()
        # Stochastic depth and Mixup draw from the global generators: set here, so that a resumed epoch repeats itself.
        chance = Random(f"{self.seed}/augment/{epoch}/{self.rank}")
        torch.manual_seed(chance.getrandbits(63))
        np.random.seed(chance.getrandbits(32))  # noqa: NPY002  (the generator that timm's Mixup draws from)
        random.seed(chance.getrandbits(63))
        total = torch.zeros(2, dtype=torch.float64, device=self.device)  # sum of losses, number of images
        skipped = torch.zeros((), device=self.device)
        lr = 0.0
        for i, (images, labels) in enumerate(self.batches.epoch(epoch)):
            step = epoch * self.batches.steps_per_epoch + i
            lr = self.config.learning_rate(step, steps_per_epoch=self.batches.steps_per_epoch)
            inputs, targets = (part.to(self.device, non_blocking=True) for part in (images, labels))
            loss, bad = self._step(inputs, targets, step, lr)
            of_step = torch.stack((loss.double() * len(images), torch.full_like(loss, len(images), dtype=torch.float64)))
            total += torch.where(bad > 0, torch.zeros_like(of_step), of_step)
            skipped += bad
            self._in_a_row = (self._in_a_row + bad) * bad
            if self.device.type == "cpu" or (i + 1) % LOOK_EVERY == 0:
                self._look(epoch, lr)
            on_step(i + 1)
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(total)
        self._look(epoch, lr)
        if not total[1]:
            raise TrainingDivergedError(f"no step of epoch {epoch + 1} had a finite loss and gradient; {_calmer(lr)}")
        loss = float(total[0] / total[1])
        return EpochRecord(epoch, loss, lr, time.perf_counter() - started, skipped=int(skipped))

    def _look(self, epoch: int, lr: float) -> None:
        """Raises TrainingDivergedError after too many skipped steps in a row; on all processes at the same step."""
        if (in_a_row := int(self._in_a_row)) > self.config.max_skipped_steps:
            raise TrainingDivergedError(
                f"{in_a_row} training steps in a row, to epoch {epoch + 1}, had no finite loss and gradient; {_calmer(lr)}"
            )

    def _step(self, images: Tensor, targets: Tensor, step: int, lr: float) -> tuple[Tensor, Tensor]:
        """One update; returns the detached mean loss, and 1 where the update was skipped, else 0, on the device."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        if self.mix is not None:
            images, targets = self.mix(images, targets)
        mean = torch.zeros((), device=self.device)
        for k in range(self.config.archs_per_step):
            arch = self.space.sample(Random(f"{self.seed}/train/{step}/{k}"))
            with autocast(self.device, self.config.precision):
                loss = self.task.loss(self.model(images, arch), targets, label_smoothing=self.config.label_smoothing)
                loss = loss / self.config.archs_per_step
            loss.backward()
            mean = mean + loss.detach()
        if self.config.clip_grad is not None:
            norm = nn.utils.clip_grad_norm_(self.supernet.parameters(), self.config.clip_grad)
        else:
            gradients = [p.grad for p in self.supernet.parameters() if p.grad is not None]
            norm = nn.utils.get_total_norm(gradients, norm_type=float("inf"))
        bad = (~(torch.isfinite(mean) & torch.isfinite(norm))).float()
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(bad, op=torch.distributed.ReduceOp.MAX)
        # By this attribute, torch.amp.GradScaler too has a fused optimiser leave everything as it is, not asking the device.
        setattr(self.optimizer, "found_inf", bad)  # noqa: B010  # its class does not declare it
        self.optimizer.step()
        return mean, bad

    def state(self) -> dict[str, Tensor]:
        """Weights and optimiser state by name: everything that the next epoch depends on."""
        named: dict[Tensor, str] = {parameter: name for name, parameter in self.supernet.named_parameters()}
        moments = {
            f"{named[parameter]}/{key}": value
            for parameter, values in self.optimizer.state.items()
            for key, value in values.items()
        }
        return with_prefix("model/", self.supernet.state_dict()) | with_prefix("optimizer/", moments)

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from :meth:`state`."""
        self.supernet.load_state_dict(without_prefix("model/", state))
        moments = without_prefix("optimizer/", state)
        parameters: dict[str, Any] = dict(self.supernet.named_parameters())
        for name, value in moments.items():
            owner, key = name.rsplit("/", 1)
            # The fused AdamW keeps its step counts beside the parameters too.
            self.optimizer.state[parameters[owner]][key] = value.to(self.device)


def _calmer(lr: float) -> str:
    """What helps against divergence."""
    return f"the learning rate was {lr:.2g}: lower train.lr, raise train.warmup-epochs or set train.clip-grad"
