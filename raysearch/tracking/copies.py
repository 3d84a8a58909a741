"""Copies of modules of this package under another name, for where it is not installed."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from types import ModuleType

import raysearch

_ROOT = Path(raysearch.__file__).parent
_IMPORT = re.compile(r"^( *from )raysearch((?:\.\w+)+) import", re.MULTILINE)
_ANNOTATIONS = re.compile(r"^from jaxtyping import .*\n", re.MULTILINE)
"""Shapes in signatures, which nothing evaluates: annotations are strings there."""


def write_copy(folder: Path, module: ModuleType) -> tuple[Path, str]:
    """Write a package that holds ``module`` and the modules of this package that it imports, and no others.

    Its name says what is in it, so that copies of different versions are at home in one process; raysearch itself may be
    installed there, in any version.

    Returns:
        The package's folder, and the name under which the copy of ``module`` is imported.

    """
    sources: dict[str, str] = {}
    left = [module.__name__.removeprefix("raysearch")]
    while left:
        name = left.pop()
        if name not in sources:
            sources[name] = _file(_ROOT, name).read_text(encoding="utf-8")
            left += [found[1] for found in _IMPORT.findall(sources[name])]
    digest = hashlib.sha256("\0".join(f"{name}\0{sources[name]}" for name in sorted(sources)).encode()).hexdigest()
    package = folder / f"raysearch_served_{digest[:12]}"
    for name, text in sources.items():
        path = _file(package, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_ANNOTATIONS.sub("", _IMPORT.sub(rf"\1{package.name}\2 import", text)), encoding="utf-8")
    for inside in (package, *(path for path in package.rglob("*") if path.is_dir())):
        (inside / "__init__.py").write_text("")  # those of the package import more than is here
    return package, f"{package.name}{module.__name__.removeprefix('raysearch')}"


def _file(root: Path, name: str) -> Path:
    """The file of the module ``.a.b``."""
    return root.joinpath(*name.removeprefix(".").split(".")).with_suffix(".py")
