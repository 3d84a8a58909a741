"""Architecture search for vision transformers on Ray.

The data's way through the package:

1. ``data`` cuts images into train, search and test splits and caches the last two decoded.
2. ``spaces`` declares what may be chosen (``space``), in tensors that all subnets share (``nn``), at a known ``cost``.
3. ``training`` trains that supernet, one drawn subnet per step; ``distributed.training`` runs it on Ray Train.
4. ``search`` proposes subnets and learns from their scores; ``distributed.searcher`` makes each a Tune trial.
5. ``distributed.evaluators`` score them with inherited weights (``evaluation``), all at once, and journal every outcome.
6. ``tracking`` records each candidate in MLflow; ``report`` shows them; ``export`` writes the champion.

``recipes`` holds whole configurations, ``pipeline`` runs one from beginning to end, ``cli`` starts it from a command line.
"""

from raysearch.space import Architecture, Choice, MutationRates, SearchSpace
from raysearch.space.cost import Constraint, Cost

__all__ = ["Architecture", "Choice", "Constraint", "Cost", "MutationRates", "SearchSpace"]
