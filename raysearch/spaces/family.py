"""A family of networks as one object, and where families are found: what stands above knows this contract and no family."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, MappingProxyType, ModuleType
from typing import Any, Generic, TypeVar, cast

from torch import Tensor

from raysearch.errors import UserError
from raysearch.space import Architecture, Constraint, Cost, SearchSpace
from raysearch.spaces.pretrained import Pretraining
from raysearch.spaces.supernet import Subnet, Supernet
from raysearch.store.paths import expanded
from raysearch.tasks.task import Ends

A = TypeVar("A", bound=Architecture)
C = TypeVar("C")

BUILT_IN: Mapping[str, str] = MappingProxyType(
    {"autoformer": "raysearch.spaces.autoformer", "elastic_vit": "raysearch.spaces.elastic_vit"}
)
"""The families of this package and their modules."""

DEFAULT = "autoformer"
"""The family of files that name none: version 0.1.0 had one."""


def size_features(cost: Cost) -> dict[str, float]:
    """What latency is made of where a family says nothing better: a fixed part, parameters and multiply-accumulates."""
    return {"net": 1.0, "params": float(cost.params), "macs": float(cost.macs)}


@dataclass(frozen=True)
class Geometry(Generic[A]):
    """What a family's configuration and the ends of a network fix, before any tensor is made."""

    space: SearchSpace[A]
    """What may be chosen."""
    settings: Mapping[str, Any]
    """Constructor arguments of the supernet as JSON values, but for ``drop_path_rate``."""
    cost: Callable[[A], Cost]
    """Exactly what the extracted subnet holds and computes, in closed form. Raises UserError for one that does not fit."""
    latency_features: Callable[[A], Mapping[str, float]] | None = None
    """Of one subnet: numbers of which its latency is a sum with nonnegative coefficients; None: of its size alone."""
    latency_parts: Sequence[tuple[Mapping[str, Any], Mapping[str, float]]] = ()
    """Every part that subnets are made of: its choices and its share of the features. Rows of the latency table."""
    axes: tuple[str, ...] = ()
    """Names of candidates' parameters in MLflow that plot well; the space's own where none are given."""
    remarks: tuple[str, ...] = ()
    """What the user should know of the sizes before hours are spent on them, a sentence each."""

    def features(self, arch: A) -> Mapping[str, float]:
        """What the latency of ``arch`` is made of."""
        return size_features(self.cost(arch)) if self.latency_features is None else self.latency_features(arch)

    @property
    def plotted(self) -> tuple[str, ...]:
        """The axes of plots: those given, else depth, choices of the whole net and means of numbers per stage and block."""
        return self.axes or tuple(space_axes(self.space))


def space_axes(space: SearchSpace[Any]) -> Iterator[str]:
    """Parameters of candidates that say most of them in few axes, whatever the space."""
    if space.depth:
        yield "depth"
    for choice in space.choices:
        if choice.per == "net":
            yield choice.name
        elif all(isinstance(option, int | float) for stage in range(space.stages) for option in choice.at(stage)):
            yield f"{choice.name}_mean"


@dataclass(frozen=True)
class Foreign:
    """A supernet of this family that another program wrote."""

    settings: Mapping[str, Any]
    """Constructor arguments."""
    weights: Mapping[str, Tensor]
    """The supernet's state dict."""


@dataclass(frozen=True)
class TimmNames:
    """A family's networks in timm."""

    module: str
    """Registers their names when it is imported."""
    architecture: str
    """The name that takes networks of any size, by ``config="champion.json"``."""
    folder_config: Callable[[Mapping[str, Any]], dict[str, Any]]
    """From a model card's values: ``config.json`` of a folder that opens as ``local-dir:FOLDER``."""


