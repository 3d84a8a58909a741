"""Free memory is what the machine and every control group of this process can give."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from raysearch.store import memory
from raysearch.store.memory import free_memory_here

MIB = 2**20


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(memory, "MEMBERSHIP", tmp_path / "membership")
    (tmp_path / "groups").mkdir()
    return tmp_path / "groups"


def limit(group: Path, version: int, *, most: int | str, used: int, inactive: int) -> None:
    group.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    for name, value in zip(names, (most, used), strict=True):
        (group / name).write_text(f"{value}\n")
    own = "" if version == 2 else f"inactive_file 1\ntotal_inactive_file {inactive}\n"
    (group / "memory.stat").write_text(f"anon 5\ninactive_file {inactive}\n" if version == 2 else own)


def test_without_limits_it_is_the_machine_s(groups: Path) -> None:
    assert free_memory_here() == pytest.approx(psutil.virtual_memory().available, rel=0.2)
    (groups.parent / "membership").write_text("0::/\n")
    limit(groups, 2, most="max", used=7 * MIB, inactive=0)
    assert free_memory_here() == pytest.approx(psutil.virtual_memory().available, rel=0.2)


@pytest.mark.parametrize("version", [1, 2])
def test_pages_of_files_in_a_container_are_free(groups: Path, version: int) -> None:
    """The machine's path of the group, which the container does not see: its own group is the top."""
    (groups.parent / "membership").write_text("4:cpu,memory:/docker/abc\n" if version == 1 else "0::/../other\n")
    limit(groups / "memory" if version == 1 else groups, version, most=64 * MIB, used=60 * MIB, inactive=50 * MIB)
    assert free_memory_here() == 54 * MIB


@pytest.mark.parametrize("version", [1, 2])
def test_the_narrowest_group_counts(groups: Path, version: int) -> None:
    (groups.parent / "membership").write_text("12:cpuset:/x\n4:memory:/job/step\n" if version == 1 else "0::/job/step\n")
    top = groups / "memory" if version == 1 else groups
    limit(top / "job", version, most=64 * MIB, used=60 * MIB, inactive=0)
    limit(top / "job" / "step", version, most=90 * MIB, used=10 * MIB, inactive=0)
    assert free_memory_here() == 4 * MIB
    limit(top / "job" / "step", version, most=9 * MIB, used=10 * MIB, inactive=0)
    assert free_memory_here() == 0
