"""From a configuration to splits: the known data sets and folders of one's own. Nothing is downloaded."""

from __future__ import annotations

import gzip
import math
import os
import shutil
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from raysearch.errors import UserError
from raysearch.store.names import shown
from raysearch.tasks.images import fingerprints
from raysearch.tasks.images.config import DataConfig
from raysearch.tasks.images.folders import EXTENSIONS, Listing, find_layout, imagenet_layout, left_out, list_images
from raysearch.tasks.images.images import ArrayImages, FolderImages
from raysearch.tasks.images.known import recall, remember
from raysearch.tasks.images.reading import read_picture
from raysearch.tasks.images.splits import cut, of_several_classes
from raysearch.tasks.task import Splits

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts its files."""


_LOOKED_AT = 200
"""Images of each part of a large set that are decoded to see whether they are dark."""


def load_splits(config: DataConfig, *, expected_digest: str | None = None) -> Splits:
    """The data set's splits: a function of ``config`` and the files, on every machine.

    Args:
        config: which images, and how many in each part.
        expected_digest: digest of the splits that the run started with. Other images than those are an error. Where this
            machine knows the division already, no file is opened: each is compared with what it was when it is read.

    Raises:
        UserError: for missing files, classes that are absent or too small, folders that are no data set, unreadable images
            and images that are not those of ``expected_digest``; names the file or folder.

    """
    of_folder = config.dataset in ("images", "imagenet")
    if of_folder and expected_digest is not None and (known := recall(_root(config), expected_digest, config)) is not None:
        return known
    if config.dataset == "digits":
        splits = _digits(config)
    elif config.dataset == "fashion-mnist":
        splits = _fashion_mnist(config)
    else:
        splits = _folders(config)
        remember(_root(config), splits)
    if expected_digest not in (None, splits.digest):
        raise UserError(
            f"the {config.dataset} images{f' in {shown(config.root)}' if config.root else ''} are not those that this run "
            "started with, or not divided in the same way: restore the files and settings, or start a new run"
        )
    return splits


# --- sets held in memory ----------------------------------------------------------------------------------------------


def _digits(config: DataConfig) -> Splits:
    # Imported here: scikit-learn takes seconds to import, which every process of a run would spend.
    from sklearn.datasets import load_digits

    digits = cast(Any, load_digits())  # a Bunch, or a pair when asked for one
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    images = _array_images(pixels, digits.target.astype(np.int64), config)
    classes = tuple(str(name) for name in digits.target_names)
    parts, notes = _cut(images, classes, config, test=config.test_images)
    return Splits(**parts, classes=classes, notes=notes)


def _fashion_mnist(config: DataConfig) -> Splits:
    files = _fashion_mnist_files(config.root)
    from torchvision.datasets import FashionMNIST  # takes two seconds to import, for this data set only

    classes = tuple(FashionMNIST.classes)
    published = {part: _read_idx(files, part, classes=len(classes)) for part in ("train", "t10k")}
    images = _array_images(*published["train"], config)
    test = _array_images(*published["t10k"], config)
    images, copies = _without(images, [test], config)
    parts, notes = _cut(images, classes, config)
    return Splits(**parts, test=test, classes=classes, notes=(*copies, *notes))


def _fashion_mnist_files(root: Path | None) -> dict[str, Path]:
    """The four files, packed or not, of the first folder that has them all."""
    folders = [root / "FashionMNIST" / "raw", root] if root else [DEBIAN_FASHION_MNIST]
    stems = [f"{part}-{kind}" for part in ("train", "t10k") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")]
    for folder in folders:
        found = {
            stem: path for stem in stems for path in (folder / f"{stem}.gz", folder / stem) if path.is_file()
        }  # an unpacked file comes last and wins
        if len(found) == len(stems):
            return found
    raise UserError(
        f"no Fashion-MNIST in {' or '.join(str(f) for f in folders)} (looked for {', '.join(stems)}, each also with .gz): "
        '`apt-get install dataset-fashion-mnist` on Debian, or `python -c "import torchvision; '
        "torchvision.datasets.FashionMNIST('DIR', download=True)\"` and give DIR as --data"
    )


def _read_idx(files: dict[str, Path], part: str, *, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (uint8, n x height x width) and labels (int64, n) of one published part."""
    from torchvision.datasets.mnist import read_image_file, read_label_file  # see above

    loaded: list[np.ndarray] = []
    for kind, read in (("images-idx3-ubyte", read_image_file), ("labels-idx1-ubyte", read_label_file)):
        path = files[f"{part}-{kind}"]
        try:
            if path.suffix == ".gz":
                with tempfile.NamedTemporaryFile() as unpacked, gzip.open(path) as packed:
                    shutil.copyfileobj(packed, unpacked)
                    unpacked.flush()
                    loaded.append(read(unpacked.name).numpy())
            else:
                loaded.append(read(str(path)).numpy())
        # torchvision's reader asserts what it expects; a cut file ends early in gzip or in the reader.
        except (OSError, EOFError, zlib.error, AssertionError, ValueError, TypeError, RuntimeError, KeyError) as error:
            reason = f" ({error})" if str(error) else ""
            raise UserError(f"{path} is not a whole IDX file{reason}: fetch it again") from None
    pixels, labels = loaded
    if len(pixels) != len(labels) or (len(labels) and labels.max() >= classes):
        raise UserError(
            f"{files[f'{part}-labels-idx1-ubyte']} does not belong to {files[f'{part}-images-idx3-ubyte']}: fetch both again"
        )
    return pixels, labels


