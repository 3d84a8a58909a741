"""A report tells what the folder holds, in one file that needs nothing else."""

import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from finished_search import candidates_of, finish
from page_reader import Page, figures
from plotly.offline import get_plotlyjs
from rich.console import Console
from safetensors.numpy import save_file

from raysearch.report import (
    baselines_line,
    closing_table,
    common_line,
    finalists_line,
    tuning_line,
    utilisation_line,
    verdict_line,
    write_report,
)
from raysearch.search import pareto_front
from raysearch.statistics import Interval
from raysearch.store.candidates import CandidateRow, read_candidates, write_candidates
from raysearch.store.folder import read_record
from raysearch.store.summary import Baseline, Finalist, Finalists, Summary, TunedNetwork, Tuning, Usage


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    candidates = finish(folder, generations=4, population=10, failures=2)
    path = write_report(folder)
    assert path == folder / "report.html"
    return candidates, path.read_text(encoding="utf-8")


def test_the_page_is_one_sound_file_with_all_pictures(finished):
    _, html = finished
    page = Page(html)
    assert page.fetched == []
    assert {"front", "generations", "training"} <= page.ids
    assert set(figures(html)) == {"front", "generations", "training"}
    assert len(html) < 1.2 * len(get_plotlyjs())  # the library is in it once


def test_every_scored_candidate_is_a_point_with_its_architecture(finished):
    candidates, html = finished
    traces = figures(html)["front"]
    points = traces["candidate"]["text"]
    scored = [c for c in candidates if c.result]
    assert len(points) == len(scored) == 38
    for c, text in zip(scored, points, strict=True):
        assert c.proposal.arch.id in text
        assert f"embed_dim: {c.proposal.arch.embed_dim}" in text
        assert f"generation {c.proposal.generation}, {c.proposal.origin}" in text
    front = [c.proposal.arch.id for c in pareto_front(candidates)]
    assert [re.search("<b>(.*?)</b>", text)[1] for text in traces["Pareto front"]["text"]] == front
    assert traces["champion"]["text"] == [text for text in points if front[-1] in text]


def test_progress_shows_median_and_best_of_each_generation(finished):
    candidates, html = finished
    traces = figures(html)["generations"]
    best = [max(c.result.score for c in candidates if c.result and c.proposal.generation == g) for g in range(4)]
    assert traces["best of the generation"]["y"] == pytest.approx(best)
    assert traces["best so far"]["y"] == pytest.approx([max(best[: g + 1]) for g in range(4)])
    assert all(m < b for m, b in zip(traces["median"]["y"], best, strict=True))


def test_the_words_are_those_of_the_summary(finished):
    _, html = finished
    page = Page(html)
    text = " ".join(page.text)
    for fact in ("98.75 %", "a search over 38 subnets", "2 × evaluator lost", "digits --note '<&>'", "torch 2.14.1", "f" * 32):  # noqa: RUF001
        assert fact in text
    # Below each score its exact interval, of 393 of 397 and 392 of 400; below a median the lowest and the highest.
    assert ["largest subnet", "99.00 %", "97.4 to 99.7", "98.00 %", "96.1 to 99.1", "216,394", "1.23 M"] in page.rows
    assert ["smallest subnet", "–", "–", "10,250", "9,000"] in page.rows  # noqa: RUF001
    spans = ("96.50 to 96.50", "96.01 to 96.01")
    assert ["random, median of 25", "96.50 %", spans[0], "96.01 %", spans[1], "64,000", "2.50 G"] in page.rows
    assert "95 %: 97.1 to 99.6" in text  # of the champion's 395 of 400 test images


def test_a_short_search_with_a_given_supernet_has_a_report(tmp_path):
    finish(tmp_path, generations=1, population=1)
    summary = json.loads((tmp_path / "summary.json").read_text())
    del summary["networks"]["random"]
    summary["training"] = {"epochs": 0, "history": []}
    (tmp_path / "summary.json").unlink()  # it is written when the report is there
    html = write_report(tmp_path, Summary.from_dict(summary)).read_text(encoding="utf-8")
    assert set(figures(html)) == {"front", "generations"}
    assert "random, median" not in html


