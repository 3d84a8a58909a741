"""A trained network of timm's that teaches: read once, frozen, given our inputs as it was trained to see them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float, Int64
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F

from raysearch.bounds import Count, check_numbers
from raysearch.errors import SettingError, UserError
from raysearch.training import checkpoint

KIND = "teacher"
LABELS_KIND = "teacher-logits"
GREY, COLOUR = 1, 3


@dataclass(frozen=True, slots=True)
class TeacherConfig:
    """A frozen network of timm's that teaches (docs/training.md)."""

    name: str | None = None
    """Its name in timm, as regnety_320.swag_lc_in1k; it needs one output per class of the images, in their order."""
    weights: Path | None = None
    """File of its weights, as timm and PyTorch save them. Default: those that timm has for the name, from the hub or its
    cache."""
    img_size: Count | None = None
    """Side of the images that it sees, in pixels. Default: what timm says of the name."""
    cache: bool = False
    """Compute its logits once, of the images without augmentation, and keep them: much faster, and right only where no
    augmentation changes what an image shows. Not with Mixup or CutMix."""

    def __post_init__(self) -> None:
        """Raises UserError for settings without the name that they are of."""
        check_numbers(self)
        if self.name is None and (self.weights is not None or self.img_size is not None or self.cache):
            raise SettingError("name", "is not given, but other settings of a teacher are; give its name in timm")


@dataclass(frozen=True, slots=True)
class TeacherFile:
    """A teacher taken from timm or from disk: enough to build it anywhere, without a network."""

    name: str
    """In timm."""
    arguments: dict[str, Any]
    """Constructor arguments: channels, classes, image size where it is fixed."""
    side: int
    """Of the images that it sees, in pixels."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Of pixels per channel, on a scale from 0 to 1, by which its inputs are normalised."""
    weights: dict[str, Tensor]

    def write(self, path: Path) -> None:
        """Put it at ``path`` as a checkpoint of our own, atomically."""
        names = ("name", "arguments", "side", "mean", "std")
        checkpoint.write(path, checkpoint.pack(self.weights, {"kind": KIND, **{name: getattr(self, name) for name in names}}))

    @staticmethod
    def read(path: Path) -> TeacherFile:
        """Inverse of :meth:`write`. Raises UserError for another file."""
        weights, found = checkpoint.read(path)
        if found.pop("kind") != KIND:
            raise UserError(f"{path} holds no teacher")
        return TeacherFile(weights=weights, **found)

    def build(self, inputs: Mapping[str, Any], device: torch.device) -> Teacher:
        """The frozen network on ``device``.

        ``inputs`` says how what it will be given was prepared: ``in_chans``, ``mean`` and ``std``, as a task's
        :meth:`~raysearch.tasks.task.Task.preprocessing`.
        """
        network = _network(self.name, self.arguments)
        network.load_state_dict(self.weights)
        return Teacher(network, self, mean=tuple(inputs["mean"]), std=tuple(inputs["std"])).to(device)


class Teacher(nn.Module):
    """A frozen network as a function from our normalised inputs to its logits, always in evaluation mode.

    Args:
        network: of timm.
        file: how it sees images.
        mean: of our inputs' normalisation, per channel.
        std: the same.

    """

    def __init__(self, network: nn.Module, file: TeacherFile, *, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.side, self.chans = file.side, file.arguments["in_chans"]
        # (ours * std + mean - theirs' mean) / theirs' std; a grey picture is the same in each of a colour network's channels.
        ours = [torch.tensor(values).view(1, -1, 1, 1) for values in (mean, std)]
        theirs = [torch.tensor(values).view(1, -1, 1, 1) for values in (file.mean, file.std)]
        self.register_buffer("scale", ours[1] / theirs[1])
        self.register_buffer("shift", (ours[0] - theirs[0]) / theirs[1])

    def train(self, mode: bool = True) -> Teacher:
        """Stays as it is: a teacher learns nothing."""
        return self

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "batch chans height width"]) -> Float[Tensor, "batch classes"]:
        """Logits for inputs that are normalised as ours."""
        images = torch.addcmul(cast(Tensor, self.shift), images, cast(Tensor, self.scale))
        if images.shape[-2:] != (self.side, self.side):
            images = F.interpolate(images, (self.side, self.side), mode="bicubic", antialias=True)
        return self.network(images)


@dataclass(frozen=True, slots=True)
class TeacherFlags:
    """How the command line calls what names a teacher, for messages."""

    name: str = "--teacher.name"
    weights: str = "--teacher.weights"


