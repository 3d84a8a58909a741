"""From what a data set holds to its parts, disjoint by content: train, search, finalists, test."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from raysearch.errors import UserError
from raysearch.store.names import shown
from raysearch.tasks.images import fingerprints
from raysearch.tasks.images.config import DataConfig
from raysearch.tasks.images.folders import EXTENSIONS
from raysearch.tasks.images.images import EncodedImages
from raysearch.tasks.images.listing import Found, Listing, left_out
from raysearch.tasks.images.reading import Picture, read_picture
from raysearch.tasks.images.splits import cut, of_several_classes
from raysearch.tasks.images.stores import threads_for
from raysearch.tasks.task import Splits

_LOOKED_AT = 200
"""Images of each part of a large set that are decoded to see whether they are dark."""

_JUDGES = {"train": ("test", "val"), "val": ("test",), "test": ()}
"""Of each given part, those that judge networks after it: their pictures are left out of it."""


def least_images(found: Found, config: DataConfig) -> dict[str, int]:
    """How many pictures of each class a part needs, by part."""
    chosen = 1 + bool(config.finalist_images)  # parts that choose networks
    drawn = (0 if "val" in found.parts else chosen) + ("test" not in found.parts)
    return {"train": 1 + drawn, "val": chosen, "test": 1}


def with_test(found: Found) -> Found:
    """The data set, in which validation images are test images where there are no others."""
    if "val" in found.parts and "test" not in found.parts:
        return replace(found, parts={"train": found.parts["train"], "test": found.parts["val"]})
    return found


def divided(found: Found, config: DataConfig) -> Splits:
    """The data set's splits. Raises UserError that names a class with too few images, and unreadable images."""
    found = with_test(found)
    check_enough(found, config)
    every = examined(found.parts, config)
    every.check(config)
    return divided_from(found, every, config)


@dataclass(frozen=True, slots=True)
class Examined:
    """The pictures of each part that can be read, with what they are, and those that cannot."""

    sets: dict[str, EncodedImages]
    unreadable: dict[str, str]
    """As messages name them, and what is wrong."""

    def check(self, config: DataConfig) -> None:
        """Raises UserError that names unreadable pictures, unless ``config`` says to go on without them."""
        if self.unreadable and not config.skip_unreadable:
            said, count = [*self.unreadable.values()], len(self.unreadable)
            more = f"; and {count - 3} more" if count > 3 else ""
            raise UserError(f"{'; '.join(said[:3])}{more} ({count} unreadable; --dataset.skip-unreadable goes on without them)")


def divided_from(found: Found, every: Examined, config: DataConfig) -> Splits:
    """Splits of pictures that were examined; no file is opened. Raises UserError where too few of a class can be used."""
    least, given = least_images(found, config), every.sets
    notes = [*found.notes, *left_out(list(found.parts.values()), unreadable=[*every.unreadable])]
    _check_white(list(given.values()), config)
    names = tuple(shown(name) for name in found.classes)
    sets = dict(given)
    for part, images in given.items():
        sets[part], said = without_judged(images, [given[judge] for judge in _JUDGES[part] if judge in given], config)
        notes += said
    for part in ("val", "test"):
        if part in sets:
            sets[part], said = _of_one_class(sets[part], names, config)
            notes += said
    for part, images in sets.items():
        _check_left(found.parts[part], given[part], images, found.classes, least[part])

    parts: dict[str, Any] = {"test": sets["test"]} if "test" in sets else {}
    if "val" in sets:
        drawn, said = _halves(sets["val"], names, config)
        parts |= {"train": sets["train"], **drawn}
    else:
        drawn, said = cut_parts(sets["train"], names, config, test=0 if "test" in sets else config.test_images)
        parts |= drawn
    notes += said
    if not all(images.whole for images in given.values()):
        notes.append(
            f"more than {fingerprints.DECODED_AT_MOST:,} images: they are told apart by size, beginning and end of "
            "their files, and were not decoded"
        )
    return Splits(**parts, classes=names, notes=tuple(notes))


def check_enough(found: Found, config: DataConfig) -> None:
    """Raises UserError that names a class with too few images."""
    least = least_images(found, config)
    for part, listing in found.parts.items():
        counts = np.bincount(listing.labels_array(), minlength=len(found.classes))
        for name, count in zip(found.classes, counts.tolist(), strict=True):
            if count < least[part]:
                raise UserError(
                    f"{listing.class_shown(name)} has {count} images{_kinds(listing)}, the class needs at least "
                    f"{least[part]}: add images or remove {'the folder' if listing.by_folder else 'the class'}"
                )


def _kinds(listing: Listing) -> str:
    return f" ({', '.join(EXTENSIONS)})" if listing.by_folder else ""


