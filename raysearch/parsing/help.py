"""What ``search --help`` shows: examples, the flags that matter, and where all others are explained. One screen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from raysearch.invocation import command_line
from raysearch.recipes import RECIPES, Recipe

EXAMPLES = (
    ("digits", "the demo: 1,797 handwritten digits, minutes on 2 CPU cores"),
    ("images --data DIR --constraint.max-params 6M", "your folder, one sub-folder of images per class"),
    ("images --data DIR --from-timm NAME --constraint.max-macs 2G", "the same from a pretrained vision transformer of timm's"),
    ("images --data DIR --constraint.max-latency-ms 20", "a budget in milliseconds on this machine"),
    ("digits --output runs/one --resume", "go on where a search stopped"),
)
"""Arguments, and what they ask for."""

FLAGS = (
    ("--data DIR", "folder of the images"),
    ("--output DIR --resume", "folder of all results; continue the search in it"),
    ("--constraint.max-params 6M", "budget: most parameters; also min-params, max-macs, min-macs, max-latency-ms"),
    ("--dataset.img-size 64", "side of the images that the network sees, in pixels"),
    ("--train.epochs 100", "training of the supernet, most of the time that a search takes"),
    ("--algorithm NAME", "evolution, ageing, nsga2, predictor or random; its settings have flags of its own"),
    ("--from-timm NAME", "begin with a pretrained vision transformer; its weights: --from-timm-weights FILE"),
    ("--baselines NAME ...", "networks of timm's beside the champion, trained as it is, on the test split"),
    ("--supernet FILE", "use a trained supernet: no training"),
    ("--warm-start SEARCH", "begin with the best of an earlier search"),
    ("--family FILE.py", "networks of your own"),
    ("--tracking-uri URI", "MLflow store; default: MLFLOW_TRACKING_URI, or SQLite beside the results"),
)
"""Flags that matter with values as people give them, and what they do."""


def search_help(recipe: Recipe[Any, Any]) -> str:
    """The page, for a recipe in its family."""
    program = command_line("search")
    lines = [f"usage: {program} RECIPE [FLAG VALUE ...]", "", "examples:"]
    for arguments, says in EXAMPLES:
        lines += [f"  # {says}", f"  {program} {arguments}"]
    lines += ["", "recipes:", *_table([(name, says) for name, (says, _) in RECIPES.items()])]
    lines += ["", "flags that matter:", *_table(FLAGS)]
    lines += ["", f"all flags of {recipe.name} by group; `{program} {recipe.name} --help-all` explains each with its default:"]
    lines += _table([(f"--{name}.*", f"{says} ({count} flags)") for name, says, count in _groups(recipe)])
    return "\n".join(lines)


def _table(rows: Any) -> list[str]:
    width = max(len(left) for left, _ in rows)
    return [f"  {left:<{width}}  {right}" for left, right in rows]


def _groups(recipe: Recipe[Any, Any]) -> Iterator[tuple[str, str, int]]:
    """Name, meaning and number of flags of each group of settings."""
    for part in (recipe, recipe.task, recipe.config):
        for f in fields(part):
            group = getattr(part, f.name)
            if hasattr(group, "__dataclass_fields__") and f.name not in ("task", "config", "family"):
                says = " ".join((type(group).__doc__ or "").split(".")[0].replace(":class:", "").replace("`", "").split())
                yield f.name, says, len(fields(group))
