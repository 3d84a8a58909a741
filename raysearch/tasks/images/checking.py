"""What is wrong with a data set, found by reading all of it once: what would stop a search, and what a look is worth."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raysearch.errors import UserError
from raysearch.store.names import shown
from raysearch.tasks.images.config import TORCHVISION, DataConfig
from raysearch.tasks.images.datasets import find, load_splits, place_of_data
from raysearch.tasks.images.images import EncodedImages
from raysearch.tasks.images.listing import Found, left_out
from raysearch.tasks.images.parts import Examined, check_enough, divided_from, examined, with_test
from raysearch.tasks.images.reading import Picture
from raysearch.tasks.images.splits import of_several_classes
from raysearch.tasks.images.torchvision_sets import is_held_in_memory
from raysearch.tasks.task import Splits

DARK = 20
"""Mean pixel, of 255, below which a picture is dark."""
NARROW = 3.0
"""Longer side by shorter side from which on the square that the network sees shows less than a third of a picture."""
SMALL = 0.25
"""Share of the median shorter side below which a picture is small beside the others."""
FEW = 20
"""Pictures of a class that are few to learn from."""
UNEQUAL = 20
"""Times as many pictures as the smallest class has, that the largest may have without a word."""
COMMON = 0.05
"""Share of all pictures from which on a kind of pixels is not odd."""
_NAMED = 3
"""Examples of each finding."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or worth a look."""

    stops: bool
    """Whether a search would not start."""
    what: str
    """In one line, with examples; what stops a search says what to do as well."""
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """What a data set is, and what is wrong with it."""

    facts: tuple[str, ...]
    """A line each: how many pictures, of which sizes and kinds, how they would be divided."""
    findings: tuple[Finding, ...]
    """Those that stop a search first."""


def check_data(config: DataConfig, *, on_total: Callable[[int], object], on_picture: Callable[[], object]) -> Checked:
    """Read every picture of a data set once, several at a time.

    ``on_total`` is told how many there are, then ``on_picture`` is called after each, by several threads at once. What was
    learned of the files is kept for the search that follows, which then opens none of them again.
    """
    if config.dataset in ("digits", "fashion-mnist") or (config.dataset.startswith(TORCHVISION) and is_held_in_memory(config)):
        return _of_published(config)
    place = place_of_data(config)
    try:
        found = with_test(find(place, config))
    except UserError as error:
        return Checked((), (_stop(error),))
    on_total(sum(len(listing.names) for listing in found.parts.values()))
    looks = {part: _Looks(len(listing.names)) for part, listing in found.parts.items()}

    def look(part: str, index: int, picture: Picture | None) -> None:
        looks[part].note(index, picture)
        on_picture()

    every = examined(found.parts, config, look=look)
    splits, stops = _divided(found, every, config)
    seen = _Seen.of(every, looks)
    findings = [*stops, *_of_reading(every, config), *_of_copies(every), *_of_classes(found, every)]
    findings += [*_of_sizes(seen), *_of_pixels(seen, config)]
    skipped = [*found.notes, *left_out(list(found.parts.values()))]
    findings += [Finding(False, note, "nothing to do where that is meant") for note in skipped]
    facts = [_counted(found, every), *_described(seen), *(() if splits is None else (_parts(splits),))]
    return Checked(tuple(facts), tuple(sorted(findings, key=lambda finding: not finding.stops)))


def _of_published(config: DataConfig) -> Checked:
    """Of a set that is held in memory, whose pictures were all read when it was loaded."""
    try:
        splits = load_splits(config)
    except UserError as error:
        return Checked((), (_stop(error),))
    notes = tuple(Finding(False, note, "nothing to do: they are published so") for note in splits.notes)
    return Checked((_parts(splits),), notes)


def _stop(error: UserError) -> Finding:
    return Finding(True, str(error))


def _divided(found: Found, every: Examined, config: DataConfig) -> tuple[Splits | None, list[Finding]]:
    """The splits of a search, and what stops it beside unreadable pictures."""
    try:
        check_enough(found, config)
        return divided_from(found, every, config), []
    except UserError as error:
        return None, [_stop(error)]


# --- what was seen ----------------------------------------------------------------------------------------------------