def test_the_terminal_gets_the_same_table(tmp_path):
    finish(tmp_path, generations=1, population=3)
    output = io.StringIO()
    Console(width=100, file=output).print(closing_table(read_record(tmp_path / "summary.json", Summary)))
    assert re.search(r"champion .* 98\.75 %", output.getvalue())
    assert re.search(r"random, median of 25 .* 96\.50 % .* 96\.01 % .* 64,000 .* 2\.50 G", output.getvalue())
    assert "50,000 <= params <= 80,000" in output.getvalue()


def test_a_search_in_progress_has_a_report(tmp_path):
    finish(tmp_path / "whole", generations=4, population=10)
    summary = json.loads((tmp_path / "whole" / "summary.json").read_text())
    known = {key: summary[key] for key in ("recipe", "seed", "command", "constraint", "search_id", "mlflow_run_id", "versions")}
    counts = {"candidates": 20, "train_images": 1000, "search_images": 397}
    progress = {"generation": 3, "generations": 4, "candidates": 20, "total": 40}
    known |= {"written": "2026-11-22T12:00:00+00:00", "seconds": {"search": 12.0}, "counts": counts, "progress": progress}
    known["training"] = {"epochs": 0, "history": []}
    candidates = candidates_of(generations=2, population=10)
    html = write_report(tmp_path, Summary.from_dict(known), candidates=candidates).read_text(encoding="utf-8")
    text = " ".join(Page(html).text)
    best = max(c.result.score for c in candidates)
    for fact in ("in progress", "generation 3 of 4", "20 of 40 candidates", f"{best:.2%}".replace("%", " %"), "Best so far"):
        assert fact in text
    assert set(figures(html)) == {"front", "generations"}
    assert "champion" not in figures(html)["front"]
    none_yet = write_report(tmp_path, Summary.from_dict(known), candidates=[]).read_text(encoding="utf-8")
    assert figures(none_yet) == {}


def test_what_the_best_share_is_told_beside_chance(tmp_path):
    candidates = finish(tmp_path, generations=3, population=100)
    best = sorted(candidates, key=lambda c: (-c.result.score, c.result.loss, c.result.params))[:20]
    four = sum(c.proposal.arch.num_heads[0] == 4 for c in best) / 20
    by_chance = sum(c.proposal.arch.num_heads[0] == 4 for c in candidates[:100]) / 100
    html = write_report(tmp_path).read_text(encoding="utf-8")
    assert f'title="num_heads 4 in block 1: best {four:.0%}; random candidates {by_chance:.0%}"' in html
    line = common_line(read_candidates(tmp_path / "candidates.parquet"))
    assert line.startswith("what the best 20 share, in brackets how many of them and of random candidates: ")
    assert f"num_heads 4 in block 1 ({four:.0%}, {by_chance:.0%})" in line
    assert common_line([CandidateRow.of(c) for c in candidates[:19]]) is None


def test_choices_that_chance_makes_as_often_are_not_called_common():
    rows = [CandidateRow.of(c) for c in candidates_of(generations=1, population=200)]
    assert common_line(rows) == "the best 20 share no choice that random candidates do not have about as often"


def test_racing_and_latency_have_pictures(tmp_path):
    candidates = finish(tmp_path, generations=4, population=10, latency=True)
    raced = [
        replace(c, outcome=replace(c.result, items_seen=100, excluded="raced")) if c.proposal.index in (35, 36) else c
        for c in candidates
    ]
    write_candidates(tmp_path / "candidates.parquet", raced)
    traces = figures(write_report(tmp_path).read_text(encoding="utf-8"))
    assert traces["racing"]["scored"]["y"] == pytest.approx([1, 1, 1, (8 * 397 + 2 * 100) / (10 * 397)])
    points = traces["latency"]["candidate"]
    measured = [c for c in raced if c.status == "scored"]
    assert sorted(zip(points["x"], points["y"], strict=True)) == sorted((c.result.macs, c.result.latency_ms) for c in measured)


