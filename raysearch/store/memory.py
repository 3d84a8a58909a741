"""Memory that can still be had here: of the machine, and of the container that this process is in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
_FILES = {
    2: ("memory.max", "memory.current", "inactive_file"),
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""By version of control groups: files of limit and use, and the line of ``memory.stat`` for pages of files that go first."""


def free_memory_here() -> int:
    """Bytes that the machine can still give, and every control group (version 1 or 2) that this process is in.

    What a group uses is counted without the pages of files that the kernel drops as soon as memory is asked for; reading a
    data set fills a container with them.
    """
    import psutil  # with this function alone, as small programs import this package

    return max(0, min([psutil.virtual_memory().available, *_free_in_groups()]))


def _free_in_groups() -> Iterator[int]:
    for version, folder in _groups():
        limit, used, dropped = _FILES[version]
        with suppress(OSError, ValueError, KeyError):  # no group at this place, or without a limit ("max")
            most = int((folder / limit).read_text())
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            yield most - (int((folder / used).read_text()) - int(stat[dropped]))


def _groups() -> Iterator[tuple[int, Path]]:
    """Version and folder of the groups of this process and of those above, whose limits hold too.

    In a container the machine's path of its group may not exist; its own group then stands at the top.
    """
    try:
        lines = MEMBERSHIP.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            version, top = 2, CGROUPS
        elif "memory" in controllers.split(","):
            version, top = 1, CGROUPS / "memory"
        else:
            continue
        group = top / path.lstrip("/")
        yield from ((version, folder) for folder in (group, *group.parents) if folder.is_relative_to(top))