def _array_images(
    pixels: UInt8[np.ndarray, "n height width"], labels: Int64[np.ndarray, " n"], config: DataConfig
) -> ArrayImages:
    """Grey images in the size and number of channels that the network sees."""
    size = (config.img_size, config.img_size)
    if pixels.shape[1:] != size:
        method = Image.Resampling[config.interpolation.upper()]
        pixels = np.stack([np.asarray(Image.fromarray(image).resize(size, method)) for image in pixels])
    return ArrayImages(np.repeat(pixels[:, None], config.in_chans, axis=1), labels)


# --- folders ----------------------------------------------------------------------------------------------------------


_JUDGES = {"train": ("test", "val"), "val": ("test",), "test": ()}
"""Of each given part, those that judge networks after it: their pictures are left out of it."""


def _root(config: DataConfig) -> Path:
    if config.root is None:
        raise UserError(f"the data set {config.dataset!r} needs --data DIR, the folder of its images")
    if not config.root.is_dir():
        raise UserError(f"--data is {shown(config.root)}, which is not a folder: give the folder of the images")
    return config.root


def _folders(config: DataConfig) -> Splits:
    """DIR/<class>/, or DIR/train/<class>/ with val/ or test/ for the test, or with both: val/ for search and finalists."""
    root = _root(config)
    layout = imagenet_layout(root) if config.dataset == "imagenet" else find_layout(root)
    train, val, test = layout.train, layout.val, layout.test
    if val is not None and (test is None or config.dataset == "imagenet"):  # whose published val is what all are tested on
        val, test = None, val
    folders = {part: folder for part, folder in (("train", train), ("val", val), ("test", test)) if folder is not None}
    listings = {
        part: list_images(folder, layout.classes, as_in_0_1_0=config.rules == "0.1") for part, folder in folders.items()
    }
    chosen = 1 + bool(config.finalist_images)  # parts that choose networks
    least = {"train": 1 + (chosen if val is None else 0) + (test is None), "val": chosen, "test": 1}
    for part, listing in listings.items():
        _check_enough(listing, layout.classes, least[part])

    given, unreadable = examined(listings, config)
    notes = [*layout.notes, *left_out(list(listings.values()), unreadable=unreadable)]
    _check_white(list(given.values()), config)
    names = tuple(shown(name) for name in layout.classes)
    sets = dict(given)
    for part, images in given.items():
        sets[part], said = _without(images, [given[judge] for judge in _JUDGES[part] if judge in given], config)
        notes += said
    for part in ("val", "test"):
        if part in sets:
            sets[part], said = _of_one_class(sets[part], names, config)
            notes += said
    for part, images in sets.items():
        _check_left(listings[part], given[part], images, layout.classes, least[part])

    parts: dict[str, Any] = {"test": sets["test"]} if test is not None else {}
    if val is not None:
        divided, said = _halves(sets["val"], names, config)
        parts |= {"train": sets["train"], **divided}
    else:
        divided, said = _cut(sets["train"], names, config, test=config.test_images if test is None else 0)
        parts |= divided
    notes += said
    if not all(images.whole for images in given.values()):
        notes.append(
            f"more than {fingerprints.DECODED_AT_MOST:,} images: they are told apart by size, beginning and end of "
            "their files, and were not decoded"
        )
    return Splits(**parts, classes=names, notes=tuple(notes))


