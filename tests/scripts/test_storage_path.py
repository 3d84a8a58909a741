"""A search whose results are kept in an object store, continued where they are not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from copies import copied_search
from s3_server import s3_server, system, to_reach
from search_script import succeed

from raysearch.jobs.storage import mirrored
from raysearch.store.candidates import read_candidates


@pytest.mark.usefixtures("cluster")
def test_a_search_goes_on_from_an_object_store_where_its_folder_is_lost(
    finished_search: Path, digits_flags: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before its report, its folder gone with its machine, it ends as if nothing had happened."""
    output = copied_search(finished_search, tmp_path / "copy")
    for name in (".finished", "summary.json", "champion.json", "champion.safetensors", "candidates.parquet"):
        (output / name).unlink()
    with s3_server() as endpoint:
        for name, value in to_reach(endpoint).items():
            monkeypatch.setenv(name, value)
        system(endpoint).create_dir("searches")
        with mirrored(output, "s3://searches/all", print):
            pass
        shutil.rmtree(output)
        flags = ("search", *digits_flags, "--resume", "--output", str(output), "--storage", "s3://searches/all")
        succeed(*flags)
        expected = [(row.id, row.score) for row in read_candidates(finished_search / "candidates.parquet")]
        assert [(row.id, row.score) for row in read_candidates(output / "candidates.parquet")] == expected
        shutil.rmtree(output)
        assert "finished already" in succeed(*flags)
        assert (output / "champion.safetensors").read_bytes() == (finished_search / "champion.safetensors").read_bytes()
