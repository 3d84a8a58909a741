"""Architecture search for vision transformers on Ray.

The data's way through the package:

1. ``tasks`` divides the data into train, search, finalist and test splits, caches them decoded, and says what is good.
2. ``spaces`` holds families of networks: what may be chosen (``space``), in tensors that all subnets share (``nn``).
3. ``training`` trains that supernet, one drawn subnet per step; ``distributed.training`` runs it on Ray Train.
4. ``search`` proposes subnets and learns from their scores; ``distributed.searcher`` makes each a Tune trial.
5. ``distributed.evaluators`` score them with inherited weights (``scoring``), all at once; ``store`` journals every outcome.
6. ``tracking`` records each candidate in MLflow; ``report`` shows them; ``export`` writes the champion.

``recipes`` holds whole configurations, ``jobs`` runs one from beginning to end, ``cli`` starts it from a command line.
"""

from raysearch.errors import UserError
from raysearch.space import Architecture, Choice, Constraint, Cost, MutationRates, SearchSpace

__all__ = ["Architecture", "Choice", "Constraint", "Cost", "MutationRates", "SearchSpace", "UserError"]
