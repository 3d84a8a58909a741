"""Names that a file system allows, as text that every file, page and store takes."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def shown(name: str | Path) -> str:
    """A path or name as text: bytes that are no UTF-8 and control characters become U+FFFD.

    For reading only: the path itself keeps its bytes, and two names may be shown alike.
    """
    text = os.fsencode(name).decode("utf-8", errors="replace")
    return "".join(REPLACEMENT if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in text)
