"""Trees of image files: which folders are the parts and classes of a data set, and which files are its images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import features

from raysearch.errors import UserError
from raysearch.store.names import shown
from raysearch.tasks.images.listing import Listing
from raysearch.tasks.images.places import Place, entries, is_folder
from raysearch.tasks.images.stores import Files

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
TABLES = (".csv", ".tsv", ".parquet")
"""Files that may say of which class images are."""


# --- folders ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Layout:
    """Which folders of a data set are which."""

    classes: tuple[str, ...]
    """Names of the class folders, as the file system has them."""
    train: Place
    """Holds the class folders; where there are no others, of all images."""
    val: Place | None = None
    test: Place | None = None
    notes: tuple[str, ...] = ()
    """What a user should know of how it was read."""


def find_layout(root: Place) -> Layout:
    """One folder of images per class, or parts (:data:`PARTS`) with such folders.

    One folder too many on the way, as archives have it, is passed through. Raises UserError, in one line with the remedy, for
    everything else.
    """
    notes: list[str] = []
    root = _passed_through(root, notes)
    if lost := sorted(name for name, kind in entries(root) if kind == "lost" and part_named(name) is not None):
        raise UserError(f"{_path(root / lost[0])} is a link that leads nowhere: restore what it leads to, or remove it")
    folders = subfolders(root)
    parts: dict[str, str] = {}
    for name in folders:
        if (part := part_named(name)) is not None:
            if part in parts:
                raise UserError(f"{_path(root / parts[part])} and {_path(root / name)} are both {part} images: merge them")
            parts[part] = name
    classes = [name for name in folders if part_named(name) is None]
    loose = [name for name in parts.values() if _holds_images(root / name) and not subfolders(root / name)]
    if "train" in parts and parts["train"] not in loose:
        return _of_parts(root, parts, classes, notes)
    if parts and not classes:
        if loose:
            fullest = max(loose, key=lambda name: len(entries(root / name)))
            raise UserError(_no_class_folders(root / fullest, tables=_tables(root)))
        raise UserError(f"{_path(root)} has {_listed(parts.values())} and no train folder: add it, as {_path(root / 'train')}")
    if standing := [name for name in parts.values() if name not in loose]:
        raise UserError(
            f"{_path(root / standing[0])} stands beside class folders ({_listed(classes)}): "
            f"move these into {_path(root / 'train')}, or move it away"
        )
    notes += [f"{_path(root / name)} is taken for a class, as it stands beside others" for name in loose]
    return Layout(tuple(_class_folders(root)), root, notes=tuple(notes))


def imagenet_layout(root: Place) -> Layout:
    """``train/`` and ``val/``, whatever stands beside them: an unlabelled ``test/`` and ``annotations/`` usually do.

    Raises UserError, as :func:`find_layout` does.
    """
    for name in ("train", "val"):
        if not is_folder(root / name):
            raise UserError(
                f"no folder {_path(root / name)}: ImageNet is expected as train/<wnid>/*.JPEG and val/<wnid>/*.JPEG"
            )
    others = [name for name in subfolders(root) if name not in ("train", "val")]
    notes = [f"passed over {_listed(others)}, as ImageNet's images are in train and val"] if others else []
    return _of_parts(root, {"train": "train", "val": "val"}, (), notes)


def _of_parts(root: Place, parts: dict[str, str], others: Sequence[str], notes: list[str]) -> Layout:
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


def _passed_through(folder: Place, notes: list[str]) -> Place:
    """The folder below that holds the data set, where ``folder`` holds nothing but it."""
    start = folder
    while len(inner := subfolders(folder)) == 1 and not _holds_images(folder):
        below = folder / inner[0]
        if not subfolders(below) or (part_named(inner[0]) is not None and folder == start and part_named(start.name) is None):
            break
        folder = below
    if folder != start:
        notes.append(f"read {_path(folder)}, the only folder in {_path(start)}")
    return folder


def _class_folders(folder: Place) -> list[str]:
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
    if all(names and all(part_named(name) for name in names) for names in inside):
        raise UserError(
            f"the class folders of {_path(folder)} hold {_listed(inside[0])}: turn them round, as "
            f"{_path(folder / inside[0][0] / classes[0])}"
        )
    return classes


def _no_class_folders(folder: Place, *, tables: Sequence[Place] = ()) -> str:
    """What to say of a folder that holds the images of all classes."""
    names = sorted(entry.name for entry in entries(folder) if is_image(entry.name))
    begins = sorted({begin for name in names if (begin := name.split(".")[0].split("_")[0]) and not begin.isdigit()})
    examples = [shown(name) for name in begins[:2]] if 1 < len(begins) <= max(2, len(names) // 2) else ["cat", "dog"]
    table = f"; or give the table that has them, as --data {_path(tables[0])}" if tables else ""
    return (
        f"{_path(folder)} holds {len(names)} images and no class folders, so their classes are not known: "
        f"move them into one folder per class, as {_path(folder / examples[0])} and {_path(folder / examples[1])}{table}"
    )


def _check_same_classes(folder: Place, train: Place) -> None:
    for here, there in ((train, folder), (folder, train)):
        if absent := sorted(set(subfolders(here)) - set(subfolders(there))):
            raise UserError(
                f"no folder {_path(there / absent[0])}, but {_path(here / absent[0])}: both need the same classes, add or "
                "remove one"
            )


def part_named(name: str) -> str | None:
    """The part of a data set (:data:`PARTS`) that is called so; None for any other name."""
    return next((part for part, names in PARTS.items() if name.lower() in names), None)


def _holds_images(folder: Place) -> bool:
    return any(kind == "file" and is_image(name) for name, kind in entries(folder))


def _tables(folder: Place) -> list[Place]:
    """Tables in ``folder``, which may hold labels."""
    return [folder / name for name, _ in sorted(entries(folder)) if name.lower().endswith(TABLES) and not name.startswith(".")]


def _path(place: Place) -> str:
    return shown(str(place))


def _listed(names: Iterable[str]) -> str:
    every = [shown(name) for name in names]
    return ", ".join(every[:3]) + (f" and {len(every) - 3} more" if len(every) > 3 else "")


def subfolders(folder: Place) -> list[str]:
    """Sorted names of the folders directly below, without hidden ones and those of archives made on macOS.

    Raises UserError when ``folder`` is not a folder.
    """
    if not is_folder(folder):
        raise UserError(f"{_path(folder)} is not a folder: give the folder that holds the images")
    return sorted(name for name, kind in entries(folder) if kind == "folder" and not hidden(name))


# --- files ------------------------------------------------------------------------------------------------------------


def is_image(name: str) -> bool:
    """True for the name of an image file; macOS leaves hidden ``._x.jpg`` files that are none."""
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")


def list_images(root: Place, classes: Sequence[str], *, as_in_0_1_0: bool) -> Listing:
    """The images in ``root/<class>/`` and its sub-folders, sorted by path within a class.

    Hidden files and folders, and what systems leave behind (``__MACOSX``, ``Thumbs.db``), are passed over; other files are
    counted. Version 0.1.0 took fewer kinds of files and no sub-folders.
    """
    listing = Listing(Files(root), by_folder=True)
    for label, name in enumerate(classes):
        found: list[bytes] = []
        for path, kind in _files(root / name, b"", set()):
            if kind == "lost":
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
    for name, kind in entries(root):
        if hidden(name):
            continue
        if kind == "lost":  # a class perhaps
            listing.skipped[_BROKEN] += 1
        elif kind == "file" and is_image(name):
            listing.beside += 1
    return listing


def _files(folder: Place, below: bytes, seen: set[object]) -> Iterator[tuple[bytes, str]]:
    """Paths relative to ``folder`` of all files in it, and of links that lead nowhere, with what they are.

    A folder that links lead to twice is read once.
    """
    if isinstance(folder, Path):
        here = folder.stat()
        if (here.st_dev, here.st_ino) in seen:
            return
        seen.add((here.st_dev, here.st_ino))
    for name, kind in entries(folder):
        if hidden(name) or name.lower() in _LEFTOVERS:
            continue
        path = below + os.fsencode(name)
        if kind == "folder":
            yield from _files(folder / name, path + b"/", seen)
        else:
            yield path, kind


def hidden(name: str) -> bool:
    """True for what programs keep for themselves."""
    return name.startswith((".", "__"))
