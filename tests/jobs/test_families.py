"""Families of one's own go through everything: training, search, resume, report, MLflow, validation, export, comparison.

Ray's processes have none of these files: what they run of them travelled by value.
"""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from copies import copied_search
from mlflow import MlflowClient
from rich.console import Console
from search_script import FEW_CANDIDATES, NO_MODELS, ROOT, one_line

from raysearch import cli
from raysearch.distributed.files import content_digest
from raysearch.export import load_subnet
from raysearch.jobs.compare import CompareCommand, compare_searches
from raysearch.jobs.export import ExportCommand, export
from raysearch.jobs.search import run
from raysearch.jobs.validate import ValidateCommand, validate
from raysearch.parsing.search import parse_search
from raysearch.recipes.autoformer import DIGITS_RECIPE
from raysearch.report.places import value_text
from raysearch.spaces import find_family
from raysearch.store.folder import CONFIG, read_json
from raysearch.store.summary import Summary
from raysearch.tasks.images import open_cache
from raysearch.training.supernets import read_supernet

EXAMPLE = ROOT / "experiments" / "own_space.py"
BATCHNORM = ROOT / "tests" / "shared" / "batchnorm_family.py"
STAGED = ROOT / "tests" / "shared" / "staged_family.py"

TRAINED = ("--train.epochs", "3", "--train.warmup-epochs", "1", "--train.workers", "1")
NSGA2 = (
    *("--algorithm", "nsga2", "--nsga2.population", "4", "--nsga2.generations", "2"),
    *("--report.random-subnets", "2", "--report.no-register"),
)
AGEING = (
    *("--algorithm", "ageing", "--ageing.candidates", "10", "--ageing.population", "4", "--ageing.sample", "2"),
    *("--ageing.look-ahead", "2", "--report.random-subnets", "2", "--report.no-register"),
)


def store_beside(folder: Path) -> str:
    return f"sqlite:///{folder.absolute().parent / 'mlflow.db'}"


def searched(family: Path, output: Path, *flags: str) -> tuple[Summary, str]:
    """The main job in this process: its summary and what it printed."""
    printed = io.StringIO()
    arguments = ["digits", "--family", str(family), "--output", str(output), "--tracking-uri", store_beside(output), *flags]
    summary = run(parse_search(arguments), line=f"search.py {' '.join(arguments)}", console=quiet(printed))
    return summary, printed.getvalue()


def quiet(printed: io.StringIO | None = None) -> Console:
    return Console(file=printed or io.StringIO(), width=200)


def table(folder: Path) -> list[dict[str, Any]]:
    return pq.read_table(folder / "candidates.parquet").to_pylist()


def score(network: Any, folder: Path) -> float:
    """Accuracy on the search split, without the code that scores candidates."""
    split = open_cache(folder / "cache" / "search.arrow")
    with torch.inference_mode():
        outputs = network(DIGITS_RECIPE.task.normalise(torch.from_numpy(split.images.copy())))
    return float((np.asarray(outputs).argmax(axis=1) == split.labels).mean())


def check_record(folder: Path) -> None:
    """Every choice of every candidate is in MLflow, and every one of the champion in the report."""
    client = MlflowClient(store_beside(folder))
    (experiment,) = client.search_experiments(filter_string="name = 'digits'")
    search_id = read_json(folder / "summary.json")["search_id"]
    runs = client.search_runs([experiment.experiment_id], f"tags.`raysearch.search_id` = '{search_id}'")
    children = {run.data.tags["raysearch.key"]: run for run in runs if run.data.tags["raysearch.role"] == "candidate"}
    rows = table(folder)
    assert children.keys() == {row["id"] for row in rows}
    for row in rows:
        child = children[row["id"]]
        assert (child.info.status, child.data.metrics["score"]) == ("FINISHED", row["score"])
        told = {name: value for field, value in json.loads(row["arch"]).items() for name, value in places(field, value)}
        assert told.items() <= child.data.params.items()
    champion = read_json(folder / "champion.json")
    head = (folder / "report.html").read_text().partition(f"Champion <code>{champion['id']}</code>")[2].partition("<h2>")[0]
    text = " ".join(re.sub(r"<[^>]+>|[|·]", " ", head).split())
    for name, value in champion["arch"].items():
        assert " ".join([name, *value_text(value).replace("|", " ").split()]) in text


def places(name: str, value: Any) -> list[tuple[str, str]]:
    """Names and values of parameters for one field of an architecture."""
    if isinstance(value, list):
        return [found for i, item in enumerate(value) for found in places(f"{name}.{i:02}", item)]
    return [] if value is None else [(name, str(value))]


