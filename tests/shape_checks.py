"""The checker that tests/conftest.py puts behind every function of raysearch whose signature states an array's shape.

Other functions are left alone: a plain type is pyright's business, and some accept more than they declare in order to
normalise it or to refuse it with a message of their own.
"""

import re
from collections.abc import Callable
from typing import Any

from beartype import beartype

_SHAPED = re.compile(r"""\w\[[\w.]+, ["']""")  # as in Float[Tensor, "batch classes"]


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` with its shapes enforced, or as it is when it states none."""
    return beartype(function) if any(_SHAPED.search(str(hint)) for hint in function.__annotations__.values()) else function