class _Looks:
    """What is noted of each picture of a part when it is read."""

    def __init__(self, count: int) -> None:
        self.mean = np.full(count, np.nan)
        self.spread = np.full(count, np.nan)
        self.kinds = [""] * count

    def note(self, index: int, picture: Picture | None) -> None:
        if picture is None:
            return
        pixels = np.asarray(picture.image)
        self.mean[index] = pixels.mean()
        self.spread[index] = int(pixels.max()) - int(pixels.min()) if pixels.ndim == 2 else np.ptp(pixels, axis=(0, 1)).max()
        self.kinds[index] = picture.stored_as


@dataclass(frozen=True, slots=True)
class _Seen:
    """All readable pictures of all parts, one behind the other."""

    images: list[tuple[EncodedImages, int]]
    height: np.ndarray
    width: np.ndarray
    mean: np.ndarray
    spread: np.ndarray
    """Greatest difference of two pixels in one channel."""
    kinds: np.ndarray

    @classmethod
    def of(cls, every: Examined, looks: Mapping[str, _Looks]) -> _Seen:
        images: list[tuple[EncodedImages, int]] = []
        columns: dict[str, list[Any]] = defaultdict(list)
        for part, look in looks.items():
            readable = every.sets[part]
            images += [(readable, index) for index in range(len(readable))]
            kept = ~np.isnan(look.mean)
            columns["height"].append(readable.records["height"])
            columns["width"].append(readable.records["width"])
            columns["mean"].append(look.mean[kept])
            columns["spread"].append(look.spread[kept])
            columns["kinds"].append(np.array(look.kinds, dtype=object)[kept])
        return cls(images, **{name: np.concatenate(values) for name, values in columns.items()})

    def named(self, chosen: np.ndarray) -> str:
        """Some of the pictures at which ``chosen`` is true."""
        return _listed([self.images[index][0].shown(self.images[index][1]) for index in np.flatnonzero(chosen).tolist()])


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else "")


def _counted(found: Found, every: Examined) -> str:
    parts = ", ".join(f"{part} {len(listing.names):,}" for part, listing in found.parts.items())
    total = sum(len(listing.names) for listing in found.parts.values())
    given = f" ({parts})" if len(found.parts) > 1 else ""
    return f"{total:,} pictures of {len(found.classes):,} classes{given}, {len(every.unreadable):,} unreadable"


def _described(seen: _Seen) -> Iterator[str]:
    if not len(seen.images):
        return
    shorter = np.minimum(seen.height, seen.width)
    low, middle, high = np.percentile(shorter, [0, 50, 100]).round().astype(int).tolist()
    ratio = np.maximum(seen.height, seen.width) / np.maximum(1, shorter)
    yield (
        f"shorter sides of {low} to {high} pixels, median {middle}; longer by shorter side {np.median(ratio):.2f} in the "
        f"median, {ratio.max():.2f} at most"
    )
    kinds = Counter(seen.kinds.tolist())
    yield f"kinds of pixels: {', '.join(f'{kind} {count:,}' for kind, count in kinds.most_common())}"


def _parts(splits: Splits) -> str:
    sizes = ", ".join(f"{part} {len(getattr(splits, part)):,}" for part in ("train", "search", "finalists", "test"))
    return f"a search would divide them into {sizes}"


# --- findings ---------------------------------------------------------------------------------------------------------


def _of_reading(every: Examined, config: DataConfig) -> Iterator[Finding]:
    if every.unreadable:
        said = _listed([text.rpartition(": ")[0] or text for text in every.unreadable.values()])
        yield Finding(
            not config.skip_unreadable,
            f"{len(every.unreadable):,} unreadable pictures: {said}",
            "replace or remove them, or give --dataset.skip-unreadable to go on without them",
        )


