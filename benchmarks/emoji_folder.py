"""A folder of colour pictures as users have them, for ``raysearch search images``: emoji of two vendors by category.

The pictures are those of the npm packages ``emoji-datasource-google`` and ``emoji-datasource-twitter`` (64 pixels, with an
alpha channel). They are written as PNG with alpha, and as JPEG, WebP and BMP on white, in one folder per category.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random

import tyro
from PIL import Image

VENDORS = ("google", "twitter")
SUFFIXES = ("png", "png", "jpg", "webp", "bmp")
"""Equally likely; PNG twice."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Where pictures come from and go to."""

    packages: Path
    """Folder with the two unpacked packages, as ``emoji-datasource-google/`` (``npm install`` makes ``node_modules``)."""
    output: Path
    """Folder that is made; one folder per category."""
    count: int = 2_552
    """Pictures, drawn from all."""
    seed: int = 0
    """Draws them, and each one's format."""


def main(settings: Settings) -> None:
    """Write the pictures and print how many each category has."""
    rng = Random(settings.seed)
    found: list[tuple[str, str, Path]] = []
    for vendor in VENDORS:
        package = settings.packages / f"emoji-datasource-{vendor}"
        for emoji in json.loads((package / "emoji.json").read_text()):
            picture = package / "img" / vendor / "64" / emoji["image"]
            if emoji["category"] != "Component" and picture.exists():
                found.append((emoji["category"], vendor, picture))
    rng.shuffle(found)
    chosen = found[: settings.count]
    for category, vendor, path in chosen:
        folder = settings.output / category.replace(" & ", "-and-")
        folder.mkdir(parents=True, exist_ok=True)
        suffix = rng.choice(SUFFIXES)
        picture = Image.open(path).convert("RGBA")
        if suffix != "png":
            flat = Image.new("RGB", picture.size, "white")
            flat.paste(picture, mask=picture)
            picture = flat
        picture.save(folder / f"{vendor}-{path.stem}.{suffix}")
    for category, pictures in sorted(Counter(category for category, *_ in chosen).items()):
        print(f"{category}: {pictures}")


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