def _check_left(listing: Listing, readable: EncodedImages, left: EncodedImages, classes: Sequence[str], at_least: int) -> None:
    """Raises UserError that names the folder of a class of which too few images are ``left``, and says why."""
    counts = (np.bincount(labels, minlength=len(classes)) for labels in (listing.labels_array(), readable.labels, left.labels))
    for name, listed, read, kept in zip(classes, *counts, strict=True):
        if kept < at_least:
            reasons = [f"{listed - read} are unreadable"] if read < listed else []
            if kept < read:
                reasons.append(f"{read - kept} are copies of images that judge networks elsewhere, or of other classes")
            raise UserError(
                f"{listing.class_shown(name)} has {kept} of {listed} images left ({', '.join(reasons)}), the class needs at "
                f"least {at_least}: add images, or remove the copies that stand elsewhere"
            )


def examined(
    listings: Mapping[str, Listing], config: DataConfig, *, look: Callable[[str, int, Picture | None], None] | None = None
) -> Examined:
    """The pictures of each listing, with what they are.

    ``look``: called with part, index and content of each picture when it was read, by several threads at once; then all of
    them are read.
    """
    # Only decoding tells a file that is cut off: a user who goes on without such files wants to know all of them.
    few = sum(len(listing.names) for listing in listings.values()) <= fingerprints.DECODED_AT_MOST
    whole = look is not None or config.skip_unreadable or few
    sets: dict[str, EncodedImages] = {}
    unreadable: dict[str, str] = {}
    for parts in _by_store(listings):
        store, every = listings[parts[0]].store, [name for part in parts for name in listings[part].names]
        places = [(part, index) for part in parts for index in range(len(listings[part].names))]
        records, problems = fingerprints.fingerprints(
            store,
            every,
            mode=config.mode,
            white=config.white,
            whole=whole,
            look=None if look is None else lambda index, picture, at=places: look(*at[index], picture),
        )
        start = 0
        for part in parts:
            listing = listings[part]
            here = range(start, start := start + len(listing.names))
            bad = {index - here.start: said for index, said in problems.items() if index in here}
            for index, said in bad.items():
                unreadable[f"{store.shown(listing.names[index])}{listing.row_shown(index)}"] = (
                    f"{said}{listing.row_shown(index)}"
                )
            images = EncodedImages(
                store,
                names=np.array(listing.names, dtype=np.bytes_),
                records=records[here.start : here.stop],
                labels=listing.labels_array(),
                mode=config.mode,
                white=config.white,
                whole=whole,
                as_in_0_1_0=config.rules == "0.1",
            )
            sets[part] = images.subset([index for index in range(len(images)) if index not in bad]) if bad else images
    return Examined({part: sets[part] for part in listings}, unreadable)


def _by_store(listings: Mapping[str, Listing]) -> list[list[str]]:
    """Names of the parts, those of one store together: what is known of its pictures is kept in one file."""
    together: dict[int, list[str]] = {}
    for part, listing in listings.items():
        together.setdefault(id(listing.store), []).append(part)
    return list(together.values())


def _check_white(sets: Sequence[EncodedImages], config: DataConfig) -> None:
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


def _sampled_brightest(images: EncodedImages) -> np.ndarray:
    """As records have it that know files whole. Raises UserError for an unreadable image of the sample."""
    chosen = np.linspace(0, len(images) - 1, min(_LOOKED_AT, len(images))).astype(int).tolist()

    def brightest(index: int) -> float | None:
        try:
            content = images.store.read(images.name(index))
        except OSError as error:
            raise UserError(f"{images.shown(index)} cannot be read ({error.strerror}): restore it") from None
        return read_picture(content, images.mode, name=images.shown(index)).brightest

    with ThreadPoolExecutor(threads_for(images.store)) as pool:
        found = list(pool.map(brightest, chosen))
    return np.array([np.nan if share is None else share for share in found])


# --- division ---------------------------------------------------------------------------------------------------------


def cut_parts(
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


def _halves(images: EncodedImages, classes: Sequence[str], config: DataConfig) -> tuple[dict[str, Any], tuple[str, ...]]:
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
        f"{images.shown(one)} and {images.shown(other)}"
        if isinstance(images, EncodedImages)
        else f"{classes[int(images.labels[one])]} and {classes[int(images.labels[other])]}"
    )
    pictures = len(np.unique(groups[torn]))
    return (f"{pictures:,} pictures stand in several classes (as {example}): nothing is judged on them",)


def without_judged(images: Any, judged: Sequence[Any], config: DataConfig) -> tuple[Any, tuple[str, ...]]:
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