def _check_enough(listing: Listing, classes: Sequence[str], at_least: int) -> None:
    """Raises UserError that names the folder of a class with too few images."""
    counts = np.bincount(listing.labels_array(), minlength=len(classes))
    for name, count in zip(classes, counts.tolist(), strict=True):
        if count < at_least:
            raise UserError(
                f"{shown(listing.root / name)} has {count} images ({', '.join(EXTENSIONS)}), the class needs at least "
                f"{at_least}: add images or remove the folder"
            )


def _check_left(listing: Listing, readable: FolderImages, left: FolderImages, classes: Sequence[str], at_least: int) -> None:
    """Raises UserError that names the folder of a class of which too few images are ``left``, and says why."""
    counts = (np.bincount(labels, minlength=len(classes)) for labels in (listing.labels_array(), readable.labels, left.labels))
    for name, listed, read, kept in zip(classes, *counts, strict=True):
        if kept < at_least:
            reasons = [f"{listed - read} are unreadable"] if read < listed else []
            if kept < read:
                reasons.append(f"{read - kept} are copies of images that judge networks elsewhere, or of other classes")
            raise UserError(
                f"{shown(listing.root / name)} has {kept} of {listed} images left ({', '.join(reasons)}), the class needs at "
                f"least {at_least}: add images, or remove the copies that stand elsewhere"
            )


def examined(listings: Mapping[str, Listing], config: DataConfig) -> tuple[dict[str, FolderImages], list[str]]:
    """The images of each listing, with what their files hold, and the names of the unreadable ones, which are left out.

    Raises UserError that names unreadable files, unless ``config`` says to go on without them.
    """
    # Only decoding tells a file that is cut off: a user who goes on without such files wants to know all of them.
    whole = config.skip_unreadable or sum(len(listing.names) for listing in listings.values()) <= fingerprints.DECODED_AT_MOST
    sets: dict[str, FolderImages] = {}
    problems: list[str] = []
    named: list[str] = []
    for part, listing in listings.items():
        records, unreadable = fingerprints.fingerprints(
            listing.root, listing.names, mode=config.mode, white=config.white, whole=whole
        )
        problems += unreadable.values()
        named += [shown(listing.root / os.fsdecode(listing.names[index])) for index in unreadable]
        images = FolderImages(
            listing.root,
            names=np.array(listing.names, dtype=np.bytes_),
            records=records,
            labels=listing.labels_array(),
            mode=config.mode,
            white=config.white,
            whole=whole,
            as_in_0_1_0=config.rules == "0.1",
        )
        sets[part] = images.subset([index for index in range(len(images)) if index not in unreadable]) if unreadable else images
    if problems and not config.skip_unreadable:
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UserError(
            f"{'; '.join(problems[:3])}{more} ({len(problems)} unreadable; --dataset.skip-unreadable goes on without them)"
        )
    return sets, named


def _check_white(sets: Sequence[FolderImages], config: DataConfig) -> None:
    """Raises UserError where pictures of more than 8 bits would all be dark, as 12-bit values in 16 bits are."""
    if config.white is not None:
        return
    known = [images.records["brightest"] if images.whole else _sampled_brightest(images) for images in sets]
    brightest = np.concatenate(known)
    deep = brightest[~np.isnan(brightest)]
    if len(deep) and 0 < deep.max() <= 0.5:
        bits = math.ceil(math.log2(deep.max() * 65535 + 1))
        looked_at = "" if all(images.whole for images in sets) else f" of {len(brightest)} looked at"
        raise UserError(
            f"{len(deep)}{looked_at} grey pictures have more than 8 bits, do not say what white is, and none is brighter than "
            f"{deep.max():.1%} of the full range: give the value of white with --dataset.white, as {2**bits - 1} for {bits} "
            "bits (65535, or 1 for floating-point pictures, if they are meant to be dark)"
        )


