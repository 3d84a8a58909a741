"""Results on disk: the old file or the new one, whatever happens to the process or the disk."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from raysearch.store.files import folder_written_whole, make_folder, temporary_name, write_whole, written_whole

KILLED_AT = """
import os, signal, sys
from pathlib import Path
from raysearch.store.files import write_whole

path, last, seen = Path(sys.argv[1]), int(sys.argv[2]), 0

def watch(event, arguments):
    global seen
    if event in ("open", "os.rename") and str(arguments[0]).startswith(str(path.parent)):
        seen += 1
        if seen == last:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(watch)
write_whole(path, "new" * 500_000)
"""


def child(program: str, *arguments: object) -> int:
    return subprocess.run([sys.executable, "-c", program, *map(str, arguments)], check=False).returncode


def test_a_process_killed_at_any_step_leaves_the_old_or_the_new_file(tmp_path: Path) -> None:
    found: list[str] = []
    for step in range(1, 20):
        path = tmp_path / str(step) / "summary.json"
        path.parent.mkdir()
        path.write_text("old" * 500_000)
        if child(KILLED_AT, path, step) == 0:
            break
        content = path.read_text()
        assert content in ("old" * 500_000, "new" * 500_000)
        found.append(content[:3])
        write_whole(path, "newer")  # what the killed process left is in nobody's way
        assert [p.name for p in path.parent.iterdir()] == ["summary.json"]
        assert path.read_text() == "newer"
    assert found[0] == "old"
    assert found[-1] == "new"
    assert found == sorted(found, reverse=True)


HALF_WRITTEN = """
import os, signal, sys
from pathlib import Path
from raysearch.store.files import folder_written_whole, written_whole

path = Path(sys.argv[1])
with (folder_written_whole if path.is_dir() else written_whole)(path) as temporary:
    if path.is_dir():
        temporary.mkdir()
    (temporary / "half" if path.is_dir() else temporary).write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_killed_while_it_writes_leaves_the_old_one(tmp_path: Path) -> None:
    file, folder = tmp_path / "champion.onnx", tmp_path / "model"
    file.write_text("old")
    folder.mkdir()
    (folder / "weights").write_text("old")
    for path in (file, folder):
        assert child(HALF_WRITTEN, path) == -signal.SIGKILL
    assert file.read_text() == (folder / "weights").read_text() == "old"
    assert [p.name for p in folder.iterdir()] == ["weights"]
    with written_whole(file) as temporary:
        temporary.write_text("new")
    with folder_written_whole(folder) as temporary:
        temporary.mkdir()
        (temporary / "graph").write_text("new")
    assert {p.name for p in tmp_path.iterdir()} == {"champion.onnx", "model"}
    assert file.read_text() == "new"
    assert [p.name for p in folder.iterdir()] == ["graph"]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    temporary_name(path).symlink_to("/dev/full")  # takes nothing: no space left on device
    with pytest.raises(OSError, match="No space left") as refused:
        write_whole(path, "new")
    assert refused.value.errno == errno.ENOSPC
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_where_nothing_can_be_written_nothing_is_changed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(NotADirectoryError):
        write_whole(tmp_path / "file" / "summary.json", "new")
    with pytest.raises(FileExistsError):
        make_folder(tmp_path / "file")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "kept").write_text("old")
    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path / "folder", "new")
    assert (tmp_path / "file").read_text() == (tmp_path / "folder" / "kept").read_text() == "old"
    assert {p.name for p in tmp_path.iterdir()} == {"file", "folder"}


def test_what_a_block_finds_no_good_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"

    def write() -> None:
        with written_whole(path) as temporary:
            temporary.write_text("other logits")
            raise ValueError("logits differ")

    with pytest.raises(ValueError, match="differ"):
        write()
    assert not list(tmp_path.iterdir())
    path.write_text("old")
    with pytest.raises(ValueError, match="differ"):
        write()
    assert path.read_text() == "old"


def test_content_is_flushed_before_it_takes_its_place_and_its_name_after_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a power cut would show otherwise: an empty file under the right name, or no name at all."""
    path, flushed = tmp_path / "new" / "run" / "config.json", list[tuple[str, bool]]()
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        flushed.append((str(Path(f"/proc/self/fd/{descriptor}").readlink().relative_to(tmp_path)), path.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    make_folder(path.parent)
    write_whole(path, "{}")
    made, wrote = flushed[:2], flushed[2:]
    assert set(made) == {(".", False), ("new", False)}
    assert wrote == [("new/run/config.json.tmp", False), ("new/run", True)]
