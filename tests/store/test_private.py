"""Folders that others may write beside are distrusted, and what nobody uses any more goes."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from raysearch.errors import UserError
from raysearch.store.private import cache_folder, in_use, open_lock, private_folder, remove_unused, temporary_folder


def test_a_folder_that_others_made_or_link_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "link").symlink_to(elsewhere)
    (tmp_path / "file").write_text("")
    for name in ("link", "file"):
        with pytest.raises(UserError, match=f"{tmp_path / name} is not a folder of this user: remove it, or set TMPDIR"):
            private_folder(tmp_path / name)
    made = private_folder(tmp_path / "made")
    made.chmod(0o777)
    assert stat.S_IMODE(private_folder(made).stat().st_mode) == 0o700
    monkeypatch.setattr(os, "getuid", lambda: made.stat().st_uid + 1)
    with pytest.raises(UserError, match="not a folder of this user"):
        private_folder(made)


def test_locks_are_not_opened_through_links(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("kept")
    (tmp_path / "x.lock").symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        open_lock(tmp_path / "x.lock")
    assert target.read_text() == "kept"


def test_unused_entries_are_removed_and_used_ones_stay(tmp_path: Path) -> None:
    """Another process uses one of two old entries."""
    for name in ("old", "used", "new"):
        (tmp_path / name).write_text(name)
        (tmp_path / f"{name}.lock").touch()
    hold = (
        "import sys; from pathlib import Path; from raysearch.store.private import in_use\n"
        f"with in_use(Path({str(tmp_path / 'used.lock')!r})) as held: pass\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        for name in ("old", "used"):
            os.utime(tmp_path / f"{name}.lock", (0, 0))
        assert remove_unused(tmp_path) == [tmp_path / "old"]
        assert other.stdin is not None
        other.stdin.close()
    assert {path.name for path in tmp_path.iterdir()} == {"used", "used.lock", "used.making", "new", "new.lock"}
    assert tmp_path / "used" in remove_unused(tmp_path)


def test_an_entry_is_made_by_one_process_at_a_time_and_its_use_is_noted(tmp_path: Path) -> None:
    lock = tmp_path / "entry.lock"
    lock.touch()
    os.utime(lock, (0, 0))
    with in_use(lock) as held:
        pass
    assert lock.stat().st_mtime > 0
    with in_use(lock) as again:  # others may use it at the same time
        pass
    os.close(held)
    os.close(again)


def test_caches_stand_where_the_user_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYSEARCH_CACHE", str(tmp_path / "mine"))
    assert cache_folder("x") == tmp_path / "mine" / "x"
    monkeypatch.delenv("RAYSEARCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cache_folder("x") == tmp_path / "cache" / "raysearch" / "x"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")  # relative: processes have working folders of their own
    assert cache_folder("x") == tmp_path / "home" / ".cache" / "raysearch" / "x"
    monkeypatch.setenv("RAYSEARCH_CACHE", "~/mine")
    assert cache_folder("x") == tmp_path / "home" / "mine" / "x"
    monkeypatch.setenv("RAYSEARCH_CACHE", "mine")
    with pytest.raises(UserError, match="RAYSEARCH_CACHE is mine: give an absolute path"):
        cache_folder("x")
    monkeypatch.delenv("RAYSEARCH_CACHE")
    (tmp_path / "no folder").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "no folder"))
    assert cache_folder("x") == temporary_folder() / "x"


def test_a_cache_of_another_user_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is told like a folder of another user, which only root can make."""
    (tmp_path / "raysearch").mkdir()
    (tmp_path / "raysearch" / "x").touch()
    monkeypatch.delenv("RAYSEARCH_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder("x") == temporary_folder() / "x"
    monkeypatch.setenv("RAYSEARCH_CACHE", str(tmp_path / "raysearch"))
    with pytest.raises(UserError, match=f"RAYSEARCH_CACHE is {tmp_path}/raysearch, but .*: remove it, or set RAYSEARCH_CACHE"):
        cache_folder("x")
