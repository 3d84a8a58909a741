"""One folder per class: listing the images of such a tree and checking that they can be read."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from raysearch.errors import UserError
from raysearch.tasks.images.images import FolderImages, Mode, check_header, read_image

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
"""Files that count as images, in either case. All others are ignored, as are hidden ones."""

DECODED_AT_MOST = 50_000
"""Up to this many images are decoded once before a run starts; of larger sets only the headers are read."""


def is_image(name: str) -> bool:
    """True for the name of an image file; macOS leaves hidden ``._x.jpg`` files that are none."""
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")


def subfolders(folder: Path) -> list[str]:
    """Sorted names of the folders directly below, without hidden ones and those of archives made on macOS.

    Raises UserError when ``folder`` is not a folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give the folder that holds the images")
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith((".", "__")))


def list_images(root: Path, classes: list[str], *, mode: Mode, at_least: int) -> FolderImages:
    """The images in ``root/<class>/`` of every class, sorted by name within a class.

    Raises UserError that names the folder of a class with fewer than ``at_least`` images.
    """
    names: list[bytes] = []
    sizes: list[int] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        with os.scandir(root / name) as entries:
            files = sorted((os.fsencode(e.name), e.stat().st_size) for e in entries if is_image(e.name) and e.is_file())
        if len(files) < at_least:
            raise UserError(
                f"{root / name} has {len(files)} images ({', '.join(EXTENSIONS)}), the class needs at least {at_least}: "
                "add images or remove the folder"
            )
        names += [os.fsencode(name) + b"/" + file for file, _ in files]
        sizes += [size for _, size in files]
        labels += [label] * len(files)
    return FolderImages(
        root,
        names=np.array(names, dtype=np.bytes_),
        sizes=np.array(sizes, dtype=np.int64),
        labels=np.array(labels, dtype=np.int64),
        mode=mode,
    )


def check_images(*sets: FolderImages) -> None:
    """Read every image once, in parallel. Raises UserError that names the files which cannot be read."""
    whole = sum(len(images) for images in sets) <= DECODED_AT_MOST

    def problems(images: FolderImages, start: int) -> list[str]:
        found: list[str] = []
        for index in range(start, min(start + 64, len(images))):
            try:
                if whole:
                    read_image(images.path(index), images.mode)
                else:
                    check_header(images.path(index))
            except ValueError as error:
                found.append(str(error))
        return found

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        checks = [pool.submit(problems, images, start) for images in sets for start in range(0, len(images), 64)]
        found = [problem for check in checks for problem in check.result()]
    if found:
        more = f"; and {len(found) - 3} more unreadable images" if len(found) > 3 else ""
        raise UserError("; ".join(found[:3]) + more)
