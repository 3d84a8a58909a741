"""Trees of image files: which folders are the parts and classes of a data set, and which files are its images."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import features

from raysearch.errors import UserError
from raysearch.store.names import shown

EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".webp", ".bmp", ".dib", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".j2k"),
    *((".avif",) if features.check("avif") else ()),
)
"""Files that count as images, in either case."""

OTHER_PICTURES = (
    *(".heic", ".heif", ".avif", ".jxl", ".svg", ".psd", ".ai", ".eps", ".pdf", ".ico", ".hdr", ".exr", ".dcm"),
    *(".dng", ".raw", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),
)
"""Pictures that are not read here, and are named when they are left out."""

OF_0_1_0 = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
"""The images of version 0.1.0, which looked into no sub-folders."""

PARTS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""Names of folders that are parts of a data set, in either case."""

_BROKEN = "broken links"
_LEFTOVERS = ("thumbs.db", "desktop.ini")
_TABLES = (".csv", ".tsv", ".xlsx", ".json", ".parquet", ".mat")


# --- folders ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Layout:
    """Which folders of a data set are which."""

    classes: tuple[str, ...]
    """Names of the class folders, as the file system has them."""
    train: Path
    """Holds the class folders; where there are no others, of all images."""
    val: Path | None = None
    test: Path | None = None
    notes: tuple[str, ...] = ()
    """What a user should know of how it was read."""


def find_layout(root: Path) -> Layout:
    """One folder of images per class, or parts (:data:`PARTS`) with such folders.

    One folder too many on the way, as archives have it, is passed through. Raises UserError, in one line with the remedy, for
    everything else.
    """
    notes: list[str] = []
    root = _passed_through(root, notes)
    with os.scandir(root) as entries:
        if lost := sorted(entry.name for entry in entries if _part(entry.name) is not None and _leads_nowhere(entry)):
            raise UserError(f"{_path(root / lost[0])} is a link that leads nowhere: restore what it leads to, or remove it")
    folders = subfolders(root)
    parts: dict[str, str] = {}
    for name in folders:
        if (part := _part(name)) is not None:
            if part in parts:
                raise UserError(f"{_path(root / parts[part])} and {_path(root / name)} are both {part} images: merge them")
            parts[part] = name
    classes = [name for name in folders if _part(name) is None]
    loose = [name for name in parts.values() if _holds_images(root / name) and not subfolders(root / name)]
    if "train" in parts and parts["train"] not in loose:
        return _of_parts(root, parts, classes, notes)
    if parts and not classes:
        if loose:
            fullest = max(loose, key=lambda name: len(list((root / name).iterdir())))
            raise UserError(_no_class_folders(root / fullest, tables=_tables(root)))
        raise UserError(f"{_path(root)} has {_listed(parts.values())} and no train folder: add it, as {_path(root / 'train')}")
    if standing := [name for name in parts.values() if name not in loose]:
        raise UserError(
            f"{_path(root / standing[0])} stands beside class folders ({_listed(classes)}): "
            f"move these into {_path(root / 'train')}, or move it away"
        )
    notes += [f"{_path(root / name)} is taken for a class, as it stands beside others" for name in loose]
    return Layout(tuple(_class_folders(root)), root, notes=tuple(notes))


def imagenet_layout(root: Path) -> Layout:
    """``train/`` and ``val/``, whatever stands beside them: an unlabelled ``test/`` and ``annotations/`` usually do.

    Raises UserError, as :func:`find_layout` does.
    """
    for name in ("train", "val"):
        if not (root / name).is_dir():
            raise UserError(
                f"no folder {_path(root / name)}: ImageNet is expected as train/<wnid>/*.JPEG and val/<wnid>/*.JPEG"
            )
    others = [name for name in subfolders(root) if name not in ("train", "val")]
    notes = [f"passed over {_listed(others)}, as ImageNet's images are in train and val"] if others else []
    return _of_parts(root, {"train": "train", "val": "val"}, (), notes)


