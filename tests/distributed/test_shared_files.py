"""Files fetched from another node: whole and as they were there, whatever lies in their place."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from raysearch.distributed import files
from raysearch.distributed.files import FileServer, NodeFile, local_path, node_folder, serve, share

CONTENT = b"weights of another node"


@pytest.fixture
def remote(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NodeFile:
    """A file of another node, as this one sees it, whose folder for fetched files is new; it travels in three pieces."""
    there = tmp_path / "there"
    there.write_bytes(CONTENT)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(files, "PIECE", 10)
    monkeypatch.setattr(files, "_used", {})  # what this process asks for is what another one would ask for next
    return replace(share(there, server=serve()), node_id="another node")


def place(file: NodeFile) -> Path:
    """Where this node keeps a file that it fetched; its folder is there."""
    path = node_folder() / "files" / file.digest
    path.parent.mkdir(mode=0o700, exist_ok=True)
    return path


def test_a_file_of_another_node_is_fetched_once(remote: NodeFile, monkeypatch: pytest.MonkeyPatch) -> None:
    path = local_path(remote)
    assert path == place(remote)
    assert path.read_bytes() == CONTENT
    monkeypatch.setattr(files, "_used", {})
    assert local_path(replace(remote, server=None)) == path  # there is nobody to fetch it from
    assert sorted(each.suffix for each in path.parent.iterdir()) == ["", ".lock", ".making"]


@pytest.mark.parametrize("found", [CONTENT.swapcase(), CONTENT[:-1], b""], ids=["other content", "cut short", "empty"])
def test_what_lies_there_and_is_not_the_file_is_fetched_again(remote: NodeFile, found: bytes) -> None:
    place(remote).write_bytes(found)
    assert local_path(remote).read_bytes() == CONTENT


@pytest.mark.parametrize("leftover", ["", ".tmp"])
def test_a_link_in_its_place_is_neither_read_nor_written_through(remote: NodeFile, tmp_path: Path, leftover: str) -> None:
    """Not even one to the same content, which whoever put it there may change."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(CONTENT)
    link = place(remote).with_name(remote.digest + leftover)
    link.symlink_to(elsewhere)
    path = local_path(remote)
    assert not path.is_symlink()
    elsewhere.write_bytes(b"changed")
    assert path.read_bytes() == CONTENT
    assert not link.is_symlink()


def test_a_file_that_is_damaged_on_its_way_is_not_kept(remote: NodeFile) -> None:
    Path(remote.path).write_bytes(CONTENT.swapcase())
    with pytest.raises(OSError, match=f"changed, or was damaged on its way to another node: '{remote.path}'"):
        local_path(remote)
    assert not place(remote).exists()
    Path(remote.path).write_bytes(CONTENT)
    assert local_path(remote).read_bytes() == CONTENT


def test_a_server_reads_pieces(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    assert FileServer().read(str(path), 8, 100) == CONTENT[8:]
