"""Benchmarks run in this process with settings so small that times mean nothing; what they print, as numbers."""

from __future__ import annotations

import sys
from unittest.mock import patch

import torch
from search_script import ROOT, succeed

Table = dict[str, list[str]]
"""Cells of each row, by its first."""


def benchmark(name: str, *flags: str) -> str:
    """Run ``benchmarks/NAME.py --quick`` in this process; returns what it printed."""
    folder, threads = ROOT / "benchmarks", torch.get_num_threads()
    try:
        with patch.object(sys, "path", [str(folder), *sys.path]):  # as Python does for a script
            printed = succeed(name, "--quick", *flags, folder=folder)
    finally:
        torch.set_num_threads(threads)
    assert " cores, " in printed.splitlines()[1]
    return printed


def tables(printed: str) -> list[Table]:
    """All tables of a benchmark, in their order."""
    found: list[Table] = []
    for line in printed.splitlines():
        if line.startswith("┡"):
            found.append({})
        elif line.startswith("│"):
            name, *cells = (cell.strip() for cell in line.strip("│").split("│"))
            assert name not in found[-1], name
            found[-1][name] = cells
    return found


def number(cell: str) -> float:
    """A cell as a number; percent as shares."""
    return float(cell.replace(",", "").rstrip("%")) / (100 if cell.endswith("%") else 1)


def numbers(cells: list[str]) -> list[float]:
    return [number(cell) for cell in cells]