def test_a_front_over_several_objectives_has_a_picture_of_each(tmp_path):
    finish(tmp_path, generations=2, population=10, latency=True)
    recipe = {"algorithm": "nsga2", "nsga2": {"objectives": ["score", "macs", "latency"]}}
    (tmp_path / "config.json").write_text(json.dumps({"recipe": recipe}))
    traces = figures(write_report(tmp_path).read_text(encoding="utf-8"))
    assert {"front_macs", "front_latency"} <= traces.keys()
    assert "front" not in traces
    front = traces["front_latency"]["Pareto front"]
    assert front["x"] == sorted(front["x"])
    assert front["y"] == sorted(set(front["y"]))


def test_finalists_and_utilisation_are_told(tmp_path):
    finish(tmp_path, generations=1, population=3)
    summary = json.loads((tmp_path / "summary.json").read_text())
    row = {"id": "abc", "rank_in_search": 2, "score_in_search": 0.99, "score": 0.98, "params": 60_000, "macs": 1_000_000}
    rows = [
        {**row, "behind_champion": 0.0075, "p_value": 0.03125},
        {**row, "id": "def", "behind_champion": 0.0, "p_value": 1.0},
    ]
    summary["finalists"] = {"images": 397, "images_in_search": 200, "curse": 0.01, "beaten": 1, "others": 1, "rows": rows}
    summary["utilisation"] = {"evaluators": 2, "busy": 0.873, "waiting_at_barrier": 0.051, "seconds": 36.0}
    page = Page(write_report(tmp_path, Summary.from_dict(summary)).read_text(encoding="utf-8"))
    assert ["abc", "2", "99.00 %", "98.00 %", "–", "0.75", "0.031", "60,000", "1.00 M"] in page.rows  # noqa: RUF001
    assert [cells[0] for cells in page.rows if cells and cells[0] in ("abc", "def")] == ["def", "abc"]
    line = utilisation_line(Usage(**summary["utilisation"]))
    assert line == "2 evaluators were busy 87% of 36.0 s; 5% went into waiting for the end of a generation"
    assert line in " ".join(page.text)
    assert "on all 397 search images, of which the search used 200; the 400 test images" in " ".join(page.text)


def test_the_verdict_is_told_in_words(tmp_path):
    """The champion beside the largest network and chance, how it was chosen, and what being selected added to scores."""
    finish(tmp_path, generations=1, population=8)
    known = read_record(tmp_path / "summary.json", Summary)
    assert known.networks is not None
    assert known.networks.random is not None
    networks = replace(
        known.networks,
        champion=replace(known.networks.champion, params=54_000, test_interval=Interval(0.97, 0.951, 0.982)),
        largest=replace(known.networks.largest, params=486_000),
        random=replace(known.networks.random, within=0.05, test_interval=Interval(0.96, 0.95, 0.97)),
        over_largest=Interval(-0.002, -0.007, 0.003),
        over_random=Interval(0.012, 0.006, 0.018),
    )
    rows = [
        Finalist("best", 1, 0.99, 0.98, -0.01, 1.0, 60_000, 5, interval=Interval(0.98, 0.96, 0.99)),
        Finalist("cheap", 4, 0.985, 0.97, 0.0, 0.2, 54_000, 4, interval=Interval(0.97, 0.95, 0.98)),
        Finalist("less", 5, 0.98, 0.92, 0.05, 0.01, 50_000, 3, interval=Interval(0.92, 0.9, 0.94), beaten=True),
    ]
    bias = Interval(0.0123, 0.001, 0.023)
    finalists = Finalists(200, 397, bias.value, 1, 2, rows, best="best", choose="cheapest", bias_interval=bias)
    summary = replace(known, networks=networks, finalists=finalists)
    line = verdict_line(summary)
    assert line is not None
    assert (
        "as accurate as the largest network as far as 400 test images tell (difference -0.20 ± 0.50 points), with 9.0 times "
        "fewer parameters"
    ) in line
    assert "1.20 ± 0.60 points above the mean of 25 random networks of the same number of parameters within 5 %" in line
    below = verdict_line(replace(summary, networks=replace(networks, over_largest=Interval(-0.013, -0.019, -0.007))))
    assert below is not None
    assert "1.30 ± 0.60 points below the largest network on 400 test images, with 9.0 times fewer parameters" in below
    largest = replace(networks, champion=replace(networks.champion, id=networks.largest.id), over_largest=None)
    assert verdict_line(replace(summary, networks=largest)) == (
        f"champion {networks.largest.id}: itself the largest network; 1.20 ± 0.60 points above the mean of 25 random networks "
        "of the same number of parameters within 5 % on 400 test images (± 95 %)"
    )
    unscored = replace(networks, over_largest=None)
    other = verdict_line(replace(summary, networks=unscored))
    assert other is not None
    assert other.startswith(f"champion {networks.champion.id}: 1.20 ± 0.60 points above the mean of 25 random networks")
    without_random = replace(networks, over_random=None)
    alone = verdict_line(replace(summary, networks=without_random))
    assert alone is not None
    assert alone.endswith("with 9.0 times fewer parameters (± 95 %)")
    assert verdict_line(replace(summary, networks=replace(largest, over_random=None))) is None
    chosen = finalists_line(finalists, summary.scale)
    assert "on 200 images that chose nobody, the best of the search beats 1 of 2 others beyond chance" in chosen
    assert "the champion is the one with the fewest parameters that it does not beat" in chosen
    assert "too high by 1.23 points on average (95 %: 0.10 to 2.30)" in chosen
    page = Page(write_report(tmp_path, summary).read_text(encoding="utf-8"))
    text = " ".join(" ".join(page.text).split())
    assert "9.0 times fewer parameters" in text
    assert "Random subnets have as many parameters as the champion within 5 %" in text
    assert ["best", "best of the search", "1", "99.00 %", "98.00 %", "96.0 to 99.0", "-1.00", "–", "60,000", "5"] in page.rows  # noqa: RUF001
    assert ["less", "5", "98.00 %", "92.00 %", "90.0 to 94.0", "5.00", "0.01", "50,000", "3"] in page.rows
    output = io.StringIO()
    Console(file=output, width=80).print(closing_table(summary))
    assert "95.1 to 98.2" in output.getvalue()
    nothing_kept = replace(finalists, images=0, best="best", choose="best", bias_interval=None)
    assert "no images are kept for them (dataset.finalist-images)" in finalists_line(nothing_kept, summary.scale)


