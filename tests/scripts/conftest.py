"""One small finished search that several tests look at or copy and damage."""

from __future__ import annotations

from pathlib import Path

import pytest
from search_script import FEW_CANDIDATES, searched

DIGITS = (
    "digits",
    *("--train.epochs", "4", "--train.warmup-epochs", "1", "--train.workers", "1"),
    *FEW_CANDIDATES,
    *("--champion.epochs", "2"),
)


@pytest.fixture(scope="session")
def digits_flags() -> tuple[str, ...]:
    """The recipe and the settings of :func:`finished_search`."""
    return DIGITS


@pytest.fixture(scope="session")
def finished_search(cluster: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder ``run`` of a finished search of digits; MLflow's files stand beside it. Not to be changed."""
    output = tmp_path_factory.mktemp("finished") / "run"
    searched(*DIGITS, output=output)
    return output
