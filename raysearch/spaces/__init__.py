"""Families of networks: each a module with its architecture, supernet, subnet, presets and closed-form cost.

:mod:`~raysearch.spaces.family` holds the contract of a family, :mod:`~raysearch.spaces.supernet` that of its networks. A
family of your own is a file that sets ``FAMILY`` (experiments/own_space.py).
"""

from raysearch.spaces.family import Family, Foreign, Geometry, TimmNames, build_subnet, family, find_family
from raysearch.spaces.supernet import LeadingSupernet, Subnet, Supernet

__all__ = [
    "Family",
    "Foreign",
    "Geometry",
    "LeadingSupernet",
    "Subnet",
    "Supernet",
    "TimmNames",
    "build_subnet",
    "family",
    "find_family",
]