def test_a_folder_without_a_finished_search_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"summary\.json is missing: a report needs the folder of a finished search"):
        write_report(tmp_path)
    finish(tmp_path, generations=1, population=2)
    earlier = write_report(tmp_path).read_bytes()
    (tmp_path / "summary.json").write_text("[{")
    with pytest.raises(ValueError, match=r"summary\.json is damaged"):
        write_report(tmp_path)
    assert (tmp_path / "report.html").read_bytes() == earlier


def test_what_further_training_changed_is_told_beside_what_is_inherited(tmp_path):
    """Also which weights are deployed, and of a training that failed that the inherited ones are."""
    finish(tmp_path, generations=1, population=8)
    known = read_record(tmp_path / "summary.json", Summary)
    champion = TunedNetwork(
        "abc",
        {},
        54_000,
        4,
        score=0.985,
        gain=Interval(0.002, -0.004, 0.008),
        inherited_test=0.9875,
        test=0.99,
        test_gain=Interval(0.0025, -0.01, 0.015),
    )
    other = replace(champion, id="def", inherited_test=0.95, test=0.96, test_gain=Interval(0.01, -0.02, 0.04))
    tuning = Tuning(20, 3e-4, 597, "fine-tuned", champion, other, distill=0.5, over_random=Interval(0.03, 0.01, 0.05))
    line = tuning_line(tuning, known.scale)
    assert line == (
        "fine-tuned for 20 epochs, taught by the largest subnet with weight 0.5, on the test split: champion 98.75 % to "
        "99.00 % (+0.25 ± 1.25 points); random subnet def of equal cost 95.00 % to 96.00 % (+1.00 ± 3.00 points); so trained "
        "the champion is +3.00 ± 2.00 points from it; deployed are the fine-tuned weights (fine-tuned minus inherited +0.20 ± "
        "0.60 points on 597 search and finalist images, which decide)"
    )
    summary = Summary.from_dict(json.loads(json.dumps(replace(known, tuning=tuning).to_dict())))
    page = Page(write_report(tmp_path, summary).read_text(encoding="utf-8"))
    text = " ".join(" ".join(page.text).split())
    assert line[1:] in text
    assert "test score of the champion, fine-tuned as it is deployed" in text
    rows = {row[0]: row for row in page.rows if row}
    for name, test in (("champion", "98.75 %"), ("champion, fine-tuned", "99.00 %"), ("random, fine-tuned", "96.00 %")):
        assert test in rows[name]
    output = io.StringIO()
    Console(file=output, width=80).print(closing_table(summary))
    names = [line.split("│")[1].strip() for line in output.getvalue().splitlines() if line.startswith("│")]
    assert [name for name in names if name][:2] == ["champion", "champion, fine-tuned"]
    failed = replace(tuning, deployed="inherited", champion=TunedNetwork("abc", {}, 54_000, 4, failed="no finite loss"))
    told = tuning_line(failed, known.scale)
    assert "champion keeps the weights that it inherits, as its training failed (no finite loss)" in told
    assert told.endswith("deployed are the inherited weights")
    text = write_report(tmp_path, replace(known, tuning=failed)).read_text(encoding="utf-8")
    assert "champion, fine-tuned" not in text


