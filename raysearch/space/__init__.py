"""Declared search spaces and the architectures drawn from them.

A :class:`SearchSpace` is a list of named :class:`Choice` values plus, where the network has blocks, its depth. All that a
search needs (``sample``, ``mutate``, ``crossover``, ``contains``, ``smallest``, ``largest``, ``size``, iteration) follows from
that declaration; a new space writes an :class:`Architecture` dataclass and its choices, nothing else.
"""

from raysearch.space.architecture import Architecture
from raysearch.space.choice import Choice, MutationRates, Option
from raysearch.space.search_space import SearchSpace

__all__ = ["Architecture", "Choice", "MutationRates", "Option", "SearchSpace"]
