"""The main job as a process: a mistake, SIGTERM while Ray starts, Ctrl-C in the search, its report, the search continued."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
from pathlib import Path

import pyarrow.parquet as pq
from mlflow import MlflowClient
from search_script import NO_MODELS, one_line, start

from raysearch.recipes.autoformer import DIGITS_RECIPE
from raysearch.spaces.autoformer import FAMILY
from raysearch.training.supernets import SupernetFile, build_supernet

CANDIDATES = 160


def write_supernet(path: Path) -> None:
    """A supernet of the recipe that has learned nothing."""
    geometry = FAMILY.build(DIGITS_RECIPE.config, DIGITS_RECIPE.task.ends(DIGITS_RECIPE.task.splits()))
    supernet = build_supernet(FAMILY, geometry.settings, weight_init="xavier", pos_embed_std=0.2, seed=0)
    SupernetFile(FAMILY, geometry.settings, dict(supernet.state_dict())).write(path)


def next_line(process: subprocess.Popen[str]) -> str:
    """The next line that a search prints, without what a busy machine adds: reading the digits may take long enough."""
    assert process.stdout is not None
    line = process.stdout.readline()
    return next_line(process) if line == "reading the images\n" else line


def test_an_interrupted_search_leaves_a_report_and_is_continued_by_the_same_command(tmp_path: Path) -> None:
    write_supernet(tmp_path / "supernet.safetensors")
    command = (
        *("digits", "--algorithm", "evolution", "--supernet", "supernet.safetensors"),
        *("--search.generations", "40", "--search.population", "4", "--search.mutations", "2", "--search.crossovers", "1"),
        *("--report.random-subnets", "2", *NO_MODELS, "--output", "runs/mine"),
    )
    mistaken = start(tmp_path, *command, "--ray-address", "127.0.0.1:9")
    printed, complaints = mistaken.communicate()
    assert "no Ray cluster at 127.0.0.1:9" in one_line(mistaken.returncode, complaints)
    assert set(printed.splitlines()) <= {"reading the images"}  # which a busy machine takes seconds for

    output = tmp_path / "runs" / "mine"
    report = output / "report.html"
    stopped = start(tmp_path, *command)
    assert next_line(stopped) == "starting Ray\n"
    os.kill(stopped.pid, signal.SIGTERM)  # as a scheduler does
    printed, complaints = stopped.communicate()
    assert stopped.returncode == 128 + signal.SIGTERM
    if (output / "config.json").exists():  # Ray was faster than this process, which told it to stop
        assert complaints == "interrupted; the same command with --resume continues\n"
    else:
        assert complaints == "interrupted before anything was kept; the same command begins again\n"
        assert not output.exists()

    command = (*command, "--resume")
    process = start(tmp_path, *command)
    assert next_line(process) == "starting Ray\n"
    first = next_line(process)
    assert re.fullmatch(
        r"digits: [\d,]+ subnets, params <= [\d,]+; 800 images to train, 397 to search, 200 for finalists, 400 to test  "
        r"->  runs/mine\n",
        first,
    )
    pulse = threading.Event()
    while not report.exists():
        assert process.poll() is None, process.communicate()
        pulse.wait(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all processes of the command
    printed, complaints = process.communicate()
    assert process.returncode == 130
    assert complaints == "interrupted; the same command with --resume continues\n"
    assert "champion" not in printed
    page = report.read_text()
    assert page.endswith("</html>\n")
    assert "<h1>digits: in progress</h1>" in page
    generation, candidates = (
        re.search(pattern, page) for pattern in (r"generation (\d+) of 40<", rf"([\d,]+) of {CANDIDATES} candidates ")
    )
    assert generation is not None
    assert candidates is not None
    assert int(candidates[1].replace(",", "")) == 4 * (int(generation[1]) - 1)
    assert "search.py digits --algorithm evolution" in page.split("How to repeat it")[1]

    client = MlflowClient(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'digits'")

    search_id = json.loads((output / "config.json").read_text())["search_id"]

    def search_status() -> str:
        this = f"tags.`raysearch.role` = 'search' and tags.`raysearch.search_id` = '{search_id}'"
        (run,) = client.search_runs([experiment.experiment_id], this)
        return run.info.status

    assert search_status() == "KILLED"
    scored = (output / "journal.jsonl").read_text()

    continued = start(tmp_path, *command)
    printed, complaints = continued.communicate()
    assert (continued.returncode, complaints) == (0, "")
    assert "champion" in printed
    assert "generation 40/40" in printed
    assert (output / "journal.jsonl").read_text().startswith(scored)
    assert len(pq.read_table(output / "candidates.parquet")) == CANDIDATES
    assert json.loads((output / "summary.json").read_text())["counts"]["candidates"] == CANDIDATES
    assert search_status() == "FINISHED"
