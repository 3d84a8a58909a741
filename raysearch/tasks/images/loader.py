"""Training batches of one process: order, augmentation and normalisation, each a function of (seed, epoch)."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from raysearch.errors import UserError
from raysearch.tasks.images.config import DataConfig
from raysearch.tasks.images.decoded import loader_processes, reads_remotely, training_images
from raysearch.tasks.images.images import ArrayImages, ImageSet
from raysearch.tasks.images.transforms import AugmentConfig, Normalisation, training_transform

Batch = tuple[Float[Tensor, "batch chans height width"], Shaped[Tensor, " batch"]]
"""Normalised images and their labels."""


class _Dealt:
    """Which of ``count`` images one process sees in each step: a function of (seed, epoch), see :class:`TrainLoader`.

    Raises UserError when there are fewer images than processes.
    """

    def __init__(self, count: int, augment: AugmentConfig, *, batch_size: int, seed: int, rank: int, world_size: int) -> None:
        self._count, self._copies = count, augment.repeated_augmentation
        self._seed, self._rank, self._world_size = seed, rank, world_size
        share = count // world_size
        if share == 0:
            raise UserError(f"{count} training images for {world_size} parts of a step: lower train.shards or train.workers")
        # A share below the batch size is cut to an even number, which Mixup asks for.
        self.batch_size = batch_size if batch_size <= share else max(1, share // 2 * 2)
        self.steps_per_epoch = share // self.batch_size

    def order(self, epoch: int) -> Int64[Tensor, "steps batch"]:
        """Which image stands where in this process's epoch: indices into the training split."""
        generator = torch.Generator().manual_seed(_bits(f"{self._seed}/order/{epoch}"))
        shuffled = torch.randperm(self._count, generator=generator)
        # Copies stand side by side and go to different processes, as in DeiT's repeated augmentation; timm's sampler
        # for it would drop all images of a set below 256 or pad the last process with images of the first.
        copies = shuffled.repeat_interleave(self._copies)
        mine = copies[self._rank :: self._world_size][: self.steps_per_epoch * self.batch_size]
        return mine.view(self.steps_per_epoch, self.batch_size)

    @property
    def _stream(self) -> str:
        """Name of the stream of chance that the process varies its images by."""
        return f"{self._seed}/augment/{self._rank}"