def _sampled_brightest(images: FolderImages) -> np.ndarray:
    """As records have it that know files whole. Raises UserError for an unreadable image of the sample."""
    chosen = np.linspace(0, len(images) - 1, min(_LOOKED_AT, len(images))).astype(int).tolist()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = [picture.brightest for picture in pool.map(lambda i: read_picture(images.path(i), images.mode), chosen)]
    return np.array([np.nan if share is None else share for share in found])


# --- division ---------------------------------------------------------------------------------------------------------


def _cut(
    images: Any, classes: Sequence[str], config: DataConfig, *, test: int | float = 0
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Parts drawn from ``images`` (test where some are asked for, search, finalists, the rest), and what to say of copies.

    Finalists come last: without them, and with the seed of its search, the division is that of 0.1.0.
    """
    held_out = {"test": test, "search": config.search_images, "finalists": config.finalist_images}
    groups, notes = _equal(images, classes, config)
    wanted = {part: amount for part, amount in held_out.items() if amount}
    parts = cut(images.labels, classes, seed=config.split_seed, held_out=wanted, groups=groups)
    drawn = {part: images.subset(indices) for part, indices in parts.items()}
    return drawn if config.finalist_images else {**drawn, "finalists": images.subset([])}, notes


def _halves(images: FolderImages, classes: Sequence[str], config: DataConfig) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Given validation images, divided between search and finalists in the ratio of their settings."""
    search, finalists = (
        amount * len(images) if isinstance(amount, float) else amount
        for amount in (config.search_images, config.finalist_images)
    )
    if not finalists:
        return {"search": images, "finalists": images.subset([])}, ()
    groups, notes = _equal(images, classes, config)
    held_out = {"search": search / (search + finalists)}
    parts = cut(images.labels, classes, seed=config.split_seed, held_out=held_out, groups=groups, rest="finalists")
    return {part: images.subset(indices) for part, indices in parts.items()}, notes


def _of_one_class(images: Any, classes: Sequence[str], config: DataConfig) -> tuple[Any, tuple[str, ...]]:
    """Images that judge, without pictures that stand in several classes, and what to say of these."""
    groups = _groups(images, config)
    if groups is None:
        return images, ()
    return images.subset(np.flatnonzero(~of_several_classes(images.labels, groups))), _torn(images, groups, classes)


def _equal(images: Any, classes: Sequence[str], config: DataConfig) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """As :func:`_groups`, and what to say of them."""
    groups = _groups(images, config)
    if groups is None:
        return None, ()
    copies = len(groups) - len(np.unique(groups))
    said = f"{copies:,} of {len(groups):,} images are copies of others: equal ones stay in one part"
    return groups, (said, *_torn(images, groups, classes))


def _groups(images: Any, config: DataConfig) -> np.ndarray | None:
    """Which images show the same picture, as equal numbers. None where no two do, and where rules of 0.1.0 are kept."""
    if config.rules == "0.1":
        return None
    first: dict[bytes, int] = {}
    groups = np.array([first.setdefault(picture, index) for index, picture in enumerate(images.pictures())], dtype=np.int64)
    return None if len(first) == len(groups) else groups


def _torn(images: Any, groups: np.ndarray, classes: Sequence[str]) -> tuple[str, ...]:
    """What to say of pictures that stand in several classes; nothing without any."""
    torn = np.flatnonzero(of_several_classes(images.labels, groups))
    if not len(torn):
        return ()
    one = int(torn[0])
    other = next(int(i) for i in torn if groups[i] == groups[one] and images.labels[i] != images.labels[one])
    example = (
        f"{shown(images.path(one))} and {shown(images.path(other))}"
        if isinstance(images, FolderImages)
        else f"{classes[int(images.labels[one])]} and {classes[int(images.labels[other])]}"
    )
    pictures = len(np.unique(groups[torn]))
    return (f"{pictures:,} pictures stand in several classes (as {example}): nothing is judged on them",)


def _without(images: Any, judged: Sequence[Any], config: DataConfig) -> tuple[Any, tuple[str, ...]]:
    """``images`` without those that are in a part which judges already, and what to say of it."""
    if config.rules == "0.1" or not judged:
        return images, ()
    known = {picture for part in judged for picture in part.pictures()}
    kept = [index for index, picture in enumerate(images.pictures()) if picture not in known]
    if len(kept) == len(images):
        return images, ()
    return images.subset(kept), (
        f"left out {len(images) - len(kept):,} of {len(images):,} given images, as the same pictures are among those of the "
        "test or the search",
    )
