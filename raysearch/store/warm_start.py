"""Architectures to start a search from: the best of an earlier one, or a list that someone wrote."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from raysearch.errors import UserError
from raysearch.space import Architecture
from raysearch.space.problem import SearchProblem
from raysearch.store.candidates import best_rows, read_candidates

A = TypeVar("A", bound=Architecture)


@dataclass(frozen=True, slots=True)
class WarmStart(Generic[A]):
    """What an earlier search gives to a new one."""

    architectures: tuple[A, ...]
    """Best first."""
    skipped: int
    """How many better or equally good ones are not in the new search's space or band."""


def best_of_search(path: Path, problem: SearchProblem[A], *, count: int) -> WarmStart[A]:
    """The ``count`` best of an earlier search that ``problem`` admits, fewer where it admits fewer.

    Failures and excluded candidates are not considered. The order is the champion's: score, loss, parameters, asked earlier.
    Scores are those of the earlier search and serve for this order only.

    Args:
        path: its ``candidates.parquet``.
        problem: the new search's space and band.
        count: how many at most.

    Raises:
        UserError: the file is missing or no table of candidates.

    """
    if not path.exists():
        raise UserError(f"{path} is missing; give the candidates.parquet of an earlier search")
    found: list[A] = []
    skipped = 0
    for row in best_rows(read_candidates(path)):
        if len(found) == count:
            break
        try:
            arch = problem.space.architecture.from_dict(row.arch)
        except ValueError:  # of another family of spaces
            skipped += 1
            continue
        if problem.admits(arch):
            found.append(arch)
        else:
            skipped += 1
    return WarmStart(tuple(found), skipped)


def listed_architectures(path: Path, problem: SearchProblem[A]) -> tuple[A, ...]:
    """The architectures of a JSON list, in its order.

    An entry is an architecture's own object, or an object that holds one under "arch", itself or as text, as in
    ``front.json``. Raises UserError that names the first entry which is no architecture of the space and band: a list that
    someone wrote is meant whole.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; give a JSON list of architectures") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path} is no JSON ({error}); give a JSON list of architectures") from None
    if not isinstance(entries, list):
        raise UserError(f"{path} holds no list; give a JSON list of architectures")
    found: list[A] = []
    for i, entry in enumerate(cast(list[Any], entries)):
        values: Any = cast(dict[str, Any], entry).get("arch", entry) if isinstance(entry, dict) else entry
        try:
            arch = problem.space.architecture.from_json(values if isinstance(values, str) else json.dumps(values))
        except ValueError as error:
            raise UserError(f"{path}, entry {i}: {error}") from None
        if not problem.space.contains(arch):
            raise UserError(f"{path}, entry {i}: {arch} is not in the space")
        if not problem.in_band(arch):
            raise UserError(f"{path}, entry {i}: {arch} ({problem.cost(arch)}) is not within {problem.constraint}")
        found.append(arch)
    return tuple(found)
