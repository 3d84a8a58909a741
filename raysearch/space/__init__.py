"""Declared search spaces and the architectures drawn from them.

A :class:`SearchSpace` is a list of named :class:`Choice` values plus, where the network has blocks, its depth. All that a
search needs (``sample``, ``mutate``, ``crossover``, ``contains``, ``smallest``, ``largest``, ``size``, iteration) follows from
that declaration; a new space writes an :class:`Architecture` dataclass and its choices, nothing else. With a closed-form
:class:`Cost` and a :class:`Constraint` it is a :class:`SearchProblem`.
"""

from raysearch.space.architecture import Architecture
from raysearch.space.choice import Choice, MutationRates, Option
from raysearch.space.cost import Constraint, Cost, Quantity
from raysearch.space.problem import InfeasibleError, SearchProblem
from raysearch.space.search_space import SearchSpace

__all__ = [
    "Architecture",
    "Choice",
    "Constraint",
    "Cost",
    "InfeasibleError",
    "MutationRates",
    "Option",
    "Quantity",
    "SearchProblem",
    "SearchSpace",
]
