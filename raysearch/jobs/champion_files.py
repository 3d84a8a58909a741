"""The files of the champion: what a user deploys, its inherited weights beside it, and what it says of the test images."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from raysearch.export import save_subnet
from raysearch.jobs.champion import Tuned
from raysearch.jobs.plan import Plan
from raysearch.report import sentence, tuning_line
from raysearch.scoring.subnets import open_subnets_of
from raysearch.search.protocol import Kind
from raysearch.store.folder import OutputFolder
from raysearch.store.model_card import CardData, CardTraining, LatencyPlace, ModelCard
from raysearch.store.predictions import PREDICTIONS, Predictions, write_predictions
from raysearch.store.secrets import without_credentials
from raysearch.store.summary import Network, Tuning
from raysearch.store.versions import package_versions
from raysearch.training import checkpoint


def save_champion(plan: Plan, folder: OutputFolder, network: Network, *, kind: Kind, tuned: Tuned | None) -> None:
    """Write ``champion.json``, ``.safetensors`` and ``.md``: what a user deploys.

    Where the champion was trained further, ``champion-inherited.json`` and its companions hold it with inherited weights too.

    Args:
        plan: of the search.
        folder: where the supernet is.
        network: the champion with inherited weights, and its scores.
        kind: of the outcomes whose mean its scores are.
        tuned: what further training left, if there was any.

    """
    card, family = _card(plan, folder, network, kind=kind), plan.recipe.family
    subnet = open_subnets_of(folder, family, plan.recipe.task).extract(plan.architecture(network.arch))
    deployed = folder.path / "champion.json"
    if tuned is None:
        save_subnet(deployed, subnet, family=family, card=card)
        return
    save_subnet(folder.path / "champion-inherited.json", subnet, family=family, card=card)
    if tuned.weights is None:
        card = replace(card, remark=sentence(tuning_line(tuned.tuning, card.scale)))
    else:
        subnet.load_state_dict(checkpoint.read(tuned.weights)[0])
        card = replace(card, **_tuned_facts(plan, tuned.tuning))
    save_subnet(deployed, subnet, family=family, card=card)


def _tuned_facts(plan: Plan, tuning: Tuning) -> dict[str, Any]:
    """What a card says otherwise of a champion that is deployed fine-tuned."""
    done = CardTraining(
        how="fine-tuned",
        began="the weights that it inherits from the supernet",
        epochs=tuning.epochs,
        lr=tuning.lr,
        batch_size=plan.recipe.train.batch_size,
        taught="the supernet's largest subnet" if tuning.distill else None,
        earlier_test=tuning.champion.inherited_test,
        test_gain=tuning.champion.test_gain,
    )
    return {"score": tuning.champion.score, "test_score": tuning.champion.test, "training": done}


def _card(plan: Plan, folder: OutputFolder, network: Network, *, kind: Kind) -> ModelCard:
    """The champion's model card, with inherited weights."""
    task, splits, where = plan.recipe.task, plan.splits, plan.latency
    return ModelCard(
        family=plan.recipe.family.name,
        settings=dict(plan.geometry.settings),
        **{name: value for name, value in asdict(network).items() if not name.endswith("_interval")},
        score_images=len(splits.search),
        test_images=len(splits.test),
        precision=plan.recipe.evaluators.precision,
        classes=list(splits.classes),
        preprocessing=task.preprocessing(),
        data=CardData(
            recipe=plan.recipe.name,
            dataset=task.data_name,
            train_images=len(splits.train),
            search_images=len(splits.search),
            test_images=len(splits.test),
            finalist_images=len(splits.finalists),
            seed=task.split_seed,
            digest=splits.digest,
        ),
        search_id=folder.search_id,
        command=without_credentials(folder.config["command"]),
        created=folder.config["created"],
        versions=package_versions(),
        seen=plan.seen,
        pretrained=_pretrained(plan, folder),
        latency=None if where is None else LatencyPlace(where.device, where.batch_size, where.precision),
        score_name=task.score_name,
        score_kind=kind,
    )


def _pretrained(plan: Plan, folder: OutputFolder) -> dict[str, str] | None:
    """Of the network that the search began with; what a first start wrote down, as a later one need not read it."""
    if plan.from_timm is None:
        return None
    return {"network": plan.from_timm, **folder.config.get("pretrained", {})}


def save_predictions(plan: Plan, folder: OutputFolder, predictions: Predictions | None) -> None:
    """Write what the champion says of each test image, with the names of classes and files; None: nothing is written."""
    if predictions is not None:
        splits, task = plan.splits, plan.recipe.task
        named = replace(predictions, classes=tuple(splits.classes), names=task.item_names(splits.test))
        write_predictions(folder.path / PREDICTIONS, named)
