"""The example that strangers copy passes what every family passes."""

from pathlib import Path

from contract import FamilyContract

from raysearch.spaces import find_family
from raysearch.tasks import Ends

EXAMPLE = find_family(str(Path(__file__).parents[2] / "experiments" / "own_space.py"))


class TestOwnSpace(FamilyContract):
    FAMILY = EXAMPLE
    CONFIG = EXAMPLE.config()
    ENDS = Ends((3, 8, 8), 7)