class TrainLoader(_Dealt):
    """The part of the training images that one process sees; every process has the same number of steps of the same size.

    The images of an epoch are shuffled by ``(seed, epoch)`` and dealt to the processes, so no two see the same one (with
    repeated augmentation: the same copy). What does not fill a last step is left out, other images in each epoch. A resumed
    run repeats the epochs of an uninterrupted one, with any number of ``workers``.

    Args:
        images: the training split.
        config: size and normalisation.
        augment: how images are varied.
        batch_size: images per step of this process; fewer when the split has not as many per process.
        seed: of order and augmentation.
        rank: this process, from 0.
        world_size: number of processes.
        workers: processes that decode images for this one; 0 decodes here. None: as this machine suggests.

    Raises:
        UserError: when there are fewer images than processes.

    """

    def __init__(
        self,
        images: ImageSet,
        config: DataConfig,
        augment: AugmentConfig,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        workers: int | None = 0,
    ) -> None:
        super().__init__(len(images), augment, batch_size=batch_size, seed=seed, rank=rank, world_size=world_size)
        self._batches: _Batches
        if isinstance(images, ArrayImages) and images.fits(config) and augment.moves_only:
            self._batches = _ArrayBatches(images, config, augment, stream=self._stream)
        else:
            images = training_images(images, config)
            count = loader_processes(workers, images, config, world_size=world_size)
            self._batches = _DecodedBatches(images, config, augment, stream=self._stream, workers=count)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The steps of one epoch (0-based) from the ``start``-th on. Raises UserError that names an unreadable image."""
        return self._batches.epoch(self.order(epoch), epoch, start)


class ImageStream(_Dealt):
    """The images of a :class:`TrainLoader` one by one, the same to the last bit, for machines that prepare them for others.

    It travels to those machines, each of which decodes once what fits into its memory. The arguments are the loader's.
    """

    def __init__(
        self,
        images: ImageSet,
        config: DataConfig,
        augment: AugmentConfig,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(len(images), augment, batch_size=batch_size, seed=seed, rank=rank, world_size=world_size)
        self._images, self._config, self._augment = images, config, augment
        self._varied: _Varied | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_varied": None}

    def keys(self, epoch: int) -> Int64[np.ndarray, "steps batch key"]:
        """What makes up each image of an epoch: the epoch, the position in it, and the index, as a :data:`Key`."""
        indices = self.order(epoch).numpy()
        return np.stack([np.full_like(indices, epoch), np.arange(indices.size).reshape(indices.shape), indices], axis=-1)

    def prepare(
        self, keys: Int64[np.ndarray, "items key"]
    ) -> tuple[Float[np.ndarray, "items chans height width"], Shaped[np.ndarray, " items"]]:
        """Images and labels as the network takes them. Raises UserError that names an unreadable image."""
        if self._varied is None:
            images = training_images(self._images, self._config)
            self._varied = _Varied(images, training_transform(self._config, self._augment), stream=self._stream)
        made = [self._varied[epoch, position, index] for epoch, position, index in keys.tolist()]
        return np.stack([image.numpy() for image, _ in made]), np.array([label for _, label in made])


class _Batches(Protocol):
    def epoch(self, order: Int64[Tensor, "steps batch"], epoch: int, start: int) -> Iterator[Batch]: ...


class _ArrayBatches:
    """Images in memory, varied a batch at a time by one gather: no work per image in Python."""

    def __init__(self, images: ArrayImages, config: DataConfig, augment: AugmentConfig, *, stream: str) -> None:
        padded = functional.pad(torch.from_numpy(images.pixels), (augment.shift,) * 4)
        # A view, not a copy: every window of the image's size, (image, chans, down, right, height, width).
        self._windows = padded.unfold(2, config.img_size, 1).unfold(3, config.img_size, 1)
        self._labels = torch.from_numpy(images.labels)
        self._augment = augment
        self._normalise = Normalisation(config.mean, config.std)
        self._stream = stream

    def epoch(self, order: Int64[Tensor, "steps batch"], epoch: int, start: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(_bits(f"{self._stream}/{epoch}"))
        down, right = torch.randint(2 * self._augment.shift + 1, (2, *order.shape), generator=generator)
        flipped = torch.rand(order.shape, generator=generator) < self._augment.hflip
        for step, index in enumerate(order[start:], start):
            pixels = self._windows[index, :, down[step], right[step]]
            if self._augment.hflip:
                pixels = torch.where(flipped[step].view(-1, 1, 1, 1), pixels.flip(-1), pixels)
            batch = self._normalise(pixels), self._labels[index]
            # As the loader of decoded images does: a copy from pinned memory does not wait.
            yield (batch[0].pin_memory(), batch[1].pin_memory()) if torch.cuda.is_available() else batch


class _DecodedBatches:
    """Images decoded and varied one by one, in worker processes that live as long as the loader."""

    def __init__(self, images: ImageSet, config: DataConfig, augment: AugmentConfig, *, stream: str, workers: int) -> None:
        self._keys = _Keys()
        self._loader: DataLoader[tuple[Tensor, float]] = DataLoader(
            _Varied(images, training_transform(config, augment), stream=stream),
            batch_sampler=self._keys,
            num_workers=workers,
            persistent_workers=workers > 0,
            multiprocessing_context="spawn" if workers and reads_remotely(images) else None,
            pin_memory=torch.cuda.is_available(),
            # Its own generator: the loader would draw from the global one, which dropout uses.
            generator=torch.Generator(),
        )

    def epoch(self, order: Int64[Tensor, "steps batch"], epoch: int, start: int) -> Iterator[Batch]:
        self._keys.order, self._keys.epoch, self._keys.start = order, epoch, start
        try:
            yield from self._loader
        except UserError as error:
            # A loader process sends its traceback as text; what the user needs is its last line.
            raise UserError(str(error).strip().splitlines()[-1].removeprefix("raysearch.errors.UserError: ")) from error


Key = tuple[int, int, int]
"""Epoch, position in it, and index of an image: all that its augmentation depends on."""


class _Keys:
    """Tells the loader's workers which images make up each step of the current epoch."""

    def __init__(self) -> None:
        self.order = torch.empty((0, 0), dtype=torch.int64)
        self.epoch = self.start = 0

    def __iter__(self) -> Iterator[list[Key]]:
        size = self.order.shape[1]
        for step, indices in enumerate(self.order[self.start :].tolist(), self.start):
            yield [(self.epoch, step * size + offset, index) for offset, index in enumerate(indices)]


class _Varied(Dataset[tuple[Tensor, float]]):
    def __init__(self, images: ImageSet, transform: Callable[[Image.Image], Tensor], *, stream: str) -> None:
        self._images = images
        self._transform = transform
        self._stream = stream

    def __getitem__(self, key: Key) -> tuple[Tensor, float]:
        epoch, position, index = key
        image = self._images.decode(index)
        with _seeded(f"{self._stream}/{epoch}/{position}"):
            return self._transform(image), self._images.labels[index].item()


def _bits(stream: str) -> int:
    """A seed for torch from a named stream."""
    return Random(stream).getrandbits(63)


@contextmanager
def _seeded(stream: str) -> Generator[None]:
    """Global generators, which timm and torchvision draw from, as a function of ``stream``; restored afterwards."""
    state = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    seed = _bits(stream)
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(state[0])
        np.random.set_state(state[1])  # noqa: NPY002
        torch.set_rng_state(state[2])
