"""What a search reads: which images, how they are split, and the size in which the network sees them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, Self, cast, get_args

import tyro

from raysearch.bounds import Bounds, Count, NotNegative, Positive, Seed, Share, at_least, check_numbers
from raysearch.errors import SettingError, UserError
from raysearch.store.names import shown
from raysearch.store.paths import absolute
from raysearch.tasks.images.reading import Mode
from raysearch.tasks.images.remote import Remote, is_address

TORCHVISION = "torchvision:"
"""Begin of the names of data sets that torchvision knows."""
TorchvisionSet = Literal[
    "torchvision:FashionMNIST",
    "torchvision:CIFAR10",
    "torchvision:CIFAR100",
    "torchvision:Flowers102",
    "torchvision:StanfordCars",
    "torchvision:OxfordIIITPet",
    "torchvision:ImageNet",
]
Dataset = Literal["digits", "fashion-mnist", "images", "imagenet"] | TorchvisionSet
Interpolation = Literal["bicubic", "bilinear"]
Amount = Annotated[int, at_least(1)] | Annotated[float, Bounds(above=0, below=1)]
"""A number of images, or a fraction of them."""
AmountOrNone = Annotated[int, at_least(0)] | Annotated[float, Bounds(least=0, below=1)]
"""The same; 0 for none."""


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Pixels of ImageNet per channel, as every published model is normalised."""


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Images and their splits. The defaults are scikit-learn's embedded digits."""

    dataset: Dataset = "digits"
    """digits, fashion-mnist and those of torchvision are known sets, images are your own, imagenet has train/ and val/."""
    root: Path | None = None
    """Folder of the images, or a table that lists them. Not needed for digits, nor for fashion-mnist as Debian's package
    installs it; torchvision's sets are looked for there, or in the cache folder."""
    uri: str | None = None
    """The same in an object store, as s3://bucket/folder or gs://bucket/folder, instead of root."""
    img_size: Count = 8
    """Side of the square image that the network sees, in pixels."""
    in_chans: Count = 1
    """1 for grey, 3 for colour."""
    search_images: Amount = 397
    """Images that candidates are scored on, held out of training: a number, or a fraction of the images they come from."""
    finalist_images: AmountOrNone = 200
    """Images that choose the champion among the best of the search, held out as the search images are; none of the search's
    scores is of them. 0 for none."""
    test_images: Amount = 400
    """Images for the final test where the data set has no test images of its own: a number, or a fraction of all."""
    split_seed: Seed = 0
    """Decides which image comes into which part; the search's own --seed does not."""
    mean: tuple[Share, ...] = (0.305,)
    """Mean of the pixels per channel, on a scale from 0 to 1."""
    std: tuple[Positive, ...] = (0.376,)
    """Standard deviation of the pixels per channel, on the same scale."""
    interpolation: Interpolation = "bicubic"
    """How images are resized for evaluation."""
    crop_pct: Annotated[float, Bounds(above=0, most=1)] = 1.0
    """Share of the shorter side that the centre crop of an evaluation image keeps. Folders only."""
    shrink: NotNegative = 0.0
    """Training images of folders are first brought down to a shorter side of this many times img-size (at least 1); so much is
    kept of them in memory, where it fits. 0: they are cropped from their full size."""
    white: Positive | None = None
    """Value of white in grey pictures of more than 8 bits, as 4095. Default: what the file says, else 65535, or 1 for
    floating-point pictures."""
    image_column: str | None = None
    """Column of a table with the image or its path. Default: path, file, filename, file_name, image or img."""
    label_column: str | None = None
    """Column of a table with the class. Default: label, class, category or target."""
    split_column: str | None = None
    """Column of a table that says which images are train, val and test. Default: split, where there is one."""
    skip_unreadable: bool = False
    """Go on without the files of a folder that cannot be read; they are counted and named."""
    stream: bool = False
    """Training images are decoded and varied on free CPUs of all nodes of a cluster, not by loader processes beside each
    training process: where GPUs wait for the CPUs of their node. The images are the same. Not for those held in memory."""
    rules: Annotated[Literal["0.1", "0.2"], tyro.conf.Suppress] = "0.2"
    """The version whose rules say which files are images, which are equal, and what tells a changed one; of 0.1 only for
    searches that this version stored."""

    @property
    def source(self) -> str | None:
        """Where the images lie: a path or an address."""
        return self.uri if self.root is None else str(self.root)

    @property
    def uncropped(self) -> bool:
        """Whether images are brought to the network's size whole."""
        return self.crop_pct == 1.0 or self.dataset in ("digits", "fashion-mnist")

    @property
    def mode(self) -> Mode:
        """What images are brought to: grey or colour."""
        return "L" if self.in_chans == 1 else "RGB"

    @property
    def training_side(self) -> int:
        """Shorter side to which training images of folders are brought down, in pixels; 0 leaves them as they are."""
        return round(self.shrink * self.img_size)

    def reading(self, data: Path | str) -> Self:
        """The same settings for the images that ``--data`` names: a path, an address, or a set of torchvision's.

        Raises UserError for a set that is not known, with those that are.
        """
        if isinstance(data, str) and data.startswith(TORCHVISION):
            if data not in get_args(TorchvisionSet):
                known = ", ".join(name.removeprefix(TORCHVISION) for name in get_args(TorchvisionSet))
                raise UserError(f"--data is {shown(data)}, which is not known; of torchvision's sets: {known}")
            return replace(self, dataset=cast(Dataset, data), uri=None)
        if isinstance(data, str) and is_address(data):
            return replace(self, root=None, uri=data)
        return replace(self, root=Path(data), uri=None)

    def __post_init__(self) -> None:
        """The root becomes absolute: training processes have another working directory.

        Raises UserError for sizes, channels and fractions that cannot be.
        """
        if self.root is not None:
            object.__setattr__(self, "root", absolute(self.root))
        if self.uri is not None:
            if self.root is not None:
                raise UserError(f"dataset has both a root ({shown(self.root)}) and a uri: give one of them")
            Remote.parse(self.uri)
        check_numbers(self)
        if self.in_chans not in (1, 3):
            raise SettingError("in_chans", f"is {self.in_chans}, must be 1 (grey) or 3 (colour)")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.in_chans:
                given = " ".join(map(str, values))
                raise SettingError(name, f"is {given}, must have one value per channel ({self.in_chans})")
        if 0 < self.shrink < 1:
            raise SettingError("shrink", f"is {self.shrink:g}, must be 0 or at least 1")


DIGITS = DataConfig()
"""1,797 handwritten digits of 8 x 8 pixels that scikit-learn brings: 800 train, 397 search, 200 finalists, 400 test."""

FASHION_MNIST = DataConfig(
    dataset="fashion-mnist", img_size=28, search_images=5_000, finalist_images=5_000, mean=(0.286,), std=(0.353,)
)
"""60,000 pictures of clothes, of which 5,000 are held out for the search and 5,000 for the finalists; the 10,000 published
test images."""

IMAGES = DataConfig(
    dataset="images",
    img_size=224,
    in_chans=3,
    search_images=0.1,
    finalist_images=0.1,
    test_images=0.15,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    crop_pct=0.875,
    shrink=1.3,
)
"""A folder of your own; set ``root``."""

IMAGENET = DataConfig(
    dataset="imagenet",
    img_size=224,
    in_chans=3,
    search_images=10_000,
    finalist_images=10_000,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    crop_pct=0.875,
)
"""ImageNet-1k; set ``root``. 10,000 training images are held out for the search (the paper's number), and 10,000 for the
finalists."""