def _of_parts(root: Path, parts: dict[str, str], others: Sequence[str], notes: list[str]) -> Layout:
    if others:
        raise UserError(
            f"{_path(root / others[0])} stands beside {_path(root / parts['train'])}, where only val and test may: "
            "rename or move it"
        )
    found = {part: _passed_through(root / name, notes) for part, name in parts.items()}
    classes = _class_folders(found["train"])
    for part in ("val", "test"):
        if part in found:
            if not subfolders(found[part]) and _holds_images(found[part]):
                raise UserError(
                    f"{_path(found[part])} holds images without class folders: sort them into the folders that "
                    f"{_path(found['train'])} has, or move it away if nobody knows their classes"
                )
            _check_same_classes(found[part], found["train"])
    return Layout(tuple(classes), found["train"], found.get("val"), found.get("test"), tuple(notes))


def _passed_through(folder: Path, notes: list[str]) -> Path:
    """The folder below that holds the data set, where ``folder`` holds nothing but it."""
    start = folder
    while len(inner := subfolders(folder)) == 1 and not _holds_images(folder):
        below = folder / inner[0]
        if not subfolders(below) or (_part(inner[0]) is not None and folder == start and _part(start.name) is None):
            break
        folder = below
    if folder != start:
        notes.append(f"read {_path(folder)}, the only folder in {_path(start)}")
    return folder


def _class_folders(folder: Path) -> list[str]:
    classes = subfolders(folder)
    if len(classes) < 2:
        if _holds_images(folder) or (len(classes) == 1 and _tables(folder)):
            raise UserError(_no_class_folders(folder if _holds_images(folder) else folder / classes[0], tables=_tables(folder)))
        named = f" ({_listed(classes)})" if classes else ""
        raise UserError(
            f"{_path(folder)} has {len(classes)} class folders{named}: "
            "expected one folder of images for each of at least 2 classes"
        )
    inside = [subfolders(folder / name) for name in classes]
    if all(names and all(_part(name) for name in names) for names in inside):
        raise UserError(
            f"the class folders of {_path(folder)} hold {_listed(inside[0])}: turn them round, as "
            f"{_path(folder / inside[0][0] / classes[0])}"
        )
    return classes