@dataclass(frozen=True, eq=False)
class Family(Generic[C, A]):
    """One kind of search space: everything that recipe, plan, training, report and export need to know of it.

    A module of your own that sets ``FAMILY`` to such an object is a family too: ``--family FILE.py`` or ``--family MODULE``.
    """

    name: str
    """As files and commands know it: letters, digits and dashes."""
    config: type[C]
    """A frozen dataclass with a default for every field: its fields are flags of the command line."""
    architecture: type[A]
    """The frozen dataclass of a subnet."""
    build: Callable[[C, Ends], Geometry[A]]
    """From a configuration and the ends of the network. Raises UserError for what does not fit together."""
    supernet: Callable[..., Supernet[A]]
    """From ``**settings`` and ``drop_path_rate`` (0 where nothing is dropped)."""
    subnet: Callable[[Mapping[str, Any], A], Subnet]
    """From the supernet's constructor arguments and an architecture: the module that ``extract`` gives, with fresh weights."""
    description: str
    """One sentence for model cards: what kind of network it is, and the source."""
    presets: Mapping[str, C] = field(default_factory=dict)
    """Configurations by name; one that is named like a recipe serves that recipe."""
    published: Mapping[str, A] = field(default_factory=dict)
    """Architectures that papers name, which ``raysearch evaluate`` cuts out of a published supernet."""
    calibrates: bool = False
    """Whether subnets have running statistics, which hold for none until ``extract`` estimates them from calibration inputs."""
    undecayed: tuple[str, ...] = ()
    """Last parts of the names of parameters of more than one dimension that weight decay leaves alone."""
    read_foreign: Callable[[Path], Foreign] | None = None
    """Reads supernets of other programs without executing them. Raises UserError for a file that is none."""
    fitted: Callable[[C, Ends, Constraint, Collection[str]], C] | None = None
    """From a configuration to one whose subnets lie around a budget, but for the settings that are named as given, such as
    ``space.depth``; None: the family's settings stay whatever the budget."""
    for_ends: Callable[[Mapping[str, Any], Ends], Mapping[str, Any]] | None = None
    """From the constructor arguments of a supernet to those for other inputs and outputs. Raises UserError for inputs that it
    cannot be made for. None: its networks stay with theirs, and neither transfer nor another image size is offered."""
    resized: Callable[[Mapping[str, Tensor], Mapping[str, Any]], Mapping[str, Tensor]] | None = None
    """From weights, of the supernet or of a subnet, and the constructor arguments for other inputs to weights that fit these,
    as position tables that are interpolated. None: the sizes of weights do not follow from those of inputs."""
    pretrained: Pretraining | None = None
    """How its supernet begins as a network that timm has pretrained; None: it cannot."""
    timm: TimmNames | None = None
    """How timm knows the family's networks; None: it does not."""
    timm_files: Callable[[Any, Mapping[str, Any]], Mapping[str, bytes]] | None = None
    """From a subnet and its model card's values: files of a folder, by name, that timm opens without this package. They were
    compared with the subnet. None: there are none."""
    source: Path | None = None
    """The file of a family of your own; set when it is found. None: of this package, so every process finds it by its name."""

    def __post_init__(self) -> None:
        """Raises UserError for a name that files cannot carry and for a configuration that is no dataclass with defaults."""
        if not self.name.replace("-", "").replace("_", "").isalnum() or not self.name.isascii():
            raise UserError(f"family name {self.name!r}: use letters, digits and dashes")
        if not is_dataclass(self.config):
            raise UserError(f"family {self.name}: config {self.config.__name__} is no dataclass")
        required = [f.name for f in fields(self.config) if f.default is MISSING and f.default_factory is MISSING]
        if required:
            raise UserError(f"family {self.name}: {self.config.__name__}.{required[0]} has no default; each field is a flag")

    def configured(self, recipe: str) -> C:
        """The configuration for a recipe: the preset of its name, else the defaults."""
        return self.presets[recipe] if recipe in self.presets else self.config()


def family(name: str) -> Family[Any, Any]:
    """A family of this package by name. Raises UserError, with the remedy, for one that is not known."""
    if name not in BUILT_IN:
        raise UserError(
            f"unknown space family {name!r}; known: {', '.join(BUILT_IN)}. For one of your own give its file: --family FILE.py"
        )
    return _exported(importlib.import_module(BUILT_IN[name]), name)


def pretrained_family() -> Family[Any, Any]:
    """The family of this package whose supernets begin as pretrained networks of timm's."""
    return next(known for name in BUILT_IN if (known := family(name)).pretrained is not None)


