"""Names that a file system allows, as text that every file, page and store takes."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from raysearch.errors import UserError

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def check_text(path: Path, flag: str) -> None:
    """Raises UserError, with the flag, for a place to write to whose path is no UTF-8.

    Parquet, safetensors and SQLite take no other names. What is read may have any.
    """
    whole = str(path.absolute())
    if readable(whole) != whole:
        raise UserError(
            f"{flag} {shown(path)}: its path has bytes that are no UTF-8, which files of results need; choose another"
        )


@contextmanager
def utf8_path(path: Path) -> Generator[Path]:
    """A path to the same file that libraries of other languages take, which refuse names that are no UTF-8."""
    if readable(str(path)) == str(path):
        yield path
        return
    with path.open("rb") as file:
        yield Path(f"/proc/self/fd/{file.fileno()}")


def readable(text: str) -> str:
    """Text that every encoding of Unicode takes: what stands for a byte that is no UTF-8 becomes U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join(REPLACEMENT if "\ud800" <= c <= "\udfff" else c for c in text)
    return text  # nearly always, and pages have megabytes


def shown(name: str | Path) -> str:
    """A path or name as text: bytes that are no UTF-8 and control characters become U+FFFD.

    For reading only: the path itself keeps its bytes, and two names may be shown alike.
    """
    text = os.fsencode(name).decode("utf-8", errors="replace")
    return "".join(REPLACEMENT if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in text)