def _no_class_folders(folder: Path, *, tables: Sequence[str] = ()) -> str:
    """What to say of a folder that holds the images of all classes."""
    names = sorted(name for name in os.listdir(folder) if is_image(name))  # noqa: PTH208  # names as they are
    begins = sorted({begin for name in names if (begin := name.split(".")[0].split("_")[0]) and not begin.isdigit()})
    examples = [shown(name) for name in begins[:2]] if 1 < len(begins) <= max(2, len(names) // 2) else ["cat", "dog"]
    table = f"; labels in a table ({shown(tables[0])}) are not read" if tables else ""
    return (
        f"{_path(folder)} holds {len(names)} images and no class folders, so their classes are not known{table}: "
        f"move them into one folder per class, as {_path(folder / examples[0])} and {_path(folder / examples[1])}"
    )


def _check_same_classes(folder: Path, train: Path) -> None:
    for here, there in ((train, folder), (folder, train)):
        if absent := sorted(set(subfolders(here)) - set(subfolders(there))):
            raise UserError(
                f"no folder {_path(there / absent[0])}, but {_path(here / absent[0])}: both need the same classes, add or "
                "remove one"
            )


def _part(name: str) -> str | None:
    return next((part for part, names in PARTS.items() if name.lower() in names), None)


def _holds_images(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(is_image(entry.name) and not _leads_nowhere(entry) and entry.is_file() for entry in entries)


def _tables(folder: Path) -> list[str]:
    """Tables in ``folder`` and beside it, which may hold labels."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.name.lower().endswith(_TABLES) and not e.name.startswith("."))


def _path(path: Path) -> str:
    return shown(path)


def _listed(names: Sequence[str] | Iterator[str] | object) -> str:
    every = [shown(str(name)) for name in names]  # pyright: ignore
    return ", ".join(every[:3]) + (f" and {len(every) - 3} more" if len(every) > 3 else "")


def subfolders(folder: Path) -> list[str]:
    """Sorted names of the folders directly below, without hidden ones and those of archives made on macOS.

    Raises UserError when ``folder`` is not a folder.
    """
    if not folder.is_dir():
        raise UserError(f"{_path(folder)} is not a folder: give the folder that holds the images")
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if not _hidden(e.name) and not _leads_nowhere(e) and e.is_dir())


# --- files ------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Listing:
    """The image files of a data set's part, and what was left out of it."""

    root: Path
    names: list[bytes] = field(default_factory=list[bytes])
    """Paths below ``root``, as bytes: a file system allows names that are no text."""
    labels: list[int] = field(default_factory=list[int])
    skipped: Counter[str] = field(default_factory=Counter[str])
    """Files that are no images, by ending, and links that lead nowhere."""
    beside: int = 0
    """Images beside the class folders, which have no class."""
    deeper: int = 0
    """Images in sub-folders of the class folders, which are read."""

    def labels_array(self) -> np.ndarray:
        """Class of each image (int64)."""
        return np.array(self.labels, dtype=np.int64)


def is_image(name: str) -> bool:
    """True for the name of an image file; macOS leaves hidden ``._x.jpg`` files that are none."""
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")


def list_images(root: Path, classes: Sequence[str], *, as_in_0_1_0: bool) -> Listing:
    """The images in ``root/<class>/`` and its sub-folders, sorted by path within a class.

    Hidden files and folders, and what systems leave behind (``__MACOSX``, ``Thumbs.db``), are passed over; other files are
    counted. Version 0.1.0 took fewer kinds of files and no sub-folders.
    """
    listing = Listing(root)
    for label, name in enumerate(classes):
        found: list[bytes] = []
        for path, broken in _files(root / name, b"", set()):
            if broken:
                listing.skipped[_BROKEN] += 1
                continue
            base = os.fsdecode(path.rpartition(b"/")[2])
            ending = os.path.splitext(base)[1].lower()  # noqa: PTH122  # of a bare name
            if not is_image(base) or (as_in_0_1_0 and (b"/" in path or ending not in OF_0_1_0)):
                listing.skipped[shown(ending)] += 1
            else:
                found.append(path)
        found.sort()
        listing.names += [os.fsencode(name) + b"/" + path for path in found]
        listing.labels += [label] * len(found)
        listing.deeper += sum(b"/" in path for path in found)
    with os.scandir(root) as entries:
        for entry in entries:
            if _hidden(entry.name):
                continue
            if _leads_nowhere(entry):  # a class perhaps
                listing.skipped[_BROKEN] += 1
            elif is_image(entry.name) and entry.is_file():
                listing.beside += 1
    return listing


def _files(folder: Path, below: bytes, seen: set[tuple[int, int]]) -> Iterator[tuple[bytes, bool]]:
    """Paths relative to ``folder`` of all files in it, and whether each is a link that leads nowhere.

    A folder that links lead to twice is read once.
    """
    here = os.stat(folder)  # noqa: PTH116
    if (here.st_dev, here.st_ino) in seen:
        return
    seen.add((here.st_dev, here.st_ino))
    with os.scandir(folder) as entries:
        for entry in entries:
            if _hidden(entry.name) or entry.name.lower() in _LEFTOVERS:
                continue
            path = below + os.fsencode(entry.name)
            if _leads_nowhere(entry):
                yield path, True
            elif entry.is_dir():
                yield from _files(folder / entry.name, path + b"/", seen)
            elif entry.is_file():
                yield path, False


def _leads_nowhere(entry: os.DirEntry[str]) -> bool:
    """Whether it is a link to what is not there, or to itself."""
    return entry.is_symlink() and not os.path.exists(entry.path)  # noqa: PTH110  # an entry's path is text


def _hidden(name: str) -> bool:
    return name.startswith((".", "__"))


def left_out(listings: Sequence[Listing], *, unreadable: Sequence[str] = ()) -> list[str]:
    """What of the files is not used, counted by reason, and what is used although one might not expect it; in words."""
    skipped: Counter[str] = sum((listing.skipped for listing in listings), Counter[str]())
    beside, deeper = sum(listing.beside for listing in listings), sum(listing.deeper for listing in listings)
    reasons = [f"{count} {ending or 'without an ending'}" for ending, count in sorted(skipped.items())]
    if beside:
        reasons.append(f"{beside} beside the class folders")
    if unreadable:
        named = ", ".join(unreadable[:3]) + (", ..." if len(unreadable) > 3 else "")
        reasons.append(f"{len(unreadable)} unreadable ({named})")
    said: list[str] = []
    if reasons:
        convert = sorted(set(skipped) & set(OTHER_PICTURES))
        remedy = f"; {', '.join(convert)} pictures are not read here: convert them to .jpg or .png" if convert else ""
        said.append(f"skipped {skipped.total() + beside + len(unreadable)} files: {', '.join(reasons)}{remedy}")
    if deeper:
        said.append(f"{deeper} images are in sub-folders of their class")
    return said