def find_family(reference: str) -> Family[Any, Any]:
    """A family by name, by the path of a Python file, or by the name of an importable module that sets ``FAMILY``.

    The file is executed: it is code of the user's own. Raises UserError, with the place, when there is none or it fails.
    """
    if reference in BUILT_IN:
        return family(reference)
    path = expanded(Path(reference))
    if path.suffix == ".py" or path.is_file():  # a folder may be a package that is importable
        return _exported(_from_file(path), str(path))
    try:
        spec = importlib.util.find_spec(reference)
    except (ImportError, ValueError):  # of a package that is not there, or no name at all
        spec = None
    if spec is None or spec.origin is None:
        raise UserError(
            f"--family {reference}: no family of that name ({', '.join(BUILT_IN)}), no file and no importable module"
        )
    with _told(reference, spec.origin):
        module = importlib.import_module(reference)
    return _exported(module, reference)


def family_of_files(name: str, given: Family[Any, Any] | None) -> Family[Any, Any]:
    """The family that files name. Raises UserError when it is the user's own and not given, or another than the given."""
    if given is not None:
        if given.name != name:
            raise UserError(f"it is of the family {name!r}, but --family gives {given.name!r}")
        return given
    if name not in BUILT_IN:
        raise UserError(f"it is of a family of your own, {name!r}: give its file with --family FILE.py")
    return family(name)


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UserError(f"--family {path} does not exist; give a Python file that sets FAMILY")
    # The same file is the same module, so that what two calls give is equal; a changed one is another.
    digest = hashlib.sha256(str(path.resolve()).encode() + path.read_bytes()).hexdigest()
    name = f"raysearch_family_{path.stem}_{digest[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    if path.suffix != ".py":
        raise UserError(f"--family {path} is no Python file; give one that sets FAMILY")
    loader = _AsItStands(name, str(path.resolve()))
    spec = importlib.util.spec_from_file_location(name, path.resolve(), loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        with _told(str(path), str(path.resolve())):
            loader.exec_module(module)
    except ValueError:
        del sys.modules[name]
        raise
    return module


class _AsItStands(SourceFileLoader):
    """Reads the file itself, not what Python keeps of it compiled, which is told from a changed one by seconds and size."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


@contextmanager
def _told(reference: str, file: str) -> Generator[None]:
    """Say of an error in code of the user's own where it is and what it was, as a UserError of one line."""
    try:
        yield
    except Exception as error:  # the user's code may raise anything
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
        if isinstance(error, SyntaxError) and error.filename == file:
            lines = [error.lineno]
        place = f"--family {reference}, line {lines[-1]}" if lines else f"--family {reference}"
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        remedy = "; install it, also on the cluster" if isinstance(error, ModuleNotFoundError) else ""
        raise UserError(f"{place}: {reason}{remedy}") from error


def _exported(module: ModuleType, reference: str) -> Family[Any, Any]:
    if not hasattr(module, "FAMILY"):
        raise UserError(
            f"--family {reference} sets no FAMILY; it must be a raysearch.spaces.Family (experiments/own_space.py is one)"
        )
    found: Any = module.FAMILY
    if not isinstance(found, Family):
        raise UserError(
            f"--family {reference}: FAMILY is a {type(found).__name__}, not a raysearch.spaces.Family "
            "(experiments/own_space.py is one)"
        )
    chosen = cast(Family[Any, Any], found)
    if module.__name__ in BUILT_IN.values() or module.__file__ is None:
        return chosen
    if chosen.name in BUILT_IN:
        raise UserError(
            f"--family {reference}: its name {chosen.name!r} is that of a family of this package, as which its files would be "
            "read; choose another"
        )
    object.__setattr__(chosen, "source", Path(module.__file__))
    return chosen


def build_subnet(chosen: Family[Any, Any], settings: Mapping[str, Any], arch: Mapping[str, Any]) -> Subnet:
    """The module of an extracted subnet, with fresh weights, from JSON values."""
    return chosen.subnet(settings, chosen.architecture.from_dict(dict(arch)))