def _of_copies(every: Examined) -> Iterator[Finding]:
    """Equal pictures within classes, across classes and across parts."""
    where: dict[bytes, list[tuple[str, EncodedImages, int]]] = defaultdict(list)
    for part, images in every.sets.items():
        for index, picture in enumerate(images.pictures()):
            where[picture].append((part, images, index))
    copies = [places for places in where.values() if len(places) > 1]
    for what, remedy, told in (
        (
            "stand in several classes",
            "decide which class each is of, and remove the others: nothing is judged on them",
            [places for places in copies if len({int(images.labels[index]) for _, images, index in places}) > 1],
        ),
        (
            "stand in several parts",
            "remove them from one part: a search leaves them out of the part that teaches or chooses",
            [places for places in copies if len({part for part, _, _ in places}) > 1],
        ),
        (
            "are there more than once in their class",
            "nothing to do: copies stay in one part; remove them where they were not meant",
            [places for places in copies if len({(part, int(images.labels[index])) for part, images, index in places}) == 1],
        ),
    ):
        if told:
            examples = [" = ".join(images.shown(index) for _, images, index in places[:2]) for places in told]
            yield Finding(False, f"{len(told):,} pictures {what}: {_listed(examples)}", remedy)


def _of_classes(found: Found, every: Examined) -> Iterator[Finding]:
    """Classes with few pictures of their own, and very unequal ones, among those that teach."""
    images = every.sets["train"]
    pictures = images.pictures()
    numbers = {picture: index for index, picture in enumerate(dict.fromkeys(pictures))}
    groups = np.array([numbers[picture] for picture in pictures], dtype=np.int64)
    torn = of_several_classes(images.labels, groups) if len(groups) else np.zeros(0, bool)
    own = [len(set(groups[(images.labels == label) & ~torn].tolist())) for label in range(len(found.classes))]
    few = [f"{shown(name)} ({count})" for name, count in zip(found.classes, own, strict=True) if count < FEW]
    if few:
        yield Finding(
            False,
            f"{len(few):,} classes have fewer than {FEW} different pictures to learn from: {_listed(few)}",
            "add pictures of them, or remove the classes",
        )
    if own and max(own) > UNEQUAL * max(1, min(own)):
        small, large = (shown(found.classes[own.index(count)]) for count in (min(own), max(own)))
        yield Finding(
            False,
            f"classes are unequal: {large} has {max(own):,} pictures, {small} {min(own):,}",
            "judge by the report's accuracy of each class: the mean over pictures hides the small ones",
        )


def _of_sizes(seen: _Seen) -> Iterator[Finding]:
    if not len(seen.images):
        return
    shorter, longer = np.minimum(seen.height, seen.width), np.maximum(seen.height, seen.width)
    small = shorter < SMALL * np.median(shorter)
    if small.any():
        yield Finding(
            False,
            f"{small.sum():,} pictures are small beside the others, of {np.median(shorter):.0f} pixels: {seen.named(small)}",
            "replace them where they are previews",
        )
    narrow = longer > NARROW * shorter
    if narrow.any():
        yield Finding(
            False,
            f"{narrow.sum():,} pictures are more than {NARROW:g} times as long as wide: {seen.named(narrow)}",
            "cut out what they are to show: the network sees the square in their middle",
        )


def _of_pixels(seen: _Seen, config: DataConfig) -> Iterator[Finding]:
    """Dark and blank pictures, kinds of pixels that few have, and colour that is none."""
    blank, dark = seen.spread == 0, (seen.mean < DARK) & (seen.spread > 0)
    if blank.any():
        yield Finding(False, f"{blank.sum():,} pictures are of one colour: {seen.named(blank)}", "remove them")
    if dark.any():
        yield Finding(
            False,
            f"{dark.sum():,} pictures are dark (mean below {DARK} of 255): {seen.named(dark)}",
            "look at them; for grey pictures of more than 8 bits give the value of white with --dataset.white",
        )
    counts = Counter(seen.kinds.tolist())
    for kind, count in sorted(counts.items()):
        if kind not in _PLAIN and count < COMMON * len(seen.images):
            yield Finding(
                False,
                f"{count:,} pictures have pixels of another kind than the others ({kind}): {seen.named(seen.kinds == kind)}",
                "nothing to do where they look right: they are converted as a viewer shows them",
            )
    if config.in_chans == 3 and counts and set(counts) <= {"1", "L"}:
        yield Finding(False, "all pictures are grey", "give --dataset.in-chans 1 with a mean and a std of one value each")


_PLAIN = ("RGB", "L")