def find_teacher(config: TeacherConfig, *, outputs: int, in_chans: int, flags: TeacherFlags = TeacherFlags()) -> TeacherFile:
    """The network that ``config`` names, with its weights. Nothing in a file is executed.

    Args:
        config: with a name.
        outputs: classes of the images; it must have as many.
        in_chans: channels of the images, 1 or 3; a network of colour images can see grey ones.
        flags: that were given, as a UserError names them.

    Raises:
        UserError: in one line for a name that timm has not, weights that are missing or of another network, other classes.

    """
    assert config.name is not None
    import timm  # seconds, for the trainings that have a teacher
    from timm.data.config import resolve_data_config

    weights = None if config.weights is None else _read(config.weights, flags)
    # As the name alone says it; a file may be of other classes and channels.
    known: Any = _known(config.name, flags)
    arguments: dict[str, Any] = {"num_classes": known["num_classes"], "in_chans": known["input_size"][0]}
    if weights is not None:
        arguments = {"num_classes": _rows(weights, known["classifier"], 0), "in_chans": _rows(weights, known["first_conv"], 1)}
        if None in arguments.values():
            raise UserError(f"{flags.weights} {config.weights} holds no weights of timm's {config.name}; give its own file")
    place = f"{flags.name} {config.name}" if config.weights is None else f"{flags.weights} {config.weights}"
    if arguments["num_classes"] != outputs:
        raise UserError(f"{place} has {arguments['num_classes']} classes, the images have {outputs}; give one trained on these")
    if arguments["in_chans"] not in (in_chans, COLOUR):
        raise UserError(f"{place} sees images of {arguments['in_chans']} channels, these have {in_chans}; give another")
    if config.img_size is not None and known.get("fixed_input_size"):
        arguments["img_size"] = config.img_size
    if weights is None:
        try:
            weights = timm.create_model(config.name, pretrained=True, **arguments).state_dict()
        except (OSError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"{flags.name} {config.name}: its weights cannot be had from the hub or its cache ({reason}); give a file "
                f"with {flags.weights}"
            ) from error
    network = _network(config.name, arguments)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise UserError(f"{place} holds no weights of timm's {config.name}: {lines[min(1, len(lines) - 1)]:.200}") from None
    prepared = resolve_data_config({}, pretrained_cfg=known)
    side = config.img_size or prepared["input_size"][-1]
    mean, std = (tuple(prepared[name]) for name in ("mean", "std"))
    if arguments["in_chans"] == GREY and len(mean) == COLOUR:
        mean, std = ((sum(values) / COLOUR,) for values in (mean, std))
    return TeacherFile(config.name, arguments, side, mean, std, dict(network.state_dict()))


def _known(name: str, flags: TeacherFlags) -> dict[str, Any]:
    """What timm says of a name. Raises UserError, with near ones, for none of its own."""
    import timm
    from timm.models import get_pretrained_cfg

    if ":" in name or not timm.is_model(name):
        near = get_close_matches(name, timm.list_models(), n=3) or get_close_matches(name, timm.list_pretrained(), n=3)
        words = f"; near it are {', '.join(near)}" if near else ""
        raise UserError(f"{flags.name} {name}: timm has no network of that name{words}")
    found: Any = get_pretrained_cfg(name)
    if found is None:  # of an architecture without pretrained weights
        network: Any = timm.create_model(name, pretrained=False)
        return dict(network.pretrained_cfg)
    return dict(found.to_dict())


def _network(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    import timm

    with torch.random.fork_rng(devices=[]):  # weights are drawn only to be replaced
        return timm.create_model(name, pretrained=False, **arguments)


def _read(path: Path, flags: TeacherFlags) -> dict[str, Tensor]:
    from timm.models import load_state_dict

    try:
        found: Any = load_state_dict(str(path), weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{flags.weights} {path} does not exist") from None
    except (OSError, RuntimeError, UnpicklingError, SafetensorError, EOFError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{flags.weights} {path} is no file of weights ({reason:.100}); save it with timm or PyTorch") from None
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in cast(dict[str, Any], found).values()):
        raise UserError(f"{flags.weights} {path} holds more than weights, or none; give a state dict")
    return cast(dict[str, Tensor], found)


def _rows(weights: Mapping[str, Tensor], layer: str | Iterable[str], axis: int) -> int | None:
    """Size of a layer's weight along an axis; None where there is no such layer. Of several, the first counts."""
    name = layer if isinstance(layer, str) else next(iter(layer))
    weight = weights.get(f"{name}.weight")
    return None if weight is None else weight.shape[axis]


# --- logits that are known beforehand ---------------------------------------------------------------------------------


@runtime_checkable
class Ordered(Protocol):
    """Batches that say which items they are made of."""

    def order(self, epoch: int) -> Int64[Tensor, "steps batch"]:
        """Indices into the training split."""
        ...


class SoftLabels:
    """A teacher's logits of every training item, looked up for each batch.

    Args:
        logits: of the items, in their order.
        shards: batches of this process by number of the shard. Raises UserError where they do not say which items they hold.

    """

    def __init__(self, logits: Float[Tensor, "items classes"], shards: Mapping[int, object]) -> None:
        self._logits = logits
        self._batches: dict[int, Ordered] = {}
        for shard, batches in shards.items():
            if not isinstance(batches, Ordered):
                raise UserError("--teacher.cache needs batches whose images are known by number; leave it out")
            self._batches[shard] = batches
        self._order: dict[int, tuple[int, Int64[Tensor, "steps batch"]]] = {}

    def __call__(self, shard: int, epoch: int, step: int) -> Float[Tensor, "batch classes"]:
        """Logits for the batch of a shard in a step of an epoch."""
        known = self._order.get(shard)
        if known is None or known[0] != epoch:
            known = self._order[shard] = epoch, self._batches[shard].order(epoch)
        return self._logits[known[1][step]].float()


def logits_of(teacher: Callable[[Tensor], Tensor], batches: Iterable[Tensor], device: torch.device) -> Tensor:
    """Logits for every input, in float16 on the CPU: (items, classes)."""
    return torch.cat([teacher(inputs.to(device, non_blocking=True)).half().cpu() for inputs in batches])


def write_logits(path: Path, logits: Tensor) -> None:
    """Put a teacher's logits at ``path``, atomically."""
    checkpoint.write(path, checkpoint.pack({"logits": logits}, {"kind": LABELS_KIND}))


def read_logits(path: Path) -> Tensor:
    """Inverse of :func:`write_logits`, mapped from the file."""
    return checkpoint.read(path)[0]["logits"]