# --- the example that strangers copy ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("cluster")
def test_the_example_runs_to_its_end(tmp_path: Path) -> None:
    family = Path(shutil.copy(EXAMPLE, tmp_path / "mine.py"))
    folder, small = tmp_path / "run", ("--width", "8", "16", "--hidden", "8", "16", "--blocks", "1", "2")
    flags = (*TRAINED, *FEW_CANDIDATES, *NO_MODELS, *small)
    summary, printed = searched(family, folder, *flags)
    assert "no budget is given, and the recipe's was that of its own family" in printed
    assert summary.constraint == "no limit"
    assert summary.networks is not None
    champion = summary.networks.champion
    assert champion.score == next(row["score"] for row in table(folder) if row["id"] == champion.id)
    check_record(folder)

    network = load_subnet(folder / "champion.json", family=str(family))
    assert score(network, folder) == pytest.approx(champion.score)
    assert sum(weight.numel() for weight in network.parameters()) == champion.params
    written = export(ExportCommand(folder, format=("safetensors", "torch-export", "onnx"), family=str(family)), console=quiet())
    names = {path.name for path in written.iterdir()}
    assert names == {"model.json", "model.safetensors", "model.md", "model.pt2", "model.onnx"}
    assert "An MLP-Mixer" in (written / "model.md").read_text()

    validation = validate(
        ValidateCommand(folder, subnets=4, within=0.9, epochs=1, family=str(family), tracking_uri=store_beside(folder)),
        console=quiet(),
    )
    inherited = {row.id: row.inherited for row in validation.subnets}
    assert inherited[champion.id] == champion.score
    assert len(inherited) == 4

    # Who opens the folder later is told what is missing.
    for action in (
        lambda: export(ExportCommand(folder), console=quiet()),
        lambda: validate(ValidateCommand(folder, subnets=4), console=quiet()),
        lambda: load_subnet(folder / "champion.json"),
    ):
        with pytest.raises(ValueError, match=r"mixer.*--family FILE"):
            action()
    with pytest.raises(ValueError, match="networks of the family mixer have no names in timm"):
        export(ExportCommand(folder, format=("timm",), family=str(family)), console=quiet())
    with pytest.raises(ValueError, match="'mixer', but --family gives 'staged'"):
        export(ExportCommand(folder, family=str(STAGED)), console=quiet())
    family.write_text(family.read_text().replace("NeurIPS", "NIPS"))
    with pytest.raises(ValueError, match=r"another configuration.*family_source"):
        searched(family, folder, *flags, "--resume")


# --- running statistics -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def calibrated(cluster: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search of the family with batch normalisation. Not to be changed."""
    folder = tmp_path_factory.mktemp("calibrated") / "run"
    searched(BATCHNORM, folder, *TRAINED, *FEW_CANDIDATES)
    return folder


def test_one_champion_has_one_score_wherever_it_is_asked(calibrated: Path, tmp_path: Path) -> None:
    champion = read_json(calibrated / "champion.json")
    rows = {row["id"]: row["score"] for row in table(calibrated)}
    assert champion["score"] == rows[champion["id"]]
    network = load_subnet(calibrated / "champion.json", family=str(BATCHNORM))
    assert score(network, calibrated) == pytest.approx(champion["score"])

    client = MlflowClient(store_beside(calibrated))
    registered = client.get_model_version_by_alias("digits", "champion")
    assert registered.tags["raysearch.key"] == champion["id"]
    model = mlflow.pyfunc.load_model(client.get_model_version_download_uri("digits", registered.version))
    split = open_cache(calibrated / "cache" / "search.arrow")
    names = model.predict(np.ascontiguousarray(split.images.transpose(0, 2, 3, 1)))["name"]
    assert float((names == split.labels.astype(str)).mean()) == pytest.approx(champion["score"])

    folder = copied_search(calibrated, tmp_path)
    command = ValidateCommand(folder, subnets=4, within=0.9, epochs=1, family=str(BATCHNORM), tracking_uri=store_beside(folder))
    validation = validate(command, console=quiet())
    inherited = {row.id: row.inherited for row in validation.subnets}
    assert inherited[champion["id"]] == champion["score"]

    # The champion's file is at hand; another candidate is extracted and calibrated anew.
    other = next(arch_id for arch_id in rows if arch_id != champion["id"])
    for which in (champion["id"], other):
        written = export(ExportCommand(folder, subnet=which, format=("torch-export",), family=str(BATCHNORM)), console=quiet())
        exported = load_subnet(written / "model.json", family=str(BATCHNORM))
        assert score(exported, calibrated) == pytest.approx(rows[which])
    largest = read_json(calibrated / "summary.json")["networks"]["largest"]
    written = export(ExportCommand(folder, subnet="largest", format=("safetensors",), family=str(BATCHNORM)), console=quiet())
    assert score(load_subnet(written / "model.json", family=str(BATCHNORM)), calibrated) == pytest.approx(largest["score"])


