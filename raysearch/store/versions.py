"""Which versions made a result."""

from __future__ import annotations

import importlib.metadata
import platform

PACKAGES = ("raysearch", "torch", "timm", "ray", "mlflow", "pyarrow")
"""Whose versions stand in every summary."""


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that matter, by name."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in PACKAGES}}
