"""What further training made of the champion, and of the random subnet beside it: rows of the closing table, and in words."""

from __future__ import annotations

from raysearch.statistics import Interval
from raysearch.store.scores import Scale
from raysearch.store.summary import Network, TunedNetwork, Tuning


def tuned_rows(tuning: Tuning | None) -> dict[str, Network]:
    """The fine-tuned networks as rows of the closing table, by their names; none where nothing was trained further."""
    named = {} if tuning is None else {"champion, fine-tuned": tuning.champion, "random, fine-tuned": tuning.random}
    return {
        name: Network(
            id=tuned.id,
            arch=tuned.arch,
            score=tuned.score,
            test_score=tuned.test,
            params=tuned.params,
            macs=tuned.macs,
            score_interval=tuned.score_interval,
            test_interval=tuned.test_interval,
        )
        for name, tuned in named.items()
        if tuned is not None and tuned.failed is None
    }


def tuning_line(tuning: Tuning, scale: Scale) -> str:
    """How the champion was trained further, what that changed on the test split, and which weights are deployed."""
    taught = f", taught by the largest subnet with weight {tuning.distill:g}" if tuning.distill else ""
    epochs = f"{tuning.epochs} epoch{'s' * (tuning.epochs != 1)}"
    parts = [f"champion {_change(tuning.champion, scale)}"]
    if tuning.random is not None:
        parts.append(f"random subnet {tuning.random.id} of equal cost {_change(tuning.random, scale)}")
    if tuning.over_random is not None:
        parts.append(f"so trained the champion is {difference_text(tuning.over_random, scale)} from it")
    return f"fine-tuned for {epochs}{taught}, on the test split: {'; '.join(parts)}; {deployed_words(tuning, scale)}"


def deployed_words(tuning: Tuning, scale: Scale) -> str:
    """Which weights of the champion are deployed, and why."""
    gain, where = tuning.champion.gain, f"{tuning.items:,} search and finalist images"
    if gain is None:
        return "deployed are the inherited weights"
    decided = f"(fine-tuned minus inherited {difference_text(gain, scale)} on {where}, which decide)"
    return f"deployed are the {tuning.deployed} weights {decided}"


def _change(network: TunedNetwork, scale: Scale) -> str:
    """As ``97.00 % to 97.50 % (+0.50 ± 1.20 points)``."""
    if network.failed is not None:
        return f"keeps the weights that it inherits, as its training failed ({network.failed})"
    words = f"{scale.text(network.inherited_test)} to {scale.text(network.test)}"
    return words if network.test_gain is None else f"{words} ({difference_text(network.test_gain, scale)})"


def difference_text(gain: Interval, scale: Scale) -> str:
    """As ``+0.50 ± 1.20 points``."""
    return f"{scale.difference(gain.value, sign='+')} ± {scale.difference(gain.half)}{scale.points}"