def test_the_champion_has_statistics_of_its_own(calibrated: Path) -> None:
    """Without the calibration it would be another network: the supernet's are those of all its subnets together."""
    family = find_family(str(BATCHNORM))
    arch = family.architecture.from_dict(read_json(calibrated / "champion.json")["arch"])
    network = load_subnet(calibrated / "champion.json", family=family).state_dict()
    shared = read_supernet(calibrated / "supernet.safetensors", family).build().extract(arch).state_dict()
    assert any("running" in name for name in network)
    for name, tensor in network.items():
        if "num_batches" not in name:
            assert torch.equal(tensor, shared[name]) != ("running" in name), name


def test_the_journal_knows_what_it_was_calibrated_with(calibrated: Path, tmp_path: Path) -> None:
    with (calibrated / "journal.jsonl").open() as journal:
        assert json.loads(next(journal)) == {
            "weights": content_digest(calibrated / "supernet.safetensors"),
            "calibration": content_digest(calibrated / "calibration.arrow"),
        }
    folder = copied_search(calibrated, tmp_path)
    (folder / ".finished").unlink()
    task = DIGITS_RECIPE.task
    task.write_cache(task.splits().train.subset(range(100)), folder / "calibration.arrow")
    with pytest.raises(ValueError, match="holds scores after another calibration") as refused:
        searched(BATCHNORM, folder, *TRAINED, *FEW_CANDIDATES, "--resume")
    assert "\n" not in str(refused.value)


# --- stages, blocks that may be left out, words ------------------------------------------------------------------------


@pytest.mark.usefixtures("cluster")
def test_stages_skipped_blocks_and_words_go_through_everything(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    summary, _ = searched(STAGED, first, *TRAINED, *NSGA2)
    archs = [json.loads(row["arch"]) for row in table(first)]
    assert len(archs) == 8
    assert any(None in blocks for arch in archs for blocks in arch["hidden"])
    assert len({arch["pool"] for arch in archs}) == 2
    check_record(first)

    rows = table(first)
    again, printed = searched(STAGED, first, *TRAINED, *NSGA2, "--resume")
    assert "is finished already" in printed
    assert again == summary
    assert table(first) == rows

    given = ("--supernet", str(first / "supernet.safetensors"))
    searched(STAGED, second, *TRAINED, *AGEING, *given, "--warm-start", str(first), "--warm-start-count", "2")
    check_record(second)
    best = sorted(rows, key=lambda row: (-row["score"], row["loss"]))[:2]
    assert [row["id"] for row in table(second)[:2]] == [row["id"] for row in best]
    page = tmp_path / "page.html"
    runs = (str(first), str(second))
    comparison = compare_searches(CompareCommand(runs, output=page, family=str(STAGED)), line="a test", console=quiet())
    assert sorted(len(group.runs) for group in comparison.groups) == [1, 1]
    text = page.read_text()
    assert "digits: 2 searches side by side" in text
    for folder in (first, second):
        assert all(row["id"] in text for row in json.loads((folder / "front.json").read_text()))
    with pytest.raises(ValueError, match="'staged': give its file with --family"):
        compare_searches(CompareCommand(runs, output=page), line="a test", console=quiet())
    assert read_json(first / CONFIG)["recipe"]["family"] == "staged"


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("blocks: tuple", "train: tuple"), "family mixer: MixerConfig.train has the name of a setting that every search has"),
        (("patch: Count = 2", "output: int = 2"), "family mixer: MixerConfig.output has the name of a setting"),
        (("patch: Count = 2", "dataset: int = 2"), "family mixer: MixerConfig.dataset has the name of a setting"),
        (("patch: Count = 2", "images: int = 2"), "family mixer: MixerConfig.images has the name of a setting"),
        (("patch: Count = 2", "patch: int = 3"), "--patch 3 makes no grid"),
        (("import torch\n", "import torch\n\n1 / 0\n"), "mine.py, line 15: ZeroDivisionError: division by zero"),
        (("FAMILY = ", "MINE = "), "mine.py sets no FAMILY"),
    ],
)
def test_a_mistake_in_the_file_is_one_line(
    change: tuple[str, str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = EXAMPLE.read_text()
    assert change[0] in text
    (tmp_path / "mine.py").write_text(text.replace(*change))
    with pytest.raises(SystemExit) as left:
        cli.search(["digits", "--family", str(tmp_path / "mine.py"), "--output", str(tmp_path / "run")])
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in one_line(left.value.code, printed.err)
    assert not (tmp_path / "run").exists()


def test_a_flag_of_another_family_is_no_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--width", "8"], ["--family", str(EXAMPLE), "--space.depth", "2"]):
        with pytest.raises(SystemExit) as left:
            cli.search(["digits", *arguments, "--output", str(tmp_path / "run")])
        assert arguments[-2] in one_line(left.value.code, capsys.readouterr().err)
