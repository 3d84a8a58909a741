"""Journals: what was appended stays, what was cut short goes, what is damaged is named."""

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from raysearch.search import Failure, Result
from raysearch.store.journal import Journal
from raysearch.store.lines import JsonLines

HEADER = {"weights": "3f1c"}
ROWS = [{"id": f"é{i}", "score": i / 8} for i in range(3)]


def opened(path: Path, **header: Any) -> JsonLines[dict[str, Any]]:
    return JsonLines(path, lambda row: {"id": row["id"], "score": row["score"]}, remedy="remove that line", **header)


@pytest.mark.parametrize("header", [{}, {"header": HEADER}])
def test_a_file_cut_anywhere_goes_on_from_its_last_whole_line(tmp_path: Path, header: dict[str, Any]) -> None:
    path = tmp_path / "journal.jsonl"
    for row in ROWS:
        opened(path, **header).append(row)
    content = path.read_bytes()
    assert [json.loads(line) for line in content.splitlines()] == [*header.values(), *ROWS]
    ends = [i for i, byte in enumerate(content) if byte == ord("\n")]
    for cut in {0, *(end + around for end in ends for around in (-10, 0, 1))}:
        path.write_bytes(content[:cut])
        lines = opened(path, **header)
        whole = content[:cut].count(b"\n")
        assert lines.rows == ROWS[: max(0, whole - len(header))]
        assert lines.header == header.get("header", {})
        assert path.read_bytes() == content[:cut]  # to read changes nothing
        more = ROWS[len(lines.rows) :] or [{"id": "last", "score": 1.0}]
        for row in more:
            lines.append(row)
        assert opened(path, **header).rows == [*lines.rows, *more]


def test_the_header_of_another_owner_is_shown_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    opened(path, header={"weights": "another", "since": 2}).append(ROWS[0])
    assert opened(path, header=HEADER).header == {"weights": "another", "since": 2}


@pytest.mark.parametrize("damage", ["#", "[]", "3", '{"id": 1}', '{"id": 1, "score"', "\x00\x00"])
def test_a_damaged_line_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "journal.jsonl"
    for row in ROWS:
        opened(path, header=HEADER).append(row)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], damage, *lines[3:], ""]))
    with pytest.raises(ValueError, match=r"journal\.jsonl line 3 is damaged; remove that line$"):
        opened(path, header=HEADER)
    path.write_bytes(b"\xff\xfe\n" + path.read_bytes())
    with pytest.raises(ValueError, match=r"journal\.jsonl line 1 is damaged; restore it, or remove the file"):
        opened(path, header=HEADER)


def test_lines_can_be_exchanged_for_others_or_for_none(tmp_path: Path) -> None:
    path = tmp_path / "tracking.jsonl"
    lines = opened(path)
    lines.append(ROWS[0])
    lines.replace(ROWS[1:])
    lines.append(ROWS[0])
    assert opened(path).rows == [*ROWS[1:], ROWS[0]]
    lines.replace([])
    assert not list(tmp_path.iterdir())
    lines.append(ROWS[2])
    assert opened(path).rows == [ROWS[2]]


WITHOUT_ROOM = """
import resource, sys
from pathlib import Path
from raysearch.store.lines import JsonLines

path, size = Path(sys.argv[1]), int(sys.argv[2])
lines = JsonLines(path, dict, header={"weights": "3f1c"}, remedy="")
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
try:
    lines.append({"id": "too long " * 10})
except OSError as error:
    print(error.strerror, error.filename == str(path), path.stat().st_size)
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
lines.append({"id": "after room was made"})
"""


def test_a_line_that_finds_no_room_leaves_no_part_of_itself(tmp_path: Path) -> None:
    """The file may grow by ten bytes: a part of the line is written before the disk refuses."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    path = tmp_path / "journal.jsonl"
    opened(path, header=HEADER).append(ROWS[0])
    size = path.stat().st_size
    command = [sys.executable, "-c", WITHOUT_ROOM, str(path), str(size + 10)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert printed == f"File too large True {size}\n"
    assert [row["id"] for row in JsonLines(path, dict, header=HEADER, remedy="").rows] == ["é0", "after room was made"]


def test_a_journal_gives_back_what_it_was_told_and_refuses_other_weights(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    told: dict[tuple[str, str], Result | Failure] = {
        ("search", "a1"): Result(0.5, 8, 1000, 2000, 0.25, b"\x0f", latency_ms=1.5, excluded="raced", seconds=2.0),
        ("search", "b2"): Failure("evaluator lost"),
        ("test", "a1"): Result(0.25, 8, 1000, 2000, outcomes=b"\x03"),
    }
    journal = Journal(path, weights="3f1c")
    for key, outcome in told.items():
        journal.append(key, outcome)
    assert journal.outcomes == told
    with path.open("ab") as file:
        file.write(b'{"split": "search", "id": "c3", "outc')
    assert Journal(path, weights="3f1c").outcomes == told
    before = path.read_bytes()
    with pytest.raises(ValueError, match="holds scores of other weights than the supernet's; choose another output folder"):
        Journal(path, weights="77aa")
    assert path.read_bytes() == before
