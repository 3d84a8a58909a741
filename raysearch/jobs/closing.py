"""After the search: the champion beside other subnets, on the test split once, and all that is left in folder and MLflow."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from random import Random

from rich.console import Console

from raysearch.distributed.scoring import ScoringService
from raysearch.distributed.search_run import SEARCH_SPLIT
from raysearch.jobs.plan import Plan
from raysearch.jobs.progress import activity, phase
from raysearch.jobs.registry import register_networks
from raysearch.jobs.watching import known_so_far
from raysearch.report import (
    baselines_line,
    closing_table,
    common_line,
    finalists_line,
    informative_line,
    latency_line,
    proxy_line,
    racing_line,
    sentence,
    tuning_line,
    utilisation_line,
    verdict_line,
    write_report,
)
from raysearch.scoring.latency import LatencyTable
from raysearch.search import Candidate, Result
from raysearch.search.protocol import ByItem
from raysearch.space import Architecture, SearchProblem
from raysearch.statistics import Interval, over_seeds, paired_difference, score_interval
from raysearch.store.candidates import CANDIDATES, read_candidates
from raysearch.store.files import write_whole
from raysearch.store.folder import OutputFolder, write_json
from raysearch.store.predictions import PREDICTIONS
from raysearch.store.secrets import without_password
from raysearch.store.summary import (
    Baseline,
    EpochRecord,
    Finalists,
    InformativeUse,
    LatencyRecord,
    Network,
    Networks,
    ProxyAgreement,
    RacingSavings,
    RandomNetworks,
    Summary,
    TunedNetwork,
    Tuning,
    Usage,
)
from raysearch.tracking import Tracker, shown, ui_command, ui_url

TEST_SPLIT = "test"
WHOLE_SEARCH_SPLIT = "search/all"
"""All images of the search split, for subnets that the search scored on a part of them: what is compared saw all."""
FINALISTS_SPLIT = "finalists"
"""Images that are kept for the finalists."""
REST_OF_SEARCH_SPLIT = "search/rest"
"""Images of the search split on which the search scored nobody, where it scored on a part of them."""
EQUAL_COST = (0.05, 0.1, 0.2, 0.4)
"""Random subnets cost the same as the champion within the first of these shares in which there are any."""
TRIES = 100
"""Draws from the whole budget for each random subnet, where it is latency that is to be equal."""
RECORDED = (
    "report.html",
    "summary.json",
    CANDIDATES,
    "front.json",
    PREDICTIONS,
    "champion.json",
    "champion.safetensors",
    "champion.md",
    "champion-inherited.json",
    "champion-inherited.safetensors",
    "champion-inherited.md",
    "config.json",
)
"""Files of the folder that MLflow gets."""


# --- the champion among others ----------------------------------------------------------------------------------------


def compare(
    plan: Plan, best: Candidate, candidates: Sequence[Candidate], service: ScoringService, console: Console
) -> Networks:
    """Champion, largest, smallest and random subnets on all images of the search split and, once, on the test split.

    The random ones cost as much as the champion: beside them it shows what the search found, not what its size gives.
    """
    problem = plan.problem
    champion, largest, smallest = best.proposal.arch, problem.space.largest(), problem.space.smallest()
    random, within = equally_dear(plan, champion)
    chosen: list[Architecture] = list(dict.fromkeys([champion, largest, smallest, *random]))
    # Where the search scored a subnet on all images, its score is known.
    everything = plan.recipe.finalists.search_images is None
    again = {c.proposal.arch for c in candidates if c.result is not None and c.result.partial} if everything else set(chosen)
    scores: dict[str, dict[Architecture, Result]] = {SEARCH_SPLIT: {}, TEST_SPLIT: {}}
    with phase(console, "report", len(chosen) * len(scores)) as shown:
        done = 0
        for split, results in scores.items():
            whole = [subnet for subnet in chosen if split == SEARCH_SPLIT and subnet in again]
            outcomes = service.score(split, [subnet for subnet in chosen if subnet not in whole])
            for subnet, outcome in chain(outcomes, service.score(WHOLE_SEARCH_SPLIT, whole)):
                done += 1
                shown.show(done, step=f"{split} split")
                if isinstance(outcome, Result):
                    results[subnet] = outcome

    def network(subnet: Architecture) -> Network:
        result, test = scores[SEARCH_SPLIT].get(subnet), scores[TEST_SPLIT].get(subnet)
        cost = problem.cost(subnet)
        intervals = [None if r is None else score_interval(r.by_item(r.items_seen)) for r in (result, test)]
        return Network(
            id=subnet.id,
            arch=subnet.to_dict(),
            score=result.score if result else None,
            test_score=test.score if test else None,
            params=cost.params,
            macs=cost.macs,
            latency_ms=result.latency_ms if result and plan.latency is not None else None,
            score_interval=intervals[0],
            test_interval=intervals[1],
        )

    tested = {subnet: result.by_item(result.items_seen) for subnet, result in scores[TEST_SPLIT].items()}
    return Networks(
        network(champion),
        network(largest),
        network(smallest),
        _medians([network(subnet) for subnet in random], within=within),
        quantity=problem.constraint.quantity,
        over_largest=_lead(tested, champion, [largest] if champion != largest else []),
        over_random=_lead(tested, champion, [subnet for subnet in random if subnet in scores[SEARCH_SPLIT]]),
    )


def equally_dear(plan: Plan, champion: Architecture) -> tuple[list[Architecture], float]:
    """Random subnets of the budget whose cost is the champion's within a share of it, and that share.

    The share is the first of :data:`EQUAL_COST` that holds any; the champion is not among them.
    """
    problem, quantity = plan.problem, plan.problem.constraint.quantity
    cost = problem.cost(champion)
    for within in EQUAL_COST:
        band = SearchProblem(problem.space, problem.cost, problem.constraint.around(cost, within=within))
        drawn: dict[Architecture, None] = {champion: None}
        for i in range(plan.recipe.report.random_subnets):
            rng = Random(f"{plan.recipe.seed}/report/{i}")
            for _ in range(TRIES if quantity == "latency" else 1):
                found = band.sample(rng, exclude=drawn)
                if found is not None and problem.cost(found).of(quantity) >= (1 - within) * cost.of(quantity):
                    drawn[found] = None
                    break
        if len(drawn) > 1:
            return list(drawn)[1:], within
    return [], EQUAL_COST[0]


def _lead(tested: Mapping[Architecture, ByItem], champion: Architecture, others: Sequence[Architecture]) -> Interval | None:
    """The champion's test score minus the mean of the others'; None where there is none of them."""
    known = [tested[other] for other in others if other in tested]
    return paired_difference(tested[champion], known) if champion in tested and known else None


def _medians(drawn: Sequence[Network], *, within: float) -> RandomNetworks | None:
    scored = [(n, n.score, n.test_score) for n in drawn if n.score is not None and n.test_score is not None]
    if not scored:
        return None
    scores, test_scores = [score for _, score, _ in scored], [test for _, _, test in scored]
    latencies = [n.latency_ms for n, _, _ in scored if n.latency_ms is not None]
    return RandomNetworks(
        score=statistics.median(scores),
        test_score=statistics.median(test_scores),
        params=statistics.median(n.params for n, _, _ in scored),
        macs=statistics.median(n.macs for n, _, _ in scored),
        subnets=len(scored),
        scores=scores,
        test_scores=test_scores,
        ids=[n.id for n, _, _ in scored],
        archs=[n.arch for n, _, _ in scored],
        latency_ms=statistics.median(latencies) if latencies else None,
        within=within,
        score_interval=over_seeds(scores),
        test_interval=over_seeds(test_scores),
    )


# --- what is left of it all -------------------------------------------------------------------------------------------


def close(
    plan: Plan,
    folder: OutputFolder,
    tracker: Tracker,
    *,
    candidates: Sequence[Candidate],
    front: Sequence[Candidate],
    networks: Networks,
    finalists: Finalists,
    utilisation: Usage | None,
    proxy: ProxyAgreement | None,
    history: Sequence[EpochRecord],
    tuning: Tuning | None,
    baselines: Sequence[Baseline] = (),
) -> Summary:
    """Write ``summary.json`` and ``report.html``, and record both with the closing numbers: the search has its result then."""
    known = known_so_far(plan, folder, tracker, candidates=candidates, history=history)
    _mark_networks(plan, tracker, networks.champion, front, None if tuning is None else tuning_line(tuning, known.scale))
    tracker.set_tags({"raysearch.deployed": "inherited" if tuning is None else tuning.deployed})
    tracker.show(shown(candidates, front=[c.proposal.arch.id for c in front], champion=networks.champion.id))
    summary = replace(
        known,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        mlflow_uri=without_password(tracker.uri),
        mlflow_experiment_id=tracker.experiment_id,
        counts=replace(
            known.counts,
            generations=1 + max(c.proposal.generation for c in candidates),
            test_images=len(plan.splits.test),
        ),
        networks=networks,
        finalists=finalists,
        tuning=tuning,
        baselines=[*baselines],
        racing=_racing(plan, candidates) if plan.recipe.racing.enabled else None,
        informative=_informative(candidates),
        proxy=proxy,
        utilisation=utilisation,
        latency=None if plan.latency is None else _latency(plan, plan.latency, networks.champion, candidates),
    )
    write_json(folder.summary, summary.to_dict())
    write_report(folder.path, summary, candidates=candidates)
    for name in RECORDED:
        if (folder.path / name).exists():  # predictions are those of a classification, inherited weights stand beside others
            tracker.log_artifact(folder.path / name)
    tracker.log_metrics(_numbers(networks, tuning) | _beside_numbers(baselines), step=0)
    if plan.recipe.report.register:
        write_whole(folder.unregistered, "")
    return summary


def register(plan: Plan, folder: OutputFolder, tracker: Tracker, summary: Summary, console: Console) -> Summary:
    """Have champion and front registered as models in MLflow, which a search with its result does last.

    Whatever happens here, ``--resume`` does what is left. Returns the summary with the time it took and the networks whose
    export failed.
    """
    with folder.timed("register"), activity(console, "registering networks in MLflow"):
        left = register_networks(plan, folder, tracker)
    summary = replace(summary, unregistered=left, seconds=folder.seconds)
    write_json(folder.summary, summary.to_dict())
    tracker.log_artifact(folder.summary)
    folder.unregistered.unlink(missing_ok=True)
    return summary


def _numbers(networks: Networks, tuning: Tuning | None) -> dict[str, float | None]:
    """The closing table as metrics: ``champion/test_score`` with inherited weights, ``champion/tuned_test_score`` fine-tuned.

    What that changed is ``champion/tuning_test_gain``, with the ends of its interval.
    """
    numbers: dict[str, float | None] = {}
    for which in ("champion", "largest", "smallest", "random"):
        network = getattr(networks, which)
        for key in ("score", "test_score", "params", "macs", "latency_ms"):
            numbers[f"{which}/{key}"] = getattr(network, key, None)
    for which in ("champion", "random"):
        tuned: TunedNetwork | None = getattr(tuning, which, None)
        if tuned is None:
            continue
        numbers |= {f"{which}/tuned_score": tuned.score, f"{which}/tuned_test_score": tuned.test}
        for name, gain in (("tuning_gain", tuned.gain), ("tuning_test_gain", tuned.test_gain)):
            if gain is not None:
                numbers |= {
                    f"{which}/{name}": gain.value,
                    f"{which}/{name}_low": gain.low,
                    f"{which}/{name}_high": gain.high,
                }
    return numbers


def _beside_numbers(baselines: Sequence[Baseline]) -> dict[str, float | None]:
    """Of each ``baseline/NAME/test_score``, ``params``, ``macs``, and by how much the champion is above it."""
    numbers: dict[str, float | None] = {}
    for each in baselines:
        place = f"baseline/{re.sub(r'[^A-Za-z0-9_. -]', '-', each.name)}"
        found = {"score": each.score, "test_score": each.test, "params": each.params, "macs": each.macs}
        found["latency_ms"] = each.latency_ms
        if each.lead is not None:
            found |= {
                "champion_lead": each.lead.value,
                "champion_lead_low": each.lead.low,
                "champion_lead_high": each.lead.high,
            }
        numbers |= {f"{place}/{name}": value for name, value in found.items()}
    return numbers


def _mark_networks(plan: Plan, tracker: Tracker, champion: Network, front: Sequence[Candidate], tuned: str | None) -> None:
    """Mark champion and front among the runs, and say which the champion is; ``tuned``: what further training made of it."""
    tracker.mark_candidates([c.proposal.arch.id for c in front], {"raysearch.front": "true"})
    tracker.mark_candidates([champion.id], {"raysearch.champion": "true"})
    note = (
        f"Champion {champion.id}: score {champion.score}, test score {champion.test_score}, {champion.params:,} "
        f"parameters, {champion.macs:,} MACs. `report.html` is among the artifacts."
    )
    if tuned is not None:
        note += f" {sentence(tuned)}"
    if plan.recipe.report.register:
        note += f' `mlflow.pyfunc.load_model("models:/{plan.recipe.name}@champion")` loads it.'
    tracker.set_tags({"raysearch.champion": champion.id, "mlflow.note.content": note})


def judge_proxy(plan: Plan, service: ScoringService) -> ProxyAgreement | None:
    """How well the proxy that opened the search ranks random subnets of the whole budget, by their scores on the search split.

    None where none opened it, and for fewer than 3 subnets.
    """
    if plan.proxy is None:
        return None
    drawn: dict[Architecture, None] = {}
    for i in range(plan.recipe.report.random_subnets):
        found = plan.problem.sample(Random(f"{plan.recipe.seed}/proxy-report/{i}"), exclude=drawn)
        if found is not None:
            drawn[found] = None
    scored = [(arch, r.score) for arch, r in service.score(WHOLE_SEARCH_SPLIT, list(drawn)) if isinstance(r, Result)]
    if len(scored) < 3:
        return None
    archs = [arch for arch, _ in scored]
    params = [plan.problem.cost(arch).params for arch in archs]
    return plan.proxy.agreement(archs, [score for _, score in scored], params)


def _racing(plan: Plan, candidates: Sequence[Candidate]) -> RacingSavings:
    """How racing was set and what it saved."""
    tried = [c.result for c in candidates if c.result is not None]
    return RacingSavings(
        error=plan.recipe.racing.error,
        block=plan.recipe.racing.block,
        candidates=len(tried),
        raced=sum(result.excluded == "raced" for result in tried),
        images_seen=sum(result.items_seen for result in tried),
        images_of_full_scoring=len(tried) * (plan.recipe.finalists.search_images or len(plan.splits.search)),
    )


def _informative(candidates: Sequence[Candidate]) -> InformativeUse | None:
    """None where all were scored on all images, or none was."""
    tried = [c.result for c in candidates if c.result is not None and c.result.excluded != "raced"]
    sampled = [result for result in tried if result.sample is not None]
    whole = [result.items_seen for result in tried if result.sample is None]
    if not sampled or not whole:
        return None
    images = int(statistics.median(result.items_seen for result in sampled))
    return InformativeUse(len(tried), len(sampled), images, whole[0], len({result.sample for result in sampled}))


def _latency(plan: Plan, table: LatencyTable, champion: Network, candidates: Sequence[Candidate]) -> LatencyRecord:
    """Where and how latency was measured, the table's error, and the champion's latency."""
    predicted = plan.problem.cost(plan.architecture(champion.arch)).latency_ms
    assert predicted is not None
    return LatencyRecord(
        **{name: value for name, value in table.to_dict().items() if name != "coefficients"},
        champion_ms=champion.latency_ms,
        champion_predicted_ms=predicted,
        slow=sum(c.status == "slow" for c in candidates),
    )


def show_summary(summary: Summary, folder: OutputFolder, console: Console) -> None:
    """Print the closing table, the time by phase, and how to open the record."""
    console.print(closing_table(summary))
    seconds = summary.seconds
    lines = [
        verdict_line(summary),
        f"{summary.counts.candidates} candidates in {sum(seconds.values()):.0f} s ("
        + ", ".join(f"{name} {value:.0f}" for name, value in seconds.items())
        + f"); report: {folder.path / 'report.html'}; network: {folder.path / 'champion.json'}",
        summary.tuning and tuning_line(summary.tuning, summary.scale),
        baselines_line(summary.baselines, summary.scale),
        summary.finalists and finalists_line(summary.finalists, summary.scale),
        common_line(read_candidates(folder.path / CANDIDATES)),
        summary.proxy and proxy_line(summary.proxy),
        summary.utilisation and utilisation_line(summary.utilisation),
        summary.racing and racing_line(summary.racing),
        summary.informative and informative_line(summary.informative),
        summary.latency and latency_line(summary.latency),
    ]
    for line in lines:
        if line:
            console.print(line, highlight=False, soft_wrap=True)
    if summary.mlflow_uri is not None and summary.mlflow_experiment_id is not None:
        opened = ui_command(summary.mlflow_uri)
        url = ui_url(summary.mlflow_uri, summary.mlflow_experiment_id, search_id=summary.search_id)
        console.print(
            f"every candidate in MLflow: {opened + '  then open  ' if opened else ''}{url}", highlight=False, soft_wrap=True
        )