def test_baselines_stand_beside_the_champion_with_how_far_it_is_above_them(tmp_path):
    finish(tmp_path, generations=1, population=8)
    known = read_record(tmp_path / "summary.json", Summary)
    whole = Baseline("full network", "whole", 15, 80_000, 9, score=0.99, test=0.995, lead=Interval(-0.0075, -0.02, 0.005))
    small = replace(whole, name="vit_tiny_224", began="pretrained", epochs=10, test=0.9, lead=Interval(0.09, 0.07, 0.11))
    fresh = replace(small, name="resnet18", began="fresh", test=0.8125, lead=Interval(0.175, 0.15, 0.2))
    failed = replace(small, name="resnet50", test=None, lead=None, failed="no finite loss")
    summary = replace(known, baselines=[whole, small, fresh, failed])
    summary = Summary.from_dict(json.loads(json.dumps(summary.to_dict())))
    line = baselines_line(summary.baselines, summary.scale)
    assert line == (
        "champion, as deployed, on the test split: -0.75 ± 1.25 points from full network, fine-tuned (15 epochs); +9.00 ± 2.00 "
        "points from vit_tiny_224, fine-tuned (10 epochs); +17.50 ± 2.50 points from resnet18, from scratch (10 "
        "epochs); resnet50 could not be trained (no finite loss) (± 95 %, in pairs of items)"
    )
    page = Page(write_report(tmp_path, summary).read_text(encoding="utf-8"))
    assert line[1:] in " ".join(" ".join(page.text).split())
    rows = {row[0]: row for row in page.rows if row}
    for name, test in (("full network, fine-tuned", "99.50 %"), ("resnet18, from scratch", "81.25 %")):
        assert test in rows[name]
    assert "resnet50, fine-tuned" not in rows
    output = io.StringIO()
    Console(file=output, width=80).print(closing_table(summary))
    names = [line.split("│")[1].strip() for line in output.getvalue().splitlines() if line.startswith("│")]
    assert [name for name in names if name][1:4] == ["full network,", "fine-tuned", "vit_tiny_224,"]


def test_what_the_parts_of_a_pretrained_network_are_worth_is_shown_by_block_and_best_first(tmp_path):
    """Many parts as means of neighbours, so that the page stays small."""
    finish(tmp_path, generations=1, population=4)
    path = tmp_path / "importance.safetensors"
    neurons = np.arange(2 * 960, dtype=np.float32).reshape(2, 960)
    save_file({"heads": np.float32([[1, 3, 2], [6, 4, 5]]), "neurons": neurons, "blocks": np.float32([0.5, -0.25])}, path)
    html = write_report(tmp_path).read_text(encoding="utf-8")
    assert {"What heads are worth", "What neurons are worth", "What blocks are worth"} <= {
        *re.findall(r"What \w+ are worth", html)
    }
    shown = figures(html)
    assert shown["worth_heads"][""]["z"] == [[3, 2, 1], [6, 5, 4]]
    assert [(len(row), row[0], row[-1]) for row in shown["worth_neurons"][""]["z"]] == [(96, 954.5, 4.5), (96, 1914.5, 964.5)]
    assert shown["worth_blocks"][""]["y"] == [0.5, -0.25]
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"importance\.safetensors is damaged"):
        write_report(tmp_path)
