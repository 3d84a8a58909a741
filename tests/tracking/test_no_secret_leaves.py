"""A password in an address is used, and stands in no file, run, log, page, artifact or message."""

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from search_script import FEW_CANDIDATES, program
from small_servers import demanding_proxy

from raysearch.recipes import RECIPES
from raysearch.store.folder import open_folder, read_json, write_json
from raysearch.training.supernets import SupernetFile, build_supernet

SECRET = "t0psecret"
BASIC = base64.b64encode(f"bob:{SECRET}".encode()).decode()


def holders(folder: Path, text: str) -> list[Path]:
    """Files below ``folder`` that hold ``text``."""
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


@pytest.fixture
def untrained(tmp_path: Path) -> Path:
    """A supernet for the digits that nobody trained: what it scores does not matter here."""
    recipe = RECIPES["digits"][1]
    ends = recipe.task.ends(recipe.task.splits())
    settings = {**recipe.family.build(recipe.config, ends).settings, "drop_path_rate": 0.0}
    supernet = build_supernet(recipe.family, settings, weight_init="xavier", pos_embed_std=0.2, seed=0)
    path = tmp_path / "given.safetensors"
    SupernetFile(recipe.family, settings, dict(supernet.state_dict())).write(path)
    return path


@pytest.mark.usefixtures("cluster")
def test_a_search_with_a_password_in_its_uri_leaves_it_nowhere(tmp_path, database, start_server, untrained, monkeypatch):
    output = tmp_path / "run"
    flags = ("digits", *FEW_CANDIDATES, "--supernet", str(untrained), "--output", str(output))
    with start_server() as server, demanding_proxy(server, authorization=f"Basic {BASIC}") as proxy:
        uri = proxy.replace("://", f"://bob:{SECRET}@")
        ended = program("search", *flags, "--tracking-uri", uri)
        assert ended.code == 0, ended.complaints
        # Continued with the address from the environment: nothing that was written down can bring the password back.
        (output / ".finished").unlink()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        again = program("search", *flags, "--resume")
        assert again.code == 0, again.complaints
        told = ended.printed + ended.complaints + again.printed + again.complaints
        runs = MlflowClient(server).search_runs(["1"])
        assert {"search", "candidate"} == {run.data.tags["raysearch.role"] for run in runs}
        versions = MlflowClient(server).search_model_versions("name = 'digits'")
        assert versions
    # The store's database and artifacts stand below the same folder as the output: runs, tags, data sets, models.
    assert holders(tmp_path, "--tracking-uri")  # the command line is written down
    for secret in (SECRET, BASIC):
        assert not holders(tmp_path, secret)
        assert secret not in told
    assert "bob:***@" in json.loads((output / "config.json").read_text())["command"]


def test_a_folder_of_an_earlier_version_loses_the_password_that_it_holds(tmp_path):
    config = {
        "search_id": "a",
        "command": f"search.py digits --tracking-uri http://bob:{SECRET}@h",
        "recipe": {"name": "digits"},
    }
    write_json(tmp_path / "config.json", config)
    with open_folder(tmp_path, {"recipe": {"name": "digits"}}, resume=True) as folder:
        assert folder.config["command"].endswith("http://bob:***@h")
    assert not holders(tmp_path, SECRET)
    assert read_json(tmp_path / "config.json") == {**config, "command": "search.py digits --tracking-uri http://bob:***@h"}


def test_a_bug_and_the_log_are_told_without_passwords():
    """In a process of its own, as a user's: the traceback of an error that quotes the address, and a warning that does."""
    script = f"""
import logging
from raysearch import cli
with cli.reported(continued="it"):
    logging.getLogger("raysearch").warning("no answer from %s", "http://bob:{SECRET}@host")
    raise RuntimeError("no answer from http://bob:" + "{SECRET}@host/x?token={SECRET}")
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == 1
    shown = ended.stderr.replace(f'bob:" + "{SECRET}', "")  # Python quotes the line of the script
    assert "WARNING raysearch: no answer from http://bob:***@host\n" in shown
    assert "RuntimeError: no answer from http://bob:***@host/x?token=***" in shown
    assert SECRET not in shown.split("RuntimeError:")[-1]
